// Money out: as a token that stays on the page until it is saved, or over Lightning with its fee
// told before it leaves; and how earlier withdrawals stand.

import { call } from "./wallet-api.js";
import { $, $$, amount, ask, badge, busy, change, copyButton, el, facts, fill, moment, sats, show, tabs, toast, typedSats } from "./wallet-dom.js";
import { faultBox, tellFault } from "./wallet-fault.js";
import { qrBox } from "./wallet-qr.js";
import { apiKey, kept } from "./wallet-store.js";

const MSAT = 1000;
const PAST_ROWS = 50;
const FOLLOW_MS = 2000;
const INVOICE = /^(?:lightning:)?ln[a-z]{2,6}1?[0-9a-z]{20,}$/i;
const STATES = {
  token: { completed: ["ready to redeem", "wait"], claimed: ["redeemed", "ok"] },
  lightning: { completed: ["sent", "ok"], claimed: ["sent", "ok"] },
  both: { pending: ["on its way", "busy"], failed: ["failed; the money is back", "bad"], reclaimed: ["back on the key", "off"] },
};

/** Open the rooms for paying out. */
export function startWithdraw(app) {
  const open = tabs($("#w-withdraw"), (name) => {
    if (name === "past") paintPast(app);
  });
  open("token");
  startToken(app);
  startSend(app);
  app.onChange(() => paintKept(app));
}

// ── as a token ─────────────────────────────────────────────────────────────────────────────────

function startToken(app) {
  const form = $("#w-out");
  const field = $("#w-out-sat");
  const says = $("[data-says]", form);
  const button = $("[type=submit]", form);
  const fault = $("[data-fault]", form);
  const preview = () => {
    const most = Math.floor(app.balanceMsat / MSAT);
    const typed = typedSats(field.value);
    const wanted = typed ?? most;
    const isGood = wanted >= 1 && wanted <= most;
    field.setAttribute("aria-invalid", String(typed !== null && !isGood));
    if (isGood) {
      fill(says, facts(
        ["You get", amount(wanted * MSAT), " as a token"],
        ["Fee", "none here; a wallet that redeems it pays its mint's own fee, if there is one"],
        ["Balance", change(app.balanceMsat, app.balanceMsat - wanted * MSAT)]));
    } else {
      fill(says, el("p", { class: "muted" }, emptyWord(app, most)));
    }
    button.disabled = !isGood;
    button.textContent = isGood ? `Withdraw ${sats(wanted * MSAT)} sat` : "Withdraw";
    return isGood ? { amount_sats: wanted } : null;
  };
  field.addEventListener("input", preview);
  app.onChange(preview);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = preview();
    if (body === null) return;
    busy(button, async () => {
      tellFault(fault, null);
      try {
        await app.act("refund", body);
        field.value = "";
        await app.refresh();
        app.open("withdraw"); // closes it: the next press would be another withdrawal
        $("#w-tokens").scrollIntoView({ block: "start" });
      } catch (error) {
        tellFault(fault, error);
      }
    }).then(preview);
  });
}

function emptyWord(app, most) {
  if (app.info?.is_child) return "This key spends the money of another key; only that one can withdraw.";
  if (most < 1) return "There is less than a sat on the key; it stays and can be spent.";
  return `From 1 to ${sats(most * MSAT)} sat.`;
}

// ── what was handed out and is not saved yet ───────────────────────────────────────────────────

function paintKept(app) {
  const place = $("#w-tokens");
  const entries = kept.all();
  for (const gone of $$("[data-kept-id]", place)) {
    if (!entries.some((each) => each.id === gone.dataset.keptId)) gone.remove();
  }
  for (const entry of entries) {
    if ($$("[data-kept-id]", place).some((each) => each.dataset.keptId === entry.id)) continue;
    place.prepend(keptBox(app, entry));
    if (entry.kind === "token") checkRedeemed(app, entry);
  }
  show(place, entries.length > 0);
}

const KEPT = {
  token: ["Ecash, ready to redeem: ", "ready to redeem", "Whoever has this token has the money. It stays here until you have copied or saved it."],
  key: ["Another key was made: ", "new key", "This browser holds another key already. Copy or save this one."],
  returned: ["A token that was not taken", "yours", "Copy or save it before you take it off the page. "],
};

function keptBox(app, entry) {
  const isToken = entry.kind !== "key";
  const [title, state, hint] = KEPT[entry.kind];
  const file = isToken ? "cashu-token.txt" : "routstr-key.txt";
  const box = el("div", { class: "once", "data-once": "", "data-kept-id": entry.id },
    el("div", { class: "row apart" },
      el("p", { class: "strong" }, title, entry.msat ? amount(entry.msat) : null), badge(state, "wait")),
    el("p", { class: "small" }, hint, entry.why ?? ""),
    el("div", { class: "bill" },
      isToken ? qrBox(entry.text, "token") : null,
      el("div", { class: "stack grow" },
        el("div", { class: "secret long", tabindex: "0" }, entry.text),
        el("div", { class: "row tight" },
          copyButton(entry.text, isToken ? "Copy token" : "Copy key", "primary"),
          el("button", { class: "button", type: "button", "data-save": file, "data-text": entry.text }, "Save as file"),
          el("button", { class: "button quiet", type: "button", onclick: () => dismiss(app, box, entry) }, "Done")))));
  return box;
}

async function dismiss(app, box, entry) {
  if (box.dataset.kept === undefined) {
    const yes = await ask("It was not copied or saved", [
      entry.kind === "token"
        ? "As long as you have the key, Past withdrawals shows the token again until it is redeemed."
        : "This page is the only place that shows it.",
    ], { yes: "Take it off the page", no: "Keep it here", danger: entry.kind !== "token" });
    if (!yes) return;
  }
  kept.remove(entry.id);
  paintKept(app);
}

/** A token that somebody redeemed meanwhile need not be kept. */
async function checkRedeemed(app, entry) {
  try {
    const view = await call(`/v1/balance/refund/${encodeURIComponent(entry.id)}`);
    if (view.status !== "claimed" && view.status !== "reclaimed") return;
  } catch {
    return; // another key's, or the node is away: it stays
  }
  kept.remove(entry.id);
  paintKept(app);
  toast("The token that was here was redeemed.");
}

// ── over Lightning ─────────────────────────────────────────────────────────────────────────────

function startSend(app) {
  const form = $("#w-send");
  const to = $("#w-send-to");
  const field = $("#w-send-sat");
  const says = $("[data-says]", form);
  const fault = $("[data-fault]", form);
  const went = $("[data-went]", form);
  const asking = $("[data-quote]", form);
  const sending = $("[data-send]", form);
  let body = null;
  const reset = () => {
    body = null;
    fill(says);
    show(asking);
    show(sending, false);
    show($("[data-address]", form), !INVOICE.test(to.value.trim()));
  };
  const wish = () => {
    const text = to.value.trim();
    if (INVOICE.test(text)) return { invoice: text };
    const wanted = typedSats(field.value);
    field.setAttribute("aria-invalid", String(Number.isNaN(wanted)));
    if (text === "" || Number.isNaN(wanted)) return null;
    return wanted === null ? { lightning_address: text } : { lightning_address: text, amount_sats: wanted };
  };
  to.addEventListener("input", () => {
    fill(went);
    reset();
  });
  field.addEventListener("input", reset);
  let balance = app.balanceMsat;
  app.onChange(() => {
    if (app.balanceMsat !== balance) reset();
    balance = app.balanceMsat;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = wish();
    if (wanted === null || body !== null) return;
    busy(asking, async () => {
      tellFault(fault, null);
      try {
        const quote = await call("/v1/balance/refund/quote", { method: "POST", body: wanted });
        body = wanted;
        paintQuote(app, says, quote);
        sending.textContent = `Send ${sats(quote.amount_msats)} sat`;
        show(asking, false);
        show(sending);
        sending.focus();
      } catch (error) {
        tellFault(fault, error);
      }
    });
  });
  sending.addEventListener("click", () => busy(sending, async () => {
    tellFault(fault, null);
    try {
      const view = await app.act("refund", body);
      to.value = "";
      field.value = "";
      reset();
      await follow(app, went, view);
    } catch (error) {
      tellFault(fault, error);
      if (error.isFinal) reset();
    }
  }));
}

function paintQuote(app, place, quote) {
  fill(place, facts(
    ["To", el("span", { class: "long" }, quote.recipient)],
    ["Arrives", amount(quote.amount_msats)],
    ["Fee, at most", amount(quote.fee_reserve_msats), " ", el("span", { class: "muted small" }, "what is not needed comes back")],
    ["Balance, at least", change(app.balanceMsat, app.balanceMsat - quote.total_msats)]));
}

/** Say how a payment goes until it has ended. */
async function follow(app, place, first) {
  let view = first;
  for (;;) {
    fill(place, el("p", {}, stateOf("lightning", view.status), " ",
      view.status === "completed" ? ["fee ", amount(view.fee_msats)] : "You may leave: it goes on without this page."));
    if (view.status !== "pending") break;
    await new Promise((resolve) => {
      setTimeout(resolve, FOLLOW_MS);
    });
    try {
      view = await call(`/v1/balance/refund/${encodeURIComponent(view.refund_id)}`);
    } catch (error) {
      if (error.isFinal) throw error;
    }
  }
  await app.refresh();
}

// ── past withdrawals ───────────────────────────────────────────────────────────────────────────

async function paintPast(app) {
  const place = $("#w-past");
  if (apiKey.get() === null) return;
  let rows;
  try {
    rows = (await call(`/v1/balance/history?limit=${PAST_ROWS}`)).transactions.filter((row) => row.type === "out");
  } catch (error) {
    fill(place, faultBox(error));
    return;
  }
  if (rows.length === 0) {
    fill(place, el("div", { class: "empty" }, el("strong", {}, "Nothing was withdrawn yet"),
      el("p", {}, "What you take out is listed here with its state; a token is shown again until it is redeemed.")));
    return;
  }
  fill(place, el("ul", { class: "lines" }, rows.map((row) => pastRow(app, row))));
}

function pastRow(app, row) {
  const way = row.source === "cashu" ? "token" : "lightning";
  const msat = row.unit === "msat" ? row.amount : row.amount * MSAT;
  const again = way === "token" && row.status === "completed";
  const button = again || row.status === "pending"
    ? el("button", { class: "button small", type: "button" }, again ? "Show token" : "Ask again")
    : null;
  button?.addEventListener("click", () => busy(button, () => showAgain(app, row, msat)));
  return el("li", {}, el("span", {}, amount(msat), el("span", { class: "muted" }, way === "token" ? " as a token" : " over Lightning")),
    el("span", { class: "muted" }, moment(row.created_at)), stateOf(way, row.status), button);
}

async function showAgain(app, row, msat) {
  try {
    const view = await call(`/v1/balance/refund/${encodeURIComponent(row.id)}`);
    if (view.token) {
      kept.add({ id: view.refund_id, kind: "token", text: view.token, msat });
      paintKept(app);
      $("#w-tokens").scrollIntoView({ block: "nearest" });
    } else {
      await paintPast(app);
    }
  } catch (error) {
    toast(error.message, "bad");
  }
}

function stateOf(way, status) {
  const [word, kind] = STATES[way][status] ?? STATES.both[status] ?? [status, ""];
  return badge(word, kind);
}
