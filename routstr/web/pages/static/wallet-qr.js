// QR codes made in this browser (ISO/IEC 18004, model 2, error correction L), so that no invoice
// and no token has to be sent anywhere to be shown. Text goes in as bytes, or as the denser letters
// where it has only those: upper-case invoices and creqB requests.

import { el } from "./wallet-dom.js";

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";
const VERSION_MAX = 40;
const DENSE = 81;
// By version, for level L: words of error correction in each block, and how many blocks.
const ECC_WORDS = [0, 7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30];
const BLOCKS = [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25];
const MASKS = [
  (x, y) => (x + y) % 2,
  (x, y) => y % 2,
  (x) => x % 3,
  (x, y) => (x + y) % 3,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
  (x, y) => ((x * y) % 2) + ((x * y) % 3),
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

/** Rows of 0 and 1 for `text`, or null when it is too long for one code. */
export function qrMatrix(text) {
  const { version, bits } = encoded(text);
  if (version === null) return null;
  const words = interleaved(version, bits);
  let best = null;
  for (let mask = 0; mask < MASKS.length; mask += 1) {
    const rows = drawn(version, words, mask);
    const penalty = penaltyOf(rows);
    if (best === null || penalty < best.penalty) best = { rows, penalty };
  }
  return best.rows;
}

/** A picture of it, dark on white with a quiet edge and large enough for a camera, or a word that
 * it is too long for one; `what` is what it shows. */
export function qrBox(text, what) {
  const rows = qrMatrix(text);
  if (rows === null) return el("p", { class: "small muted" }, `The ${what} is too long for one QR code: copy or save it.`);
  const kind = rows.length > DENSE ? "qr dense" : "qr";
  return el("div", { class: kind }, el("img", { src: drawing(rows), alt: `QR code of the ${what}` }));
}

function drawing(rows) {
  const size = rows.length + 8;
  let path = "";
  rows.forEach((row, y) => {
    row.forEach((dark, x) => {
      if (dark) path += `M${x + 4} ${y + 4}h1v1h-1z`;
    });
  });
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size} ${size}" shape-rendering="crispEdges">` +
    `<path fill="#fff" d="M0 0h${size}v${size}H0z"/><path fill="#000" d="${path}"/></svg>`;
  return `data:image/svg+xml;base64,${btoa(svg)}`;
}

// ── data ───────────────────────────────────────────────────────────────────────────────────────

function encoded(text) {
  const letters = [...text].every((char) => LETTERS.includes(char));
  const bytes = new TextEncoder().encode(text);
  const bitsAtLeast = letters ? Math.floor(text.length * 5.5) : bytes.length * 8;
  for (let version = 1; version <= VERSION_MAX; version += 1) {
    const room = dataWords(version) * 8;
    if (bitsAtLeast > room) continue;
    const bits = [];
    const put = (value, length) => {
      for (let bit = length - 1; bit >= 0; bit -= 1) bits.push((value >>> bit) & 1);
    };
    const size = version < 10 ? 0 : version < 27 ? 1 : 2;
    if (letters) {
      put(2, 4);
      put(text.length, [9, 11, 13][size]);
      for (let at = 0; at + 1 < text.length; at += 2) {
        put(LETTERS.indexOf(text[at]) * 45 + LETTERS.indexOf(text[at + 1]), 11);
      }
      if (text.length % 2) put(LETTERS.indexOf(text.at(-1)), 6);
    } else {
      put(4, 4);
      put(bytes.length, size === 0 ? 8 : 16);
      for (const byte of bytes) put(byte, 8);
    }
    if (bits.length > room) continue;
    put(0, Math.min(4, room - bits.length));
    put(0, (8 - (bits.length % 8)) % 8);
    for (let pad = 0xec; bits.length < room; pad ^= 0xec ^ 0x11) put(pad, 8);
    return { version, bits };
  }
  return { version: null, bits: null };
}

function rawModules(version) {
  let modules = (16 * version + 128) * version + 64;
  if (version >= 2) {
    const marks = Math.floor(version / 7) + 2;
    modules -= (25 * marks - 10) * marks - 55;
    if (version >= 7) modules -= 36;
  }
  return modules;
}

function dataWords(version) {
  return Math.floor(rawModules(version) / 8) - ECC_WORDS[version] * BLOCKS[version];
}

function interleaved(version, bits) {
  const words = [];
  for (let at = 0; at < bits.length; at += 8) {
    words.push(bits.slice(at, at + 8).reduce((value, bit) => value * 2 + bit, 0));
  }
  const count = BLOCKS[version];
  const total = Math.floor(rawModules(version) / 8);
  const short = Math.floor(total / count) - ECC_WORDS[version];
  const longer = total % count;
  const divisor = divisorOf(ECC_WORDS[version]);
  const blocks = [];
  for (let block = 0, at = 0; block < count; block += 1) {
    const length = short + (block < count - longer ? 0 : 1);
    const data = words.slice(at, at + length);
    at += length;
    blocks.push({ data, check: remainder(data, divisor) });
  }
  const out = [];
  for (let at = 0; at <= short; at += 1) {
    for (const { data } of blocks) if (at < data.length) out.push(data[at]);
  }
  for (let at = 0; at < ECC_WORDS[version]; at += 1) for (const { check } of blocks) out.push(check[at]);
  return out;
}

function times(a, b) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ ((product >>> 7) * 0x11d);
    product ^= ((b >>> bit) & 1) * a;
  }
  return product;
}

function divisorOf(degree) {
  const found = new Array(degree).fill(0);
  found[degree - 1] = 1;
  let root = 1;
  for (let turn = 0; turn < degree; turn += 1) {
    for (let at = 0; at < degree; at += 1) {
      found[at] = times(found[at], root) ^ (at + 1 < degree ? found[at + 1] : 0);
    }
    root = times(root, 2);
  }
  return found;
}

function remainder(data, divisor) {
  const found = new Array(divisor.length).fill(0);
  for (const word of data) {
    const factor = word ^ found.shift();
    found.push(0);
    divisor.forEach((each, at) => {
      found[at] ^= times(each, factor);
    });
  }
  return found;
}

// ── drawing ────────────────────────────────────────────────────────────────────────────────────

function drawn(version, words, mask) {
  const size = version * 4 + 17;
  const rows = Array.from({ length: size }, () => new Array(size).fill(0));
  const fixed = Array.from({ length: size }, () => new Array(size).fill(false));
  const set = (x, y, dark) => {
    if (x < 0 || y < 0 || x >= size || y >= size) return;
    rows[y][x] = dark ? 1 : 0;
    fixed[y][x] = true;
  };
  drawMarks(version, size, set, fixed);
  drawFormat(mask, size, set);
  let bit = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step += 1) {
      const y = ((right + 1) & 2) === 0 ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (fixed[y][x]) continue;
        const data = bit < words.length * 8 ? (words[bit >>> 3] >>> (7 - (bit & 7))) & 1 : 0;
        rows[y][x] = data ^ (MASKS[mask](x, y) === 0 ? 1 : 0);
        bit += 1;
      }
    }
  }
  return rows;
}

function drawMarks(version, size, set, fixed) {
  for (let at = 0; at < size; at += 1) {
    set(6, at, at % 2 === 0);
    set(at, 6, at % 2 === 0);
  }
  for (const [cx, cy] of [[3, 3], [size - 4, 3], [3, size - 4]]) {
    for (let dy = -4; dy <= 4; dy += 1) {
      for (let dx = -4; dx <= 4; dx += 1) {
        const ring = Math.max(Math.abs(dx), Math.abs(dy));
        set(cx + dx, cy + dy, ring !== 2 && ring !== 4);
      }
    }
  }
  const places = alignment(version, size);
  for (const cx of places) {
    for (const cy of places) {
      const corner = (cx === 6 && (cy === 6 || cy === size - 7)) || (cy === 6 && cx === size - 7);
      if (corner) continue;
      for (let dy = -2; dy <= 2; dy += 1) {
        for (let dx = -2; dx <= 2; dx += 1) set(cx + dx, cy + dy, Math.max(Math.abs(dx), Math.abs(dy)) !== 1);
      }
    }
  }
  if (version >= 7) {
    let rest = version;
    for (let turn = 0; turn < 12; turn += 1) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
    const bits = (version << 12) | rest;
    for (let at = 0; at < 18; at += 1) {
      const a = size - 11 + (at % 3);
      const b = Math.floor(at / 3);
      set(a, b, (bits >>> at) & 1);
      set(b, a, (bits >>> at) & 1);
    }
  }
}

function alignment(version, size) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const step = Math.floor((version * 8 + count * 3 + 5) / (count * 4 - 4)) * 2;
  const found = [6];
  for (let place = size - 7; found.length < count; place -= step) found.splice(1, 0, place);
  return found;
}

function drawFormat(mask, size, set) {
  const data = (1 << 3) | mask; // 01 is level L
  let rest = data;
  for (let turn = 0; turn < 10; turn += 1) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
  const bits = ((data << 10) | rest) ^ 0x5412;
  const bit = (at) => (bits >>> at) & 1;
  for (let at = 0; at <= 5; at += 1) set(8, at, bit(at));
  set(8, 7, bit(6));
  set(8, 8, bit(7));
  set(7, 8, bit(8));
  for (let at = 9; at < 15; at += 1) set(14 - at, 8, bit(at));
  for (let at = 0; at < 8; at += 1) set(size - 1 - at, 8, bit(at));
  for (let at = 8; at < 15; at += 1) set(8, size - 15 + at, bit(at));
  set(8, size - 8, 1);
}

// How hard a mask makes it for a camera: long runs, blocks, false marks, too dark or too light.
function penaltyOf(rows) {
  const size = rows.length;
  const columns = rows.map((_, x) => rows.map((row) => row[x]));
  let penalty = 0;
  let dark = 0;
  for (const line of [...rows, ...columns]) {
    const text = line.join("");
    for (const run of text.match(/0{5,}|1{5,}/g) ?? []) penalty += run.length - 2;
    penalty += 40 * (text.match(/(?=10111010000|00001011101)/g) ?? []).length;
  }
  for (let y = 0; y < size; y += 1) {
    for (let x = 0; x < size; x += 1) {
      dark += rows[y][x];
      if (y === 0 || x === 0) continue;
      const sum = rows[y][x] + rows[y - 1][x] + rows[y][x - 1] + rows[y - 1][x - 1];
      if (sum === 0 || sum === 4) penalty += 3;
    }
  }
  return penalty + 10 * Math.floor(Math.abs(dark * 20 - size * size * 10) / (size * size));
}
