// The node's API as this page calls it. A failure says in words who caused it, whether money moved,
// and the one next step. The key travels in a header, never in an address.

import { apiKey, pending } from "./wallet-store.js";

const TIMEOUT_MS = 60_000;
const NOTHING = "Nothing was charged.";
const UNKNOWN = new Set([408, 425, 429]);

/** `who` is you, mint, upstream, node or line; `isFinal`: this very request will not succeed. */
export class Failure extends Error {
  constructor({ message, who, next, money = NOTHING, code = "", status = 0, isFinal = true, retryAfterS = null }) {
    super(message);
    Object.assign(this, { who, next, money, code, status, isFinal, retryAfterS });
  }
}

/** JSON from the node, with the key. Throws Failure. */
export async function call(path, { method = "GET", body, key = apiKey.get(), headers = {}, signal } = {}) {
  const answer = await send(path, { method, body, key, headers, signal });
  return json(answer, path, headers);
}

/** The raw answer of a 2xx, for streams. Throws Failure. */
export async function send(path, { method = "GET", body, key = apiKey.get(), headers = {}, signal } = {}) {
  const sent = { accept: "application/json", ...headers };
  if (key) sent.authorization = `Bearer ${key}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: signal ?? AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw lost(path, headers);
  }
  if (!answer.ok) throw failure(answer, await envelope(answer));
  return answer;
}

const PATHS = { create: "/v1/balance/create", topup: "/v1/balance/topup", refund: "/v1/balance/refund" };

/**
 * Ask for what is under way, each time with the same Idempotency-Key; a final "no" ends it. Throws
 * Failure; after one that is not final it is still under way.
 */
export async function repeat(begun) {
  try {
    return await call(PATHS[begun.kind], {
      method: "POST",
      body: begun.body,
      key: begun.kind === "create" ? null : apiKey.get(),
      headers: { "idempotency-key": begun.id },
    });
  } catch (error) {
    if (error instanceof Failure && error.isFinal) pending.end(begun.id);
    throw error;
  }
}

async function json(answer, path, headers) {
  try {
    return await answer.json();
  } catch {
    throw lost(path, headers);
  }
}

async function envelope(answer) {
  try {
    const said = await answer.json();
    return said?.error ?? {};
  } catch {
    return {};
  }
}

/** No answer: what that means for the money depends on what was asked. */
function lost(path, headers) {
  const about = { message: "The node could not be reached, or its answer was lost.", who: "line", isFinal: false };
  if (headers["idempotency-key"]) {
    const money = "If it arrived, it counts once: asking again never pays twice.";
    return new Failure({ ...about, money, next: "Check your connection; this page asks again." });
  }
  const money = path.startsWith("/v1/chat/") ? "If it arrived, the history says what it cost." : NOTHING;
  return new Failure({ ...about, money, next: NEXT_OF.line });
}

/** What an error of the API means; also for one that came inside a stream. */
export function failure(answer, said) {
  const status = answer?.status ?? said.upstream_status ?? 0;
  const code = String(said.code ?? "");
  const retryAfterS = Number(answer?.headers.get("retry-after")) || null;
  const who = culprit(status, String(said.type ?? ""), code);
  return new Failure({
    message: String(said.message ?? "The node did not say what went wrong."),
    who,
    next: NEXT[code] ?? NEXT_OF[who],
    money: UNDER_WAY.has(code) ? "The money is on its way; asking again never pays twice." : NOTHING,
    code,
    status,
    isFinal: !(status >= 500 || UNKNOWN.has(status)),
    retryAfterS,
  });
}

const UNDER_WAY = new Set(["refund_pending", "operation_in_progress"]);

function culprit(status, type, code) {
  if (/mint/.test(type) || /mint/.test(code)) return "mint";
  if (/upstream/i.test(type) || /upstream/i.test(code)) return "upstream";
  return status >= 500 ? "node" : "you";
}

export const WHO = {
  you: "This request",
  mint: "The mint",
  upstream: "The model's provider",
  node: "This node",
  line: "The connection",
};

const NEXT_OF = {
  you: "Change it and try again.",
  mint: "Try again in a minute.",
  upstream: "Try again, or take another model.",
  node: "Try again in a minute.",
  line: "Check your connection and try again.",
};

const NEXT = {
  insufficient_balance: "Top up, or take a cheaper model.",
  balance_limit_exceeded: "The key's limit is used up; ask whoever gave you the key.",
  invalid_api_key: "Check the key; this node does not know it.",
  key_not_found: "Check the key; this node does not know it.",
  key_expired: "Withdraw what is left on it.",
  key_revoked: "Use another key.",
  token_already_spent: "Take another token from your wallet.",
  cashu_token_already_spent: "Take another token from your wallet.",
  untrusted_mint: "Send from one of this node's mints; they are listed on this page.",
  cashu_untrusted_source_mint: "Send from one of this node's mints; they are listed on this page.",
  requests_in_flight: "Wait until your requests have ended, then try again.",
  no_balance: "There is nothing to withdraw.",
  balance_too_small: "Less than the mint's smallest coin stays on the key and can be spent.",
  child_key: "Only the key that pays for this one can do that.",
  rate_limit_exceeded: "Wait a moment and try again.",
  paused: "The operator has paused this; try again later.",
};
