// Models to search, and snippets that have the key and the model in them once there are any.

import { $, $$, show, shortened, tabs } from "./wallet-dom.js";
import { apiKey } from "./wallet-store.js";

const NO_KEY = "sk-…";

/** Open the list of models and the snippets. */
export function startShop(app) {
  startSearch(app);
  startSnippets(app);
}

function startSearch(app) {
  const rows = $$("#w-model-rows tr");
  if (rows.length === 0) return;
  show($("#w-search"));
  const field = $("#w-find");
  const names = rows.map((row) => `${row.dataset.model} ${$(".what", row).textContent}`.toLowerCase());
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    rows.forEach((row, index) => {
      const matches = words.every((word) => names[index].includes(word));
      show(row, matches);
      if (matches) found += 1;
    });
    show($("#w-no-model"), found === 0);
  });
  const chatting = new Set(app.data.models.map((each) => each.id));
  for (const row of rows) {
    if (!chatting.has(row.dataset.model)) continue;
    const button = $("[data-use]", row);
    button.setAttribute("aria-label", `Use ${row.dataset.model} in the chat and the snippets`);
    show(button);
    button.addEventListener("click", () => {
      app.chooseModel(row.dataset.model);
      const place = apiKey.get() === null ? $("#w-use") : $("#w-chat");
      place.scrollIntoView({ block: "start" });
      if (apiKey.get() !== null) $("#w-prompt").focus({ preventScroll: true });
    });
  }
}

function startSnippets(app) {
  const room = $("#w-use");
  const blocks = $$(".code", room);
  for (const heading of $$(".snippets h3", room)) show(heading, false);
  show($("#w-use-tabs"));
  tabs(room)("python");
  const write = () => {
    const key = apiKey.get();
    for (const place of $$('[data-fill="key"]', room)) place.textContent = key === null ? NO_KEY : shortened(key, 7, 4);
    if (app.model) for (const place of $$('[data-fill="model"]', room)) place.textContent = app.model;
    for (const block of blocks) {
      const copied = $("code", block).cloneNode(true);
      for (const place of $$('[data-fill="key"]', copied)) place.textContent = key ?? NO_KEY;
      $("button", block).dataset.copy = copied.textContent;
      show($("button", block));
    }
  };
  app.onModel = write;
  app.onChange(write);
  write();
}
