// What this browser keeps, and nobody else: the key, what is under way with money, and what was
// handed out and is not saved yet. Every window of this page sees the same.
//
// Law: what is to be sent is kept before it is sent, with the Idempotency-Key it is sent with. So a
// page that is closed, or whose answer is lost, asks again for the same thing and never pays twice.

const KEY = "routstr.key";
const PENDING = "routstr.pending";
const KEPT = "routstr.kept";
const INVOICE = "routstr.invoice";
// A node remembers an Idempotency-Key for 72 hours; a withdrawal that is older is not asked for again.
// A token may be sent at any time: the node takes each coin once.
const WITHDRAWAL_MS = 48 * 3600 * 1000;
const TAIL = 12;

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

function write(name, value) {
  if (value === null) localStorage.removeItem(name);
  else localStorage.setItem(name, JSON.stringify(value));
}

/** Whether this browser keeps anything at all: without that the page must not take money. */
export function canKeep() {
  try {
    localStorage.setItem("routstr.probe", "1");
    localStorage.removeItem("routstr.probe");
    return true;
  } catch {
    return false;
  }
}

export const apiKey = {
  get: () => read(KEY)?.text ?? null,
  set: (text) => write(KEY, { text }),
  forget: () => write(KEY, null),
};

/** An id nobody can guess, for an Idempotency-Key. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const pending = {
  /**
   * What is under way: {id, kind, body, of, startedAt}; kind is create, topup or refund, `of` the
   * end of the key it is for: with another key the same Idempotency-Key would be another action.
   */
  all: () => (read(PENDING) ?? []).filter((each) => each.kind !== "refund" || Date.now() - each.startedAt < WITHDRAWAL_MS),
  begin(kind, body, key) {
    const of = key === null ? null : key.slice(-TAIL);
    const begun = { id: newId(), kind, body, of, startedAt: Date.now() };
    write(PENDING, [...pending.all(), begun]);
    return begun;
  },
  /** The same thing, if it is under way already: a second click joins the first. */
  find(kind, body, key) {
    const of = key === null ? null : key.slice(-TAIL);
    const wanted = JSON.stringify([kind, body, of]);
    return pending.all().find((each) => JSON.stringify([each.kind, each.body, each.of]) === wanted);
  },
  end(id) {
    const left = pending.all().filter((each) => each.id !== id);
    write(PENDING, left.length ? left : null);
  },
};

export const kept = {
  /** What is on the page until it is saved: {id, kind, text, msat, why}; kind is token, key or returned. */
  all: () => read(KEPT) ?? [],
  add: (entry) => write(KEPT, [...kept.all().filter((each) => each.id !== entry.id), entry]),
  remove(id) {
    const left = kept.all().filter((each) => each.id !== id);
    write(KEPT, left.length ? left : null);
  },
};

/** The invoices that are waited for: one that opens a key, and one that tops up. */
export const invoice = {
  get: (purpose) => read(`${INVOICE}.${purpose}`),
  set: (value) => write(`${INVOICE}.${value.purpose}`, value),
  forget: (purpose) => write(`${INVOICE}.${purpose}`, null),
};

/** Call `changed` when another window of this page changed what is kept. */
export function onOtherWindow(changed) {
  window.addEventListener("storage", (event) => {
    if ([null, KEY, KEPT].includes(event.key)) changed();
  });
}
