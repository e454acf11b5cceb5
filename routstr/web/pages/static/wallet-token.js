// What a Cashu token says of itself, read in this browser before anything is sent (NUT-00): mint,
// unit, value. It proves nothing: whether the ecash is good, only its mint can say.

import { decodeCbor, InvalidCbor } from "./wallet-cbor.js";

const CHARS_MAX = 128 * 1024;
const PROOFS_MAX = 100;
const BASE64 = /^[A-Za-z0-9_-]*={0,2}$/;
const KEY = /^sk-[0-9a-f]{64}$/;
const KEYSET_HEX = /^(?:[0-9a-f]{16}|[0-9a-f]{66})$/;

export class InvalidToken extends Error {}

/** Which of the two it is: "key", "token", or null for neither. */
export function kindOf(text) {
  if (KEY.test(text)) return "key";
  return /^(?:cashu:(?:\/\/)?)?cashu[AB]/i.test(text) ? "token" : null;
}

/** `text` without blanks, line ends and the scheme that some wallets write in front. */
export function tidied(text) {
  return text.replace(/\s+/g, "").replace(/^cashu:(?:\/\/)?(?=cashu[AB])/i, "");
}

/**
 * {mint, unit, amount, memo, keysets: Map(id -> count), locks: [public key]} of a token, the amount
 * in its unit. Throws InvalidToken with a sentence for people.
 */
export function decodeToken(given) {
  const text = tidied(given);
  if (text.length > CHARS_MAX) throw new InvalidToken("This token is longer than a node takes.");
  const read = { cashuA: readA, cashuB: readB }[text.slice(0, 6)];
  if (read === undefined) throw new InvalidToken("A token begins with cashuA or cashuB.");
  try {
    return summed(read(bytesOf(text.slice(6))));
  } catch (error) {
    if (error instanceof InvalidToken) throw error;
    throw new InvalidToken("This token is damaged. Copy it again, whole.");
  }
}

/** A mint's address as the node writes it: no trailing slash, no default port, lower-case host. */
export function mintAddress(text) {
  const url = new URL(text);
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

function bytesOf(base64) {
  const text = base64.replace(/\+/g, "-").replace(/\//g, "_");
  if (!BASE64.test(text)) throw new InvalidToken("This token has a character that no token has.");
  const standard = text.replace(/=+$/, "").replace(/-/g, "+").replace(/_/g, "/");
  return Uint8Array.from(atob(standard), (char) => char.charCodeAt(0));
}

function readA(bytes) {
  const said = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const groups = expect(Array.isArray(said.token) && said.token);
  if (groups.length !== 1) throw new InvalidToken("A token of several mints is not taken.");
  const proofs = expect(Array.isArray(groups[0].proofs) && groups[0].proofs);
  return {
    mint: groups[0].mint,
    unit: said.unit ?? "sat",
    memo: said.memo,
    proofs: proofs.map((each) => ({ id: each.id, amount: each.amount, secret: each.secret })),
  };
}

function readB(bytes) {
  const said = decodeCbor(bytes);
  expect(said instanceof Map);
  const proofs = [];
  for (const group of expect(Array.isArray(said.get("t")) && said.get("t"))) {
    const id = hex(group.get("i"));
    for (const each of expect(Array.isArray(group.get("p")) && group.get("p"))) {
      proofs.push({ id, amount: each.get("a"), secret: each.get("s") });
    }
  }
  return { mint: said.get("m"), unit: said.get("u") ?? "sat", memo: said.get("d"), proofs };
}

function summed({ mint, unit, memo, proofs }) {
  expect(typeof mint === "string" && typeof unit === "string");
  if (proofs.length === 0) throw new InvalidToken("This token holds nothing.");
  if (proofs.length > PROOFS_MAX) {
    throw new InvalidToken(`More than ${PROOFS_MAX} coins in one token: split it in your wallet.`);
  }
  const keysets = new Map();
  const locks = new Set();
  const secrets = new Set();
  let amount = 0;
  for (const proof of proofs) {
    expect(Number.isSafeInteger(proof.amount) && proof.amount > 0);
    expect(typeof proof.secret === "string" && typeof proof.id === "string");
    if (secrets.has(proof.secret)) throw new InvalidToken("This token names a coin twice.");
    secrets.add(proof.secret);
    amount += proof.amount;
    const id = proof.id.toLowerCase();
    keysets.set(id, (keysets.get(id) ?? 0) + 1);
    const lock = lockOf(proof.secret);
    if (lock !== null) locks.add(lock);
  }
  expect(Number.isSafeInteger(amount));
  for (const id of keysets.keys()) expect(KEYSET_HEX.test(id));
  return {
    mint: mintAddress(mint),
    unit,
    amount,
    memo: typeof memo === "string" ? memo : null,
    keysets,
    locks: [...locks],
  };
}

/** What a coin is locked to (NUT-10): a public key, or the condition's name; null for none. */
function lockOf(secret) {
  if (!secret.startsWith("[")) return null;
  const [kind, condition] = JSON.parse(secret);
  return kind === "P2PK" ? String(condition.data).toLowerCase() : String(kind);
}

/**
 * What the mint takes for exchanging the token, in its unit, by NUT-02; null where a keyset is not
 * known. `feePpk` has each keyset's fee by its id; short ids stand for the one they begin.
 */
export function feeOf(token, feePpk) {
  let ppk = 0;
  for (const [id, count] of token.keysets) {
    const known = Object.keys(feePpk).filter((each) => each.startsWith(id));
    if (known.length !== 1) return null;
    ppk += feePpk[known[0]] * count;
  }
  return Math.ceil(ppk / 1000);
}

function hex(bytes) {
  expect(bytes instanceof Uint8Array);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function expect(value) {
  if (value === false || value === undefined || value === null) throw new InvalidCbor("not a token");
  return value;
}
