"""Answers questions about Cashu with nutshell's own code; runs inside `.venv-mint` only."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from bip32 import BIP32
from cashu.core.base import (
    BlindedMessage,
    PaymentRequest,
    Proof,
    TokenV3,
    TokenV3Token,
    TokenV4,
)
from cashu.core.crypto import b_dhke, keys
from cashu.core.crypto.secp import (
    PrivateKey,
    PublicKey,
)
from cashu.core.nuts import nut18, nut20, nut26
from cashu.core.p2pk import (
    schnorr_sign,
    verify_schnorr_signature,
)
from cashu.wallet.secrets import WalletSecrets

Case = dict[str, Any]


def key(text: str) -> Any:
    return PrivateKey(bytes.fromhex(text))


def point(text: str) -> Any:
    return PublicKey(bytes.fromhex(text))


def hash_to_curve(case: Case) -> Case:
    return {"point": b_dhke.hash_to_curve(bytes.fromhex(case["message"])).format().hex()}


def blind(case: Case) -> Case:
    b_, _ = b_dhke.step1_alice(case["secret"], key(case["r"]))
    return {"b_": b_.format().hex()}


def sign(case: Case) -> Case:
    c_, e, s = b_dhke.step2_bob(point(case["b_"]), key(case["key"]))
    return {"c_": c_.format().hex(), "e": e.to_hex(), "s": s.to_hex()}


def unblind(case: Case) -> Case:
    c = b_dhke.step3_alice(point(case["c_"]), key(case["r"]), point(case["mint_key"]))
    return {"c": c.format().hex()}


def verify(case: Case) -> Case:
    return {"ok": b_dhke.verify(key(case["key"]), point(case["c"]), case["secret"])}


def dleq_signature(case: Case) -> Case:
    ok = b_dhke.alice_verify_dleq(
        point(case["b_"]),
        point(case["c_"]),
        key(case["e"]),
        key(case["s"]),
        point(case["mint_key"]),
    )
    return {"ok": ok}


def dleq_proof(case: Case) -> Case:
    ok = b_dhke.carol_verify_dleq(
        case["secret"],
        key(case["r"]),
        point(case["c"]),
        key(case["e"]),
        key(case["s"]),
        point(case["mint_key"]),
    )
    return {"ok": ok}


def derive(case: Case) -> Case:
    class Wallet(WalletSecrets):  # type: ignore[misc]  # the base is unknown to the checker: another environment
        def __init__(self) -> None:
            self.seed = bytes.fromhex(case["seed"])
            self.bip32 = BIP32.from_seed(self.seed)

    secret, r, _ = asyncio.run(
        Wallet().generate_determinstic_secret(case["counter"], case["keyset_id"])
    )
    return {"secret": secret.hex(), "r": r.hex()}


def keyset_id(case: Case) -> Case:
    points = {int(amount): point(each) for amount, each in case["keys"].items()}
    if case["version"] == "00":
        return {"id": keys.derive_keyset_id(points)}
    fee, expiry = case["input_fee_ppk"], case["final_expiry"]
    return {"id": keys.derive_keyset_id_v2(points, case["unit"], expiry, fee)}


def encode_token(case: Case) -> Case:
    proofs = [Proof.from_dict(each) for each in case["proofs"]]
    v3 = TokenV3(token=[TokenV3Token(mint=case["mint"], proofs=proofs)])
    v3.unit, v3.memo = case["unit"], case["memo"]
    if case["version"] == 3:
        return {"text": v3.serialize(case["include_dleq"])}
    return {"text": TokenV4.from_tokenv3(v3).serialize(case["include_dleq"])}


def decode_token(case: Case) -> Case:
    kind = TokenV3 if case["text"].startswith("cashuA") else TokenV4
    token = kind.deserialize(case["text"])
    proofs = [each.to_dict(include_dleq=True) for each in token.proofs]
    return {"mint": token.mint, "unit": token.unit, "memo": token.memo, "proofs": proofs}


def _messages(case: Case) -> list[Any]:
    return [BlindedMessage(**each) for each in case["outputs"]]


def sign_quote(case: Case) -> Case:
    return {"signature": nut20.sign_mint_quote(case["quote"], _messages(case), case["key"])}


def verify_quote(case: Case) -> Case:
    signature, public_key = case["signature"], case["public_key"]
    ok = nut20.verify_mint_quote(case["quote"], _messages(case), public_key, signature)
    return {"ok": ok}


def sign_secret(case: Case) -> Case:
    return {"signature": schnorr_sign(case["secret"].encode(), key(case["key"])).hex()}


def verify_secret(case: Case) -> Case:
    message, signature = case["secret"].encode(), bytes.fromhex(case["signature"])
    return {"ok": verify_schnorr_signature(message, point(case["public_key"]), signature)}


def encode_request(case: Case) -> Case:
    request = PaymentRequest(**case["request"])
    return {"a": nut18.serialize(request), "b": nut26.serialize(request)}


def decode_request(case: Case) -> Case:
    return {"request": nut18.deserialize(case["text"]).model_dump(exclude_none=True)}


OPERATIONS: dict[str, Callable[[Case], Case]] = {
    each.__name__: each
    for each in (
        hash_to_curve,
        blind,
        sign,
        unblind,
        verify,
        dleq_signature,
        dleq_proof,
        derive,
        keyset_id,
        encode_token,
        decode_token,
        sign_quote,
        verify_quote,
        sign_secret,
        verify_secret,
        encode_request,
        decode_request,
    )
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever nutshell prints is no answer
    for line in sys.stdin:
        question = json.loads(line)
        operation = OPERATIONS[question["operation"]]
        answers.write(json.dumps([operation(case) for case in question["cases"]]) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
