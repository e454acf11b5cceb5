// How the wallet page makes what it shows: elements from values, amounts, feedback. Text is only
// ever set as text, so nothing that a model, a mint or a node says becomes markup.

const THIN = "\u2009";
const MSAT = 1000;

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element: `el("p", {class: "hint", onclick: f}, "text", child)`; null and false are left out. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((each) => each !== null && each !== false));
  return made;
}

/** Put `children` in place of what `node` held. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((each) => each !== null && each !== false));
}

/** Show or hide; what is hidden is out of the tab order, too. */
export function show(node, shown = true) {
  node.hidden = !shown;
}

// ── amounts ────────────────────────────────────────────────────────────────────────────────────

/** An amount in msat as people read it: `1 234`, `0.204`, `-3.5`; with a sign if `signed`. */
export function sats(msat, { signed = false } = {}) {
  const whole = Math.floor(Math.abs(msat) / MSAT);
  const rest = Math.abs(msat) % MSAT;
  const decimals = rest ? `.${String(rest).padStart(3, "0").replace(/0+$/, "")}` : "";
  const sign = msat < 0 ? "\u2212" : signed && msat > 0 ? "+" : "";
  return `${sign}${grouped(whole)}${decimals}`;
}

/** `1234567` as `1 234 567`. */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, THIN);
}

/** The amount with its unit, and its msat for whoever points at it. */
export function amount(msat, options = {}) {
  const [whole, part] = sats(msat, options).split(".");
  return el("span", { class: `amount ${options.class ?? ""}`.trim(), title: `${grouped(msat)} msat` },
    whole, part ? el("span", { class: "part" }, `.${part}`) : null, el("span", { class: "unit" }, "\u00a0sat"));
}

/** Whole sats that somebody typed, as a number; null for nothing, NaN for anything else. */
export function typedSats(text) {
  const bare = text.replace(/[\s\u2009_,']/g, "");
  if (bare === "") return null;
  return /^[0-9]{1,15}$/.test(bare) && Number(bare) > 0 ? Number(bare) : NaN;
}

/** What it is worth in USD at the node's rate, or "" without one. */
export function usd(msat, btcUsd) {
  if (!btcUsd) return "";
  const value = (msat / 1e11) * btcUsd;
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.1 ? 2 : Math.min(8, 1 - Math.floor(Math.log10(size)));
  return `≈${THIN}$${value.toFixed(digits)}`;
}

/** `before → after` as one line. */
export function change(beforeMsat, afterMsat) {
  return el("span", { class: "change" }, amount(beforeMsat), " → ", amount(afterMsat));
}

/** A long text with its middle left out. */
export function shortened(text, head = 10, tail = 6) {
  return text.length <= head + tail + 1 ? text : `${text.slice(0, head)}…${text.slice(-tail)}`;
}

/** A Unix time as people read it here, and exactly for whoever points at it. */
export function moment(unixS) {
  const date = new Date(unixS * MSAT);
  const options = { dateStyle: "medium", timeStyle: "short" };
  return el("time", { datetime: date.toISOString(), title: date.toISOString() },
    date.toLocaleString(undefined, options));
}

/** A state is a word and a colour. */
export function badge(word, kind = "") {
  return el("span", { class: `badge ${kind}`.trim() }, word);
}

// ── feedback ───────────────────────────────────────────────────────────────────────────────────

/** A short word at the edge of the page, told to screen readers too; kind is ok or bad. */
export function toast(text, kind = "ok") {
  window.routstr.toast(text, kind);
}

/** Put text on the clipboard and say so; true if that worked. */
export async function copy(text, said) {
  const worked = await window.routstr.copied(text);
  if (worked) toast(said);
  else toast("This browser does not let a page copy: select the text instead.", "bad");
  return worked;
}

/** A button that copies `text`; app.js gives the feedback. */
export function copyButton(text, label = "Copy", kind = "") {
  return el("button", { class: `button ${kind}`.trim(), type: "button", "data-copy": text },
    el("span", { "data-word": "" }, label));
}

/** Give the browser a file to save. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), MSAT);
}

/** Ask in a dialog; resolves to whether the answer was yes. `lines` are text or nodes. */
export function ask(title, lines, { yes, no = "Cancel", danger = false }) {
  const dialog = el("dialog", { "aria-labelledby": "w-ask" },
    el("div", { class: "title" }, el("h2", { id: "w-ask" }, title)),
    el("form", { class: "form", method: "dialog" },
      lines.map((line) => (typeof line === "string" ? el("p", {}, line) : line)),
      el("div", { class: "row end" },
        el("button", { class: "button quiet", value: "no" }, no),
        el("button", { class: `button ${danger ? "danger sure" : "primary"}`, value: "yes" }, yes))));
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}

/** Show something in a dialog of its own, with a way out. */
export function showDialog(title, ...content) {
  const dialog = el("dialog", { "aria-labelledby": "w-dialog" },
    el("div", { class: "title" }, el("h2", { id: "w-dialog" }, title),
      el("button", { class: "button quiet square", type: "button", "data-closes": "", "aria-label": "Close" }, "✕")),
    el("div", { class: "stack" }, content));
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
}

/** Names and values, one pair a line; pairs without a value are left out. */
export function facts(...pairs) {
  return el("dl", { class: "facts" }, pairs.filter((pair) => pair && pair[1] !== null).map(([name, ...value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** While `work` runs its button waits; nothing is sent twice. */
export async function busy(button, work) {
  if (button.disabled) return;
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
  }
}

/** Tabs over panels: buttons with `data-tab`, panels with `data-panel` of the same name. */
export function tabs(root, onOpen = () => {}) {
  const buttons = $$("[data-tab]", root);
  for (const panel of $$("[data-panel]", root)) {
    const button = buttons.find((each) => each.dataset.tab === panel.dataset.panel);
    button.id ||= `${root.id}-tab-${panel.dataset.panel}`;
    panel.id ||= `${root.id}-${panel.dataset.panel}`;
    button.setAttribute("aria-controls", panel.id);
    panel.setAttribute("aria-labelledby", button.id);
    if (panel.nodeName !== "FORM") panel.setAttribute("role", "tabpanel");
  }
  const open = (name) => {
    for (const button of buttons) {
      const chosen = button.dataset.tab === name;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    for (const panel of $$("[data-panel]", root)) show(panel, panel.dataset.panel === name);
    onOpen(name);
  };
  buttons.forEach((button, index) => {
    button.addEventListener("click", () => open(button.dataset.tab));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = buttons[(index + step + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
  });
  return open;
}
