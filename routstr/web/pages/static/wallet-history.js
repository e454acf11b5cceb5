// Every change of the key's balance, newest first, page by page; and all of it as a file, made here.

import { call } from "./wallet-api.js";
import { $, $$, amount, badge, busy, download, el, fill, grouped, moment, show, toast } from "./wallet-dom.js";
import { faultBox } from "./wallet-fault.js";
import { outcomeBadge, receiptButton } from "./wallet-receipt.js";
import { apiKey } from "./wallet-store.js";

const PAGE = 50;
const PAGE_MAX = 200;
const PAGES_FOR_A_FILTER = 10;
const CSV_ROWS_MAX = 100_000;
const MS = 1000;
const WORDS = {
  deposit: "Paid in",
  usage: "Request",
  withdrawal: "Withdrawn",
  refund: "Came back",
  transfer_in: "Transfer in",
  transfer_out: "Transfer out",
  fee: "Fee",
  expiry: "Expired",
};
const FILTERS = {
  all: () => true,
  usage: (row) => row.type === "usage",
  in: (row) => row.type !== "usage" && row.amount_msats > 0,
  out: (row) => row.type !== "usage" && row.amount_msats < 0,
};

/** Open the history. */
export function startHistory(app) {
  new History(app);
}

class History {
  constructor(app) {
    this.app = app;
    this.filter = "all";
    this.rows = [];
    this.next = null;
    this.turn = 0;
    for (const button of $$("[data-filter]")) {
      button.addEventListener("click", () => {
        this.filter = button.dataset.filter;
        for (const each of $$("[data-filter]")) each.setAttribute("aria-pressed", String(each === button));
        this.paint();
        this.fillUp();
      });
    }
    const older = $("#w-more button");
    older.addEventListener("click", () => busy(older, () => this.older()));
    const csv = $("#w-csv");
    csv.addEventListener("click", () => busy(csv, () => this.csv()));
    app.onChange(() => this.load());
  }

  /** The newest page again; what was loaded of older ones stays where nothing came between. */
  async load() {
    const key = apiKey.get();
    show($("#w-history"), key !== null);
    if (key === null) {
      this.rows = [];
      this.next = null;
      this.paint();
      return;
    }
    this.turn += 1;
    const { turn } = this;
    let page;
    try {
      page = await call(`/v1/balance/transactions?limit=${PAGE}`);
    } catch {
      return; // the balance card says what is wrong
    }
    if (turn !== this.turn || apiKey.get() !== key) return;
    const oldest = page.transactions.at(-1)?.sequence ?? 0;
    const older = this.rows.filter((row) => row.sequence < oldest);
    const joins = older.length > 0 && older[0].sequence === oldest - 1;
    this.rows = joins ? [...page.transactions, ...older] : page.transactions;
    if (!joins) this.next = page.next_before;
    this.paint();
    this.fillUp();
  }

  async older() {
    try {
      const page = await call(`/v1/balance/transactions?limit=${PAGE}&before=${this.next}`);
      this.rows.push(...page.transactions);
      this.next = page.next_before;
    } catch (error) {
      fill($("#w-no-rows"), faultBox(error));
      show($("#w-no-rows"));
      return false;
    }
    this.paint();
    return true;
  }

  /** A filter that matches little looks further back by itself, for a while. */
  async fillUp() {
    const { filter, turn } = this;
    for (let pages = 0; pages < PAGES_FOR_A_FILTER; pages += 1) {
      if (filter === "all" || this.next === null || this.shown().length >= PAGE) return;
      if (this.filter !== filter || this.turn !== turn || !(await this.older())) return;
    }
  }

  shown() {
    return this.rows.filter(FILTERS[this.filter]);
  }

  paint() {
    const rows = this.shown();
    fill($("#w-rows"), rows.map(rowOf));
    show($("#w-history table"), rows.length > 0);
    show($("#w-no-rows"), rows.length === 0);
    fill($("#w-no-rows"), el("div", { class: "empty" },
      el("strong", {}, this.filter === "all" ? "Nothing has happened yet" : "Nothing of that kind"),
      el("p", {}, "Top-ups, requests and withdrawals are listed here, each with the balance after it.")));
    show($("#w-more"), this.next !== null);
    $("#w-more-says").textContent = `${grouped(rows.length)} shown`;
  }

  async csv() {
    const rows = [];
    let before = "";
    try {
      do {
        const page = await call(`/v1/balance/transactions?limit=${PAGE_MAX}${before}`);
        rows.push(...page.transactions.filter(FILTERS[this.filter]));
        before = page.next_before === null ? "" : `&before=${page.next_before}`;
      } while (before !== "" && rows.length < CSV_ROWS_MAX);
    } catch (error) {
      toast(`${error.message} ${error.next ?? ""}`, "bad");
      return;
    }
    const head = ["time", "sequence", "type", "model", "input_tokens", "output_tokens", "outcome", "amount_msat", "balance_after_msat", "request_id", "description"];
    const lines = [head, ...rows.map((row) => [
      new Date(row.created_at * MS).toISOString(), row.sequence, row.type, row.model, row.input_tokens, row.output_tokens,
      row.outcome, row.amount_msats, row.balance_after_msats, row.request_id, row.description])];
    download("routstr-history.csv", "text/csv", `${lines.map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`);
  }
}

/** A value as CSV has it (RFC 4180); none begins a formula in a spreadsheet. */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function rowOf(row) {
  const isUsage = row.type === "usage";
  const what = isUsage ? row.model ?? row.description ?? "Request" : `${WORDS[row.type] ?? row.type}${row.description === "Lightning" ? " over Lightning" : ""}`;
  const tokens = row.input_tokens === null || row.input_tokens === undefined ? "–" : `${grouped(row.input_tokens)}, ${grouped(row.output_tokens ?? 0)}`;
  return el("tr", {},
    el("td", { "data-label": "When" }, moment(row.created_at)),
    el("td", { "data-label": "What" }, isUsage ? el("code", {}, what) : what),
    el("td", { class: tokens === "–" ? "num nil" : "num", "data-label": "Tokens in, out" }, tokens),
    el("td", { "data-label": "Outcome" }, isUsage ? outcomeBadge(row.outcome) ?? "–" : badge("done", "ok")),
    el("td", { class: "num", "data-label": "Amount" }, amount(row.amount_msats, { signed: true, class: row.amount_msats > 0 ? "plus" : "" })),
    el("td", { class: "num", "data-label": "Balance after" }, amount(row.balance_after_msats)),
    el("td", { class: row.request_id ? "acts" : "acts nil" }, row.request_id ? receiptButton(row.request_id) : null));
}
