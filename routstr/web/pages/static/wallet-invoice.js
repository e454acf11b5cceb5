// Lightning in: an invoice with its QR code, its state and its countdown, watched until it is paid.
// It is kept in this browser, so a page that is loaded again goes on watching.

import { call } from "./wallet-api.js";
import { $, $$, amount, badge, busy, change, copyButton, el, facts, fill, sats, show, toast, typedSats } from "./wallet-dom.js";
import { faultBox, tellFault } from "./wallet-fault.js";
import { qrBox } from "./wallet-qr.js";
import { apiKey, invoice, kept } from "./wallet-store.js";

const MSAT = 1000;
const SATS_MAX = 1_000_000;
const POLL_MS = 2000;
const TAIL = 12;
// States of an invoice: a word, a colour, and whether there is more to wait for.
const STATES = {
  pending: ["waiting for the payment", "busy", true],
  settlement_pending: ["paid; the mint is settling", "busy", true],
  paid: ["paid", "ok", false],
  expired: ["expired", "off", false],
  cancelled: ["cancelled", "off", false],
  reconciliation_required: ["being checked by the operator", "wait", true],
};

/** One panel opens a key, the other tops one up; there is one invoice at a time. */
export function startInvoices(app) {
  for (const panel of $$("[data-lightning]")) new Panel(app, panel);
}

class Panel {
  constructor(app, root) {
    this.app = app;
    this.purpose = root.dataset.lightning === "w-buy" ? "create" : "topup";
    this.form = $("[data-ask]", root);
    this.bill = $("[data-bill]", root);
    this.field = $("input", this.form);
    this.says = $("[data-says]", this.form);
    this.fault = $("[data-fault]", this.form);
    this.timer = null;
    this.shownId = null;
    this.field.addEventListener("input", () => this.preview());
    for (const button of $$("[data-sat]", root)) {
      button.addEventListener("click", () => {
        this.field.value = sats(Number(button.dataset.sat) * MSAT);
        this.preview();
      });
    }
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      busy($("[type=submit]", this.form), () => this.make());
    });
    app.onChange(() => this.changed());
  }

  before() {
    return this.purpose === "create" ? 0 : this.app.balanceMsat;
  }

  /** What the amount will do; false if it is none. */
  preview() {
    const wanted = typedSats(this.field.value);
    const isGood = wanted !== null && wanted <= SATS_MAX;
    const isBad = wanted !== null && !isGood;
    this.field.setAttribute("aria-invalid", String(isBad));
    if (isGood) fill(this.says, "Balance ", change(this.before(), this.before() + wanted * MSAT), " ", this.app.fiat(wanted * MSAT));
    else fill(this.says, isBad ? `From 1 to ${sats(SATS_MAX * MSAT)} sat.` : "\u00a0");
    return isGood ? wanted : null;
  }

  async make() {
    const wanted = this.preview();
    if (wanted === null) {
      this.field.setAttribute("aria-invalid", "true");
      this.field.focus();
      return;
    }
    tellFault(this.fault, null);
    try {
      const key = this.purpose === "create" ? null : apiKey.get();
      const body = { amount_sats: wanted, purpose: this.purpose };
      const made = await call("/v1/balance/lightning/invoice", { method: "POST", body, key });
      invoice.set({ ...made, purpose: this.purpose, of: key?.slice(-TAIL) ?? null });
      this.changed();
    } catch (error) {
      tellFault(this.fault, error);
    }
  }

  /** Show the invoice that this browser waits for, if it is of this panel's kind and key. */
  changed() {
    const waited = invoice.get(this.purpose);
    const key = apiKey.get();
    // One that opens a key is watched to its end, also when another key came meanwhile.
    const isMine = waited !== null
      && (this.purpose === "create" || Boolean(key?.endsWith(waited.of)));
    if (!isMine) {
      this.stop();
      this.preview();
      return;
    }
    if (this.shownId === waited.invoice_id) return;
    this.paint(waited);
    this.shownId = waited.invoice_id;
    this.watch(waited);
  }

  paint(waited) {
    const uri = `lightning:${waited.bolt11}`;
    this.state = el("p", { "aria-live": "polite" }, badge(...STATES.pending));
    this.left = el("span", { class: "muted small number" });
    const after = this.before() + waited.amount_sats * MSAT;
    fill(this.bill,
      qrBox(uri.toUpperCase(), "invoice"),
      el("div", { class: "stack grow" },
        facts(["Pay", amount(waited.amount_sats * MSAT), " ", el("span", { class: "fiat" }, this.app.fiat(waited.amount_sats * MSAT))],
          ["Balance", change(this.before(), after)]),
        el("div", { class: "row tight" }, this.state, this.left),
        el("code", { class: "long secret" }, waited.bolt11),
        this.purpose === "create" ? el("p", { class: "small muted" }, "Your key appears here once it is paid. If you close the page, come back with this browser within a day.") : null,
        el("div", { class: "row tight" }, copyButton(waited.bolt11, "Copy invoice", "primary"),
          el("a", { class: "button", href: uri }, "Open a wallet"),
          el("button", { class: "button quiet", type: "button", onclick: () => this.leave() }, "Another amount"))));
    show(this.form, false);
    show(this.bill);
  }

  leave() {
    invoice.forget(this.purpose);
    this.stop();
    toast("If somebody still pays that invoice, the money arrives all the same.");
  }

  stop() {
    clearTimeout(this.timer);
    this.shownId = null;
    show(this.bill, false);
    show(this.form);
  }

  async watch(waited) {
    clearTimeout(this.timer);
    const view = document.hidden ? null : await this.ask(waited);
    if (this.shownId !== waited.invoice_id) return;
    const [word, kind, isOpen] = STATES[view?.status ?? "pending"] ?? [view.status, "wait", true];
    if (view !== null) fill(this.state, badge(word, kind));
    fill(this.left, isOpen ? lasting(waited.expires_at) : []);
    if (view?.status === "paid") {
      await this.paid(view, waited);
    } else if (isOpen) {
      this.timer = setTimeout(() => this.watch(waited), POLL_MS);
    } else {
      invoice.forget(this.purpose);
    }
  }

  async ask(waited) {
    try {
      return await call(`/v1/balance/lightning/invoice/${encodeURIComponent(waited.invoice_id)}/status`, { key: null });
    } catch (error) {
      if (error.status === 404) {
        fill(this.state, faultBox(error));
        invoice.forget(this.purpose);
      }
      return null;
    }
  }

  async paid(view, waited) {
    if (this.purpose === "topup") {
      toast(`${sats(waited.amount_sats * MSAT)} sat arrived.`);
    } else if (view.api_key) {
      const msat = waited.amount_sats * MSAT;
      if (apiKey.get() === null) apiKey.set(view.api_key);
      else kept.add({ id: waited.invoice_id, kind: "key", text: view.api_key, msat });
      toast("Paid. Your key is ready; copy it to somewhere safe.");
    } else {
      toast("Paid, and its key was handed out before.", "bad");
    }
    invoice.forget(this.purpose);
    this.field.value = "";
    this.stop();
    await this.app.refresh();
  }
}

function lasting(expiresAt) {
  const seconds = Math.round(expiresAt - Date.now() / MSAT);
  if (seconds <= 0) return "it has just expired";
  const rest = String(seconds % 60).padStart(2, "0");
  return `expires in ${Math.floor(seconds / 60)}:${rest}`;
}
