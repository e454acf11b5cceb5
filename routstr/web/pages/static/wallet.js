// The wallet page: what is known of the key, and what the rooms of the page have in common. Each
// room is a file of its own; this one opens them, asks for the balance, and finishes what is under way.

import { startChat } from "./wallet-chat.js";
import { call, Failure, repeat } from "./wallet-api.js";
import { $, $$, amount, ask, copy, el, fill, sats, show, shortened, toast, usd } from "./wallet-dom.js";
import { faultBox } from "./wallet-fault.js";
import { startHistory } from "./wallet-history.js";
import { startPayIn } from "./wallet-pay.js";
import { startShop } from "./wallet-shop.js";
import { apiKey, canKeep, invoice, kept, onOtherWindow, pending } from "./wallet-store.js";
import { startWithdraw } from "./wallet-withdraw.js";

const ASK_AGAIN_MS = 5_000;
const ASK_AGAIN_MAX_MS = 60_000;
const ONLINE_MS = 30_000;
const DOING = { create: "A new key", topup: "A top-up", refund: "A withdrawal" };

const data = { ...JSON.parse($("#w-data").textContent), models: JSON.parse($("#w-models-data").textContent) };
const running = new Map();
const listeners = [];

/** What every room is given. `info` is the last `/v1/balance/info`, null without a key. */
const app = {
  data,
  info: null,
  get balanceMsat() {
    return app.info?.balance ?? 0;
  },
  /** Call `changed` whenever the key or its balance may be another. */
  onChange: (changed) => listeners.push(changed),
  refresh,
  useKey,
  act,
  open: openPanel,
  fiat: (msat) => usd(msat, data.btc_usd),
};

// ── the key ────────────────────────────────────────────────────────────────────────────────────

let infoOf = null;

async function refresh() {
  const key = apiKey.get();
  if (key !== infoOf) app.info = null;
  infoOf = key;
  if (key === null) {
    fill($("#w-fault"));
    paint();
    return;
  }
  try {
    const info = await call("/v1/balance/info", { key });
    if (apiKey.get() !== key) return;
    app.info = info;
    fill($("#w-fault"));
  } catch (error) {
    fill($("#w-fault"), faultBox(error));
  }
  paint();
}

function paint() {
  const key = apiKey.get();
  show($("#w-start"), key === null);
  show($("#w-balance"), key !== null);
  show($("#w-use-key"), key !== null);
  if (key !== null) {
    $("#w-key").textContent = shortened(key, 9, 4);
    if (app.info !== null) paintBalance(app.info);
  }
  for (const changed of listeners) changed();
}

function paintBalance(info) {
  fill($("#w-amount"), amount(info.balance, { class: "large" }), " ",
    el("span", { class: "fiat" }, app.fiat(info.balance)));
  const said = [];
  if (info.reserved > 0) said.push(`${sats(info.reserved)} sat held for running requests`);
  if (info.total_requests > 0) {
    said.push(`${sats(info.total_spent)} sat spent on ${info.total_requests} request${info.total_requests === 1 ? "" : "s"}`);
  }
  if (info.is_child) said.push("spends the money of the key that made it");
  $("#w-held").textContent = said.join(" · ") || "Nothing spent yet";
}

/** Keep a key in this browser. */
async function useKey(text) {
  apiKey.set(text);
  await refresh();
}

async function forget() {
  const left = app.info === null ? "its balance" : `${sats(app.balanceMsat)} sat`;
  const yes = await ask("Forget the key?", [
    `Whoever has the key has ${left}. This browser deletes it, and nobody can restore it.`,
    "Copy it first, or withdraw what is on it.",
    el("div", {}, copyAgain()),
  ], { yes: "Forget key", danger: true });
  if (!yes) return;
  apiKey.forget();
  invoice.forget("topup");
  for (const each of pending.all()) if (each.of) pending.end(each.id);
  toast("The key is gone from this browser.");
  await refresh();
}

function copyAgain() {
  return el("button", { class: "button", type: "button", onclick: () => copy(apiKey.get(), "Key copied") }, "Copy key");
}

// ── money under way ────────────────────────────────────────────────────────────────────────────

/** One action on money, begun or joined. Throws Failure; one that is not final is asked again. */
async function act(kind, body) {
  const key = kind === "create" ? null : apiKey.get();
  const begun = pending.find(kind, body, key) ?? pending.begin(kind, body, key);
  try {
    return await carry(begun);
  } catch (error) {
    if (error instanceof Failure && !error.isFinal) askAgain();
    throw error;
  }
}

/** Ask for it, at most once at a time; what it led to is kept before it is called done. */
function carry(begun) {
  if (!running.has(begun.id)) {
    const work = repeat(begun).then((answer) => {
      settled(begun, answer);
      pending.end(begun.id);
      return answer;
    }).finally(() => running.delete(begun.id));
    running.set(begun.id, work);
    work.then(refresh, () => {});
  }
  return running.get(begun.id);
}

function settled(begun, answer) {
  if (begun.kind === "topup") {
    toast(`${sats(answer.msats)} sat arrived.`);
  } else if (begun.kind === "create") {
    const other = apiKey.get();
    if (other === null || other === answer.api_key) apiKey.set(answer.api_key);
    else kept.add({ id: answer.key_id, kind: "key", text: answer.api_key, msat: answer.balance });
  } else if (answer.token) {
    const msat = answer.msats === undefined ? Number(answer.sats) * 1000 : Number(answer.msats);
    kept.add({ id: answer.refund_id, kind: "token", text: answer.token, msat });
  }
}

let waitMs = ASK_AGAIN_MS;
let waiting = null;

function askAgain() {
  if (waiting === null) {
    waiting = setTimeout(resume, waitMs);
    waitMs = Math.min(2 * waitMs, ASK_AGAIN_MAX_MS);
  }
  paintPending();
}

/** Finish what was begun: here, in another window, or before the page was closed. */
async function resume() {
  clearTimeout(waiting);
  waiting = null;
  const key = apiKey.get();
  for (const begun of pending.all()) {
    if (begun.of && !key?.endsWith(begun.of)) continue;
    try {
      await carry(begun);
      waitMs = ASK_AGAIN_MS;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (error.isFinal) refused(begun, error);
      else askAgain();
    }
  }
  paintPending();
}

/** What was pasted in another visit is in no field any more: it is shown, unless it is spent. */
function refused(begun, error) {
  toast(`${DOING[begun.kind]} did not happen: ${error.message}`, "bad");
  if (begun.kind !== "refund" && !error.code.includes("already_spent")) giveBack(begun, error.message);
}

function giveBack(begun, why) {
  kept.add({ id: begun.id, kind: "returned", text: begun.body.initial_balance_token ?? begun.body.cashu_token, why });
  paint();
}

async function stopAsking(begun) {
  const yes = await ask("Stop asking?", [
    begun.kind === "refund"
      ? "If the node took it, the withdrawal goes on without this page; Past withdrawals has it."
      : "The token is put on this page. If the node took it already, it is spent; if not, it is still yours.",
  ], { yes: "Stop asking" });
  if (!yes) return;
  pending.end(begun.id);
  if (begun.kind !== "refund") giveBack(begun, "You stopped before the answer was certain.");
  paintPending();
}

function paintPending() {
  const left = pending.all().filter((each) => !each.of || apiKey.get()?.endsWith(each.of));
  const place = $("#w-resume");
  fill(place, left.map((each) => el("div", { class: "banner busy", role: "status" },
    el("div", { class: "say" }, el("div", {},
      el("strong", {}, `${DOING[each.kind]} is under way. `),
      "This page asks until the answer is certain; asking again never pays twice.")),
    el("div", { class: "row tight" },
      el("button", { class: "button small", type: "button", onclick: resume }, "Ask now"),
      el("button", { class: "button small quiet", type: "button", onclick: () => stopAsking(each) }, "Stop asking")))));
  show(place, left.length > 0);
}

// ── the page ───────────────────────────────────────────────────────────────────────────────────

function openPanel(name) {
  for (const button of $$("[data-open]")) {
    const chosen = button.dataset.open === name && button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(chosen));
    show($(`#w-${button.dataset.open}`), chosen);
  }
}

async function measure() {
  const dot = $("#w-online");
  const began = performance.now();
  try {
    await call("/health", { key: null });
    dot.textContent = `Online · ${Math.max(1, Math.round(performance.now() - began))} ms`;
    dot.classList.add("on");
    if (app.info === null && apiKey.get() !== null) refresh();
  } catch {
    dot.textContent = "Not reachable";
    dot.classList.remove("on");
  }
  show(dot);
}

function start() {
  if (!canKeep()) {
    fill($("#w-resume"), el("div", { class: "banner bad", role: "alert" },
      "This browser does not let the page keep anything, so it cannot hold a key. Allow storage for this site, or use the API."));
    show($("#w-resume"));
    return;
  }
  for (const button of $$("[data-open]")) button.addEventListener("click", () => openPanel(button.dataset.open));
  $("#w-copy-key").addEventListener("click", () => copy(apiKey.get(), "Key copied"));
  $("#w-forget").addEventListener("click", forget);
  startPayIn(app);
  startWithdraw(app);
  startChat(app);
  startHistory(app);
  startShop(app);
  onOtherWindow(refresh);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
  setInterval(() => {
    if (!document.hidden) measure();
  }, ONLINE_MS);
  measure();
  refresh().then(resume);
}

start();
