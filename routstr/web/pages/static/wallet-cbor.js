// The CBOR that a Cashu token is written in, and no more (RFC 8949; NUT-00): integers, bytes,
// text, lists and maps, all of known length. Tags, floats, open lengths, names that come twice and
// bytes behind the value are refused, as the node refuses them.

const DEPTH_MAX = 8;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const SIMPLE = new Map([[20, false], [21, true], [22, null], [23, undefined]]);

export class InvalidCbor extends Error {}

/** The value that `bytes` (Uint8Array) hold: maps become Map, bytes Uint8Array. Throws InvalidCbor. */
export function decodeCbor(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.at !== bytes.length) throw new InvalidCbor("bytes behind the value");
  return value;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  value(depth) {
    if (depth > DEPTH_MAX) throw new InvalidCbor("too deep");
    const first = this.take(1)[0];
    const kind = first >> 5;
    const info = first & 31;
    if (kind === 7) return simple(info);
    const count = this.count(info);
    if (kind === 0) return count;
    if (kind === 1) return -1 - count;
    if (kind === 2) return this.take(count);
    if (kind === 3) return this.text(count);
    if (kind === 4) return this.list(count, depth);
    if (kind === 5) return this.map(count, depth);
    throw new InvalidCbor("a tag");
  }

  count(info) {
    if (info < 24) return info;
    if (info > 27) throw new InvalidCbor("a length that is not said");
    let count = 0;
    for (const byte of this.take(1 << (info - 24))) count = count * 256 + byte;
    if (!Number.isSafeInteger(count)) throw new InvalidCbor("a number beyond 2^53");
    return count;
  }

  take(length) {
    if (length > this.bytes.length - this.at) throw new InvalidCbor("it ends too early");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  text(length) {
    try {
      return UTF8.decode(this.take(length));
    } catch (error) {
      throw error instanceof InvalidCbor ? error : new InvalidCbor("text that is not UTF-8");
    }
  }

  list(length, depth) {
    const found = [];
    for (let index = 0; index < length; index += 1) found.push(this.value(depth + 1));
    return found;
  }

  map(length, depth) {
    const found = new Map();
    for (let index = 0; index < length; index += 1) {
      const name = this.value(depth + 1);
      if (typeof name !== "string") throw new InvalidCbor("a name that is not text");
      if (found.has(name)) throw new InvalidCbor("a name that comes twice");
      found.set(name, this.value(depth + 1));
    }
    return found;
  }
}

function simple(info) {
  if (!SIMPLE.has(info)) throw new InvalidCbor("a float, or something unknown");
  return SIMPLE.get(info);
}
