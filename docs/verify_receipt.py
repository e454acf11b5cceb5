"""Check a receipt offline: `python verify_receipt.py FILE|- [RECEIPT_PUBKEY]`; see receipts.md."""

import base64
import json
import sys
from fractions import Fraction
from hashlib import sha256

P, N = 2**256 - 2**32 - 977, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G_X = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798
G_Y = 0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8


def plus(a, b):  # two points of secp256k1; None is the point at infinity
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0] and a[1] != b[1]:
        return None
    top, bottom = (3 * a[0] ** 2, 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = top * pow(bottom, -1, P) % P
    x = (slope**2 - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(n, point):
    return plus(times(n // 2, plus(point, point)) if n > 1 else None, point if n % 2 else None)


def is_signed(digest, signature, key):  # BIP-340; the digest in bytes, the others in hex
    x, r, s = int(key, 16), int(signature[:64], 16), int(signature[64:], 16)
    y = pow(x**3 + 7, (P + 1) // 4, P)
    if max(x, r) >= P or s >= N or (y * y - x**3 - 7) % P:
        return False
    tag = sha256(b"BIP0340/challenge").digest() * 2
    e = int.from_bytes(sha256(tag + bytes.fromhex(signature[:64] + key) + digest).digest(), "big")
    point = plus(times(s, (G_X, G_Y)), times(-e % N, (x, P - y if y % 2 else y)))
    return point is not None and point[0] == r and point[1] % 2 == 0


def main(file, key=None):
    text = (sys.stdin if file == "-" else open(file, encoding="utf-8")).read().strip()
    payload, _, signature = ("", "", "") if text.startswith("{") else text.partition(".")
    receipt = json.loads(base64.urlsafe_b64decode(payload + "===") if payload else text)
    signature = receipt.pop("signature", signature)
    signed = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    lines = [[line[name] for name in ("count", "rate_msats", "per")] for line in receipt["lines"]]
    named = ("v", "cost_msats", "charged_msats", "absorbed_msats", "quote_msats")
    v, cost, charged, absorbed, quote = numbers = [receipt[name] for name in named]
    integers = v == 1 and all(type(n) is int and n >= 0 for n in sum(lines, numbers))
    due = -(sum(Fraction(count * rate, per) for count, rate, per in lines) // -1)  # rounded up
    fits = {"exact": cost == due, "estimated": cost <= due, "none": cost == 0}
    sums = fits[receipt["evidence"]] and charged + absorbed == cost and charged <= quote
    is_true = is_signed(sha256(signed.encode()).digest(), signature, key or receipt["pubkey"])
    checks = {"numbers": integers, "sums": sums, "signature": is_true}
    print(f"{receipt['request_id']}: {charged} msat charged, key {key or receipt['pubkey']}")
    sys.exit(", ".join(f"wrong {name}" for name, is_so in checks.items() if not is_so) or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
