// A customer's wallet on cashu-ts, driven over its standard input: one JSON object a line, answered
// by one line, in turn. It ends when its input ends, so it never outlives whoever started it.
//
//   node wallet.mjs MINT_URL
//   {"do": "invoice", "amount": 100}   →  {"ok": {"invoice": "lnbc…"}}
//   {"do": "receive", "token": "…"}    →  {"error": {"code": 11001, "message": "…"}}
//
// Everything about ecash is cashu-ts's own doing; amounts are in sat. Proofs live in memory only.

import { webcrypto } from 'node:crypto';
import { createInterface } from 'node:readline';

import {
  Wallet,
  decodePaymentRequest,
  getEncodedToken,
  hasValidDleq,
  sumProofs,
} from '@cashu/cashu-ts';

globalThis.crypto ??= webcrypto; // Node 18 does not show it by itself

const INVOICE_POLLS_MAX = 200;
const INVOICE_POLL_MS = 50;

const mintUrl = process.argv[2];
const wallet = new Wallet(mintUrl, { unit: 'sat' });
const invoices = new Map(); // by their text
let proofs = [];

const total = (some) => sumProofs(some).toNumber();
const balance = () => ({ balance: total(proofs) });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ── what can be asked ───────────────────────────────────────────────────────────────────────────

const deeds = {
  // Ask for an invoice, which somebody else may pay.
  async invoice({ amount }) {
    const quote = await wallet.createMintQuoteBolt11(amount);
    invoices.set(quote.request, { amount, quote });
    return { invoice: quote.request };
  },

  // Take the ecash of an invoice once it is paid; those of a make-believe mint pay themselves.
  async collect({ invoice }) {
    let { amount, quote } = invoices.get(invoice);
    for (let poll = 0; quote.state !== 'PAID'; poll += 1) {
      if (poll === INVOICE_POLLS_MAX) throw new Error('the invoice was not paid');
      await pause(INVOICE_POLL_MS);
      quote = await wallet.checkMintQuoteBolt11(quote);
    }
    proofs.push(...(await wallet.mintProofsBolt11(amount, quote)));
    return balance();
  },

  async balance() {
    return balance();
  },

  // A token of exactly `amount`; `lock` is {pubkey, locktime?, refundKeys?} (NUT-11).
  async send({ amount, version = 4, lock = null }) {
    return { token: encode(await take(amount, lock), version), ...balance() };
  },

  // Swap a token for proofs of one's own; without `isDleqNeeded` it may lack its DLEQs.
  async receive({ token, privateKey = null, isDleqNeeded = false }) {
    const config = { requireDleq: isDleqNeeded };
    if (privateKey !== null) config.privkey = privateKey;
    const received = await wallet.receive(token, config);
    proofs.push(...received);
    return { amount: total(received), ...balance() };
  },

  // What a token holds, and what redeeming it will cost. `dleqs` counts those that verify.
  async decode({ token }) {
    const { mint, unit, memo, proofs: held } = wallet.decodeToken(token);
    const dleqs = held.filter((proof) =>
      hasValidDleq(proof, wallet.getKeyset(proof.id), { require: true }),
    );
    return {
      mint,
      unit,
      memo: memo ?? null,
      amount: total(held),
      fee: wallet.getFeesForProofs(held).toNumber(),
      proofs: held.length,
      dleqs: dleqs.length,
      secrets: held.map((proof) => proof.secret),
    };
  },

  // What the mint says of each proof of a token (NUT-07).
  async states({ token }) {
    const states = await wallet.checkProofsStates(wallet.decodeToken(token).proofs);
    return { states: states.map((each) => each.state) };
  },

  // A payment request as cashu-ts reads it (NUT-18, NUT-26), and as it would write the same.
  async request({ text }) {
    const request = decodePaymentRequest(text);
    return {
      id: request.id ?? null,
      amount: request.amount?.toNumber() ?? null,
      unit: request.unit ?? null,
      mints: request.mints ?? [],
      description: request.description ?? null,
      singleUse: request.singleUse ?? false,
      transports: request.transport ?? [],
      lock: request.nut10 ?? null,
      creqA: request.toEncodedCreqA(),
      creqB: request.toEncodedCreqB(),
    };
  },

  // The token that a payment request asks for: its amount, under its lock if it has one.
  async pay({ text }) {
    const request = decodePaymentRequest(text);
    if (request.unit !== wallet.unit) throw new Error('asks for another unit');
    if (request.mints?.length && !request.mints.includes(mintUrl)) {
      throw new Error('asks for another mint');
    }
    const lock = request.toP2PKOptions() ?? null;
    if (request.nut10 && !lock) throw new Error('asks for a lock we cannot make');
    return { token: encode(await take(request.amount, lock), 4), ...balance() };
  },
};

// ── how ─────────────────────────────────────────────────────────────────────────────────────────

// Remove proofs of exactly `amount` from the wallet, after a swap where that is needed.
async function take(amount, lock) {
  const outputs = lock === null ? undefined : { send: { type: 'p2pk', options: lock } };
  const { keep, send } = await wallet.send(amount, proofs, {}, outputs);
  proofs = keep;
  return send;
}

// cashu-ts writes V4; V3, which it still reads, is only its proofs in JSON (NUT-00).
function encode(held, version) {
  if (version === 4) return getEncodedToken({ mint: mintUrl, unit: wallet.unit, proofs: held });
  const plain = held.map((proof) => ({ ...proof, amount: proof.amount.toNumber() }));
  const token = { token: [{ mint: mintUrl, proofs: plain }], unit: wallet.unit };
  return `cashuA${Buffer.from(JSON.stringify(token)).toString('base64url')}`;
}

async function answer(line) {
  try {
    const { do: name, ...fields } = JSON.parse(line);
    return { ok: await deeds[name](fields) };
  } catch (error) {
    return { error: { code: error.code ?? null, message: String(error.message) } };
  }
}

let isLoaded = false;
for await (const line of createInterface({ input: process.stdin })) {
  if (!isLoaded) {
    await wallet.loadMint();
    isLoaded = true;
  }
  process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
}
