// How a request ended, in a word and a colour, and its signed receipt.

import { call } from "./wallet-api.js";
import { amount, badge, copyButton, download, el, facts, grouped, moment, showDialog, toast } from "./wallet-dom.js";

const OUTCOMES = {
  completed: ["complete", "ok"],
  completed_no_usage: ["complete, estimated", "ok"],
  empty: ["empty answer", "off"],
  cut_before_output: ["cut off, free", "off"],
  cut_after_output: ["cut off", "wait"],
  malformed: ["unreadable answer", "wait"],
  no_done: ["ended early", "wait"],
  stalled: ["stalled", "wait"],
  client_left_early: ["stopped, free", "off"],
  client_left: ["stopped", "wait"],
  node_crashed: ["the node failed, free", "off"],
  node_stopped: ["the node stopped", "wait"],
  budget_exhausted: ["out of funds", "wait"],
  over_reserve: ["complete, capped", "ok"],
  usage_insane: ["complete, estimated", "ok"],
  upstream_failed: ["provider failed", "bad"],
  upstream_rejected: ["provider refused", "bad"],
};

/** A badge for an outcome, or null without one. */
export function outcomeBadge(outcome) {
  if (!outcome) return null;
  const [word, kind] = OUTCOMES[outcome] ?? [outcome, ""];
  return badge(word, kind);
}

/** A button that shows the receipt of a request. */
export function receiptButton(requestId) {
  return el("button", { class: "link", type: "button", onclick: () => showReceipt(requestId) }, "Receipt");
}

/** The receipt from the node; throws Failure, also while the request still runs. */
export function fetchReceipt(requestId) {
  return call(`/v1/receipts/${encodeURIComponent(requestId)}`);
}

async function showReceipt(requestId) {
  let receipt;
  try {
    receipt = await fetchReceipt(requestId);
  } catch (error) {
    toast(`${error.message} ${error.next ?? ""}`, "bad");
    return;
  }
  const text = JSON.stringify(receipt, null, 2);
  showDialog("Receipt",
    facts(
      ["Request", el("code", { class: "id" }, receipt.request_id)],
      ["Model", receipt.model],
      ["Ended", outcomeBadge(receipt.outcome)],
      ...receipt.lines.map((line) => [line.class.replaceAll("_", " "),
        grouped(line.count), " at ", amount(line.rate_msats), line.per === 1 ? " each" : ` per ${grouped(line.per)}`]),
      ["Held at most", amount(receipt.quote_msats)],
      ["Charged", amount(receipt.charged_msats)],
      receipt.balance_after_msats === undefined ? null : ["Balance after", amount(receipt.balance_after_msats)],
      ["Settled", moment(receipt.settled_at)],
      ["Signed by", el("code", { class: "id" }, receipt.pubkey)]),
    el("p", { class: "small muted" }, "Save it and check it offline: ", el("code", {}, "routstr verify receipt.json")),
    el("div", { class: "row tight" },
      el("button", { class: "button", type: "button", onclick: () => download(`${requestId}.json`, "application/json", text) }, "Save as file"),
      copyButton(text, "Copy JSON")));
}
