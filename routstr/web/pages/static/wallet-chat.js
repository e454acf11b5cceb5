// Try it: a chat that streams, what each answer cost under it, and a stop that stops the meter, too.
// The conversation lives in this window's memory; model output is only ever set as text.

import { Failure, failure, send } from "./wallet-api.js";
import { $, amount, el, fill, grouped, show } from "./wallet-dom.js";
import { faultBox } from "./wallet-fault.js";
import { fetchReceipt, outcomeBadge, receiptButton } from "./wallet-receipt.js";
import { EventReader } from "./wallet-sse.js";
import { apiKey } from "./wallet-store.js";

const TYPICAL_IN = 500;
const TYPICAL_OUT = 500;
const MTOK = 1_000_000;
const MODEL = "routstr.model";
const RECEIPT_TRIES = 8;
const RECEIPT_WAIT_MS = 700;

/** Open the chat. */
export function startChat(app) {
  if (app.data.models.length > 0) new Chat(app);
}

class Chat {
  constructor(app) {
    this.app = app;
    this.talk = $("#w-talk");
    this.prompt = $("#w-prompt");
    this.picker = $("#w-model");
    this.messages = [];
    this.stopping = null;
    fill(this.picker, app.data.models.map((each) => el("option", { value: each.id }, each.name === each.id ? each.id : `${each.name} (${each.id})`)));
    const before = localStorage.getItem(MODEL);
    if (app.data.models.some((each) => each.id === before)) this.picker.value = before;
    this.picker.addEventListener("change", () => this.chosen());
    $("#w-say").addEventListener("submit", (event) => {
      event.preventDefault();
      this.say();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.say();
    });
    $("#w-stop").addEventListener("click", () => this.stopping?.abort());
    $("#w-chat-new").addEventListener("click", () => this.begin());
    app.onChange(() => {
      show($("#w-chat"), apiKey.get() !== null);
      this.paintPrice();
    });
    app.chooseModel = (id) => {
      this.picker.value = id;
      this.chosen();
    };
    this.chosen();
  }

  get model() {
    return this.app.data.models.find((each) => each.id === this.picker.value);
  }

  chosen() {
    localStorage.setItem(MODEL, this.picker.value);
    this.app.model = this.picker.value;
    this.paintPrice();
    this.app.onModel?.(this.picker.value);
  }

  paintPrice() {
    const { input_msat: input, output_msat: output, request_msat: request } = this.model;
    const typical = Math.ceil((TYPICAL_IN * input + TYPICAL_OUT * output) / MTOK) + request;
    const left = typical === 0 ? null : Math.floor(this.app.balanceMsat / typical);
    fill($("#w-model-says"),
      amount(input), " in, ", amount(output), " out per 1M tokens",
      request ? [", ", amount(request), " a request"] : null,
      left === null ? " · free" : [" · about ", el("strong", {}, grouped(left)), el("span", { title: `${TYPICAL_IN} tokens in and ${TYPICAL_OUT} out each` }, left === 1 ? " usual message left" : " usual messages left")]);
  }

  begin() {
    this.stopping?.abort();
    this.messages = [];
    fill(this.talk);
    show(this.talk, false);
    show($("#w-chat-new"), false);
    this.prompt.focus();
  }

  async say() {
    const text = this.prompt.value.trim();
    if (text === "" || this.stopping !== null) return;
    this.prompt.value = "";
    this.messages.push({ role: "user", content: text });
    show(this.talk);
    show($("#w-chat-new"));
    this.talk.append(el("div", { class: "bubble mine" }, text));
    const answer = new Answer(this.app, this.talk);
    this.stopping = new AbortController();
    show($("#w-stop"));
    show($("#w-send-message"), false);
    try {
      const said = await answer.stream(this.picker.value, this.messages, this.stopping.signal);
      if (said === "") this.messages.pop();
      else this.messages.push({ role: "assistant", content: said });
    } catch (error) {
      this.messages.pop();
      this.prompt.value ||= text;
      answer.fail(error);
    } finally {
      this.stopping = null;
      show($("#w-stop"), false);
      show($("#w-send-message"));
      this.app.refresh();
    }
  }
}

/** One answer on its way in: its text, and under it what it cost. */
class Answer {
  constructor(app, talk) {
    this.app = app;
    this.talk = talk;
    this.text = el("div", { class: "bubble theirs waiting", "aria-busy": "true" });
    this.bill = el("div", { class: "bill-line small muted" });
    talk.append(this.text, this.bill);
    this.scroll();
    this.said = "";
    this.cost = null;
    this.receipt = null;
    this.requestId = null;
    this.fault = null;
  }

  scroll() {
    this.talk.scrollTop = this.talk.scrollHeight;
  }

  /** What was said; whole, or up to where it was stopped. Throws Failure before the first word. */
  async stream(model, messages, signal) {
    const body = { model, messages, stream: true, stream_options: { include_usage: true } };
    try {
      const answer = await send("/v1/chat/completions", { method: "POST", body, signal, headers: { accept: "text/event-stream" } });
      this.requestId = answer.headers.get("x-routstr-request-id");
      const reader = new EventReader({
        onData: (data) => this.onData(data),
        onComment: (comment) => this.onComment(comment),
      });
      const source = answer.body.getReader();
      for (;;) {
        const { done, value } = await source.read();
        if (done) break;
        reader.feed(value);
      }
      reader.end();
    } catch (error) {
      if (error.name === "AbortError") return this.stopped();
      if (this.requestId === null || error instanceof Failure) throw error;
      this.fault = new Failure({ message: "The answer broke off", who: "line", money: "What had arrived may have been charged.", next: "Its receipt says what it cost." });
    }
    this.ended();
    return this.said;
  }

  onData(data) {
    if (data === "[DONE]") return;
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.error) this.fault = failure(null, event.error);
    const piece = event.choices?.[0]?.delta?.content;
    if (typeof piece === "string" && piece !== "") {
      this.said += piece;
      this.text.classList.remove("waiting");
      const near = this.talk.scrollHeight - this.talk.scrollTop - this.talk.clientHeight < 80;
      this.text.append(piece);
      if (near) this.scroll();
    }
    if (event.usage?.cost) this.cost = event.usage.cost;
  }

  onComment(comment) {
    if (!comment.startsWith("routstr ")) return;
    const said = JSON.parse(comment.slice("routstr ".length));
    this.requestId = said.request_id;
    this.cost = said.cost;
    this.receipt = said.receipt ?? null;
  }

  ended() {
    this.text.classList.remove("waiting");
    this.text.removeAttribute("aria-busy");
    if (this.said === "") this.text.append(el("em", { class: "muted" }, "No words came."));
    if (this.cost !== null) this.paintBill(this.cost, this.receipt?.outcome ?? null);
    if (this.fault !== null) this.bill.before(faultBox(this.fault));
    if (this.cost === null) this.askReceipt();
    this.scroll();
  }

  /** The stop goes up to the provider; what had arrived is charged, and the receipt says it. */
  stopped() {
    this.text.classList.remove("waiting");
    this.text.removeAttribute("aria-busy");
    if (this.said === "") this.text.append(el("em", { class: "muted" }, "Stopped before the first word."));
    this.askReceipt();
    return this.said;
  }

  async askReceipt() {
    if (this.requestId === null) {
      fill(this.bill, "Nothing was charged.");
      return;
    }
    fill(this.bill, "Counting …");
    for (let tries = 0; tries < RECEIPT_TRIES; tries += 1) {
      try {
        const receipt = await fetchReceipt(this.requestId);
        const count = (name) => receipt.lines.filter((line) => line.class.includes(name)).reduce((sum, line) => sum + line.count, 0);
        this.paintBill({ total_msats: receipt.charged_msats, input_tokens: count("input"), output_tokens: count("output") }, receipt.outcome);
        this.app.refresh();
        return;
      } catch (error) {
        if (error.isFinal) break;
        await new Promise((resolve) => {
          setTimeout(resolve, RECEIPT_WAIT_MS);
        });
      }
    }
    fill(this.bill, "Its cost will be in the history.");
  }

  paintBill(cost, outcome) {
    fill(this.bill,
      el("span", { class: "number", title: "tokens in, tokens out" }, `${grouped(cost.input_tokens)} in · ${grouped(cost.output_tokens)} out`),
      amount(cost.total_msats), el("span", { class: "fiat" }, this.app.fiat(cost.total_msats)),
      outcomeBadge(outcome), this.requestId ? receiptButton(this.requestId) : null);
  }

  fail(error) {
    this.text.remove();
    this.bill.before(faultBox(error));
    this.bill.remove();
    this.scroll();
  }
}
