// Money in: a pasted token, read here before it is sent; an invoice, watched until it is paid; a
// payment request that any Cashu wallet can answer.

import { call } from "./wallet-api.js";
import { $, $$, amount, badge, busy, change, copyButton, el, facts, fill, sats, show, tabs, toast, typedSats } from "./wallet-dom.js";
import { tellFault } from "./wallet-fault.js";
import { startInvoices } from "./wallet-invoice.js";
import { qrBox } from "./wallet-qr.js";
import { offerScan } from "./wallet-scan.js";
import { apiKey } from "./wallet-store.js";
import { decodeToken, feeOf, InvalidToken, kindOf, mintAddress, tidied } from "./wallet-token.js";

const MSAT = 1000;
const WATCH_MS = 3000;
const WATCHED_ROWS = 20;

/** Open the rooms for paying in. */
export function startPayIn(app) {
  tabs($("#w-start"))("token");
  const openTopup = tabs($("#w-topup"));
  openTopup("token");
  for (const form of $$("[data-paste]")) new Paste(app, form);
  startInvoices(app);
  startRequest(app);
}

// ── a token, or a key ──────────────────────────────────────────────────────────────────────────

class Paste {
  constructor(app, form) {
    this.app = app;
    this.form = form;
    this.field = $("textarea", form);
    this.says = $(".reading", form);
    this.button = $("[type=submit]", form);
    this.fault = $("[data-fault]", form);
    this.takesKeys = form.dataset.paste === "w-paste";
    this.word = this.button.textContent;
    this.found = null;
    this.field.addEventListener("input", () => this.read());
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.found !== null) busy(this.button, () => this.send()).then(() => this.read());
    });
    app.onChange(() => this.read());
    offerScan($("[data-scan]", form), (text) => {
      this.field.value = text;
      this.read();
    });
  }

  /** Say what the text is, and let it be sent only if it can be taken. */
  read() {
    const text = tidied(this.field.value);
    this.found = null;
    let said = [];
    if (text !== "") {
      try {
        said = this.takesKeys && kindOf(text) === "key" ? this.readKey(text) : this.readToken(text);
      } catch (error) {
        if (!(error instanceof InvalidToken)) throw error;
        said = refusal(error.message);
      }
    }
    fill(this.says, said);
    this.button.disabled = this.found === null;
    this.button.textContent = this.found?.word ?? this.word;
  }

  readKey(text) {
    this.found = { word: "Use this key", key: text };
    return el("p", {}, badge("An sk- key", "ok"), " The node is asked for its balance, then this browser keeps it.");
  }

  readToken(text) {
    if (text.startsWith("sk-")) throw new InvalidToken("A key is sk- and 64 digits from 0 to f. Copy it again, whole.");
    const token = decodeToken(text);
    const mint = this.app.data.mints.find((each) => mintAddress(each.url) === token.mint);
    const isSat = token.unit === "sat";
    if (!isSat && token.unit !== "msat") throw new InvalidToken(`This ecash is in ${token.unit}; the node takes sat.`);
    const unitMsat = isSat ? MSAT : 1;
    const value = token.amount * unitMsat;
    const said = [["Mint", token.mint], ["Value", amount(value), " ", el("span", { class: "fiat" }, this.app.fiat(value))]];
    if (mint === undefined) {
      return [facts(...said), refusal("This node does not take ecash of that mint. It would be refused, so nothing is sent.")];
    }
    const own = this.app.data.lock?.slice(-64);
    if (token.locks.some((lock) => lock.slice(-64) !== own)) {
      return [facts(...said), refusal("This ecash is locked to somebody else. Receive it in a wallet and send it on.")];
    }
    const fee = feeOf(token, mint.fees_ppk);
    const arrives = fee === null ? value : value - fee * unitMsat;
    if (arrives <= 0) return [facts(...said), refusal("The mint's fee takes all of it.")];
    if (fee === null) said.push(["The mint's fee", "what the mint takes, if anything"]);
    else if (fee > 0) said.push(["The mint's fee", amount(fee * unitMsat)]);
    const before = this.takesKeys ? 0 : this.app.balanceMsat;
    said.push([fee === null ? "Balance, at most" : "Balance", change(before, before + arrives)]);
    if (token.memo) said.push(["Memo", token.memo]);
    this.found = { word: `${this.word} with ${sats(arrives)} sat`, token: text };
    return facts(...said);
  }

  async send() {
    const { key, token } = this.found;
    tellFault(this.fault, null);
    try {
      if (key !== undefined) {
        await call("/v1/balance/info", { key });
        this.clear();
        await this.app.useKey(key);
      } else if (this.takesKeys) {
        await this.app.act("create", { initial_balance_token: token });
        this.clear();
        toast("Your key is ready. Copy it to somewhere safe.");
      } else {
        await this.app.act("topup", { cashu_token: token });
        this.clear();
      }
    } catch (error) {
      tellFault(this.fault, error);
    }
  }

  clear() {
    this.field.value = "";
    this.read();
  }
}

function refusal(text) {
  return el("p", { class: "warned", role: "alert" }, text);
}

// ── a payment request ──────────────────────────────────────────────────────────────────────────

function startRequest(app) {
  const form = $("#w-request");
  const bill = $("#w-request-bill");
  const field = $("#w-request-sat");
  const fault = $("[data-fault]", form);
  let watch = null;
  const stop = () => {
    clearInterval(watch);
    show(bill, false);
    show(form);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = typedSats(field.value);
    field.setAttribute("aria-invalid", String(Number.isNaN(wanted)));
    if (Number.isNaN(wanted)) return;
    busy($("[type=submit]", form), async () => {
      tellFault(fault, null);
      try {
        const body = wanted === null ? {} : { amount_sats: wanted };
        const made = await call("/v1/balance/request", { method: "POST", body });
        const last = await newest();
        paintRequest(app, bill, made, stop);
        show(form, false);
        show(bill);
        clearInterval(watch);
        watch = setInterval(() => {
          if (!document.hidden) arrived(app, bill, last);
        }, WATCH_MS);
      } catch (error) {
        tellFault(fault, error);
      }
    });
  });
  let owner = apiKey.get();
  app.onChange(() => {
    if (apiKey.get() !== owner) stop();
    owner = apiKey.get();
  });
}

function paintRequest(app, bill, made, stop) {
  const forms = { creqA: made.payment_request, creqB: made.payment_request_bech32.toUpperCase() };
  const picture = el("div", { class: "picture" });
  const text = el("code", { class: "long secret" });
  const buttons = Object.keys(forms).map((name) =>
    el("button", { type: "button", "aria-pressed": "false", onclick: () => choose(name) }, name));
  const copying = copyButton(forms.creqA, "Copy request");
  function choose(name) {
    fill(picture, qrBox(forms[name], "payment request"));
    text.textContent = forms[name];
    copying.dataset.copy = forms[name];
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === name));
  }
  fill(bill, picture, el("div", { class: "stack grow" },
    el("p", { class: "strong" }, made.amount_sats === null ? "Any amount" : amount(made.amount_sats * MSAT), " onto this key"),
    el("p", { "data-state": "" }, badge("waiting for a payment", "busy")),
    el("div", { class: "segments", role: "group", "aria-label": "Form of the request" }, buttons), text,
    el("p", { class: "small muted" }, "creqA is known to most wallets, creqB is the newer form. A wallet that cannot deliver by itself shows a token: paste it under Token."),
    el("div", { class: "row tight" }, copying, el("button", { class: "button quiet", type: "button", onclick: stop }, "Done"))));
  choose("creqA");
}

/** The number of the key's last row: what comes after it has arrived since. */
async function newest() {
  const { transactions } = await call("/v1/balance/transactions?limit=1");
  return { sequence: transactions[0]?.sequence ?? 0, msat: 0 };
}

async function arrived(app, bill, last) {
  let rows;
  try {
    rows = (await call(`/v1/balance/transactions?limit=${WATCHED_ROWS}`)).transactions;
  } catch {
    return; // the next look will tell
  }
  const fresh = rows.filter((row) => row.sequence > last.sequence);
  if (fresh.length === 0) return;
  last.sequence = fresh[0].sequence;
  const came = fresh.filter((row) => row.type === "deposit" && row.description !== "Lightning").reduce((sum, row) => sum + row.amount_msats, 0);
  if (came > 0) {
    last.msat += came;
    fill($("[data-state]", bill), badge("received", "ok"), " ", amount(last.msat, { signed: true }));
    if (bill.offsetParent !== null) toast(`${sats(came)} sat arrived.`);
  }
  app.refresh();
}
