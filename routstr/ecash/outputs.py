"""What we ask a mint to sign, and what may become of its answer (NUT-03, NUT-04, NUT-09, NUT-12).

An answer is taken whole or not at all: if one count, order, id, amount or DLEQ is wrong, no proof
comes out of it. What goes to a mint never holds r or a DLEQ, which would let it recognise us.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from routstr.ecash import bdhke
from routstr.ecash.amounts import AMOUNT_MAX
from routstr.ecash.errors import BadSignature, EcashError
from routstr.ecash.keyset import VERSIONS, is_keyset_id
from routstr.ecash.proof import BlindedMessage, BlindSignature, Dleq, Keyset, Proof
from routstr.ecash.secret import deriver

SIGNATURES_MAX: Final = 1024
BLANK: Final = 0
"""The amount of an output whose worth the mint will say: melt change and restore (NUT-08)."""

_SCALAR: Final = re.compile(r"[0-9a-f]{64}")

__all__ = [
    "BLANK",
    "BadSignature",
    "Output",
    "blinded_messages_json",
    "make_outputs",
    "proofs_json",
    "signatures_from_json",
    "unblind_all",
    "unblind_change",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A blinded message with all that is needed to use its signature; amount in the unit."""

    amount: int
    keyset_id: str
    counter: int
    secret: str = field(repr=False)
    r: str = field(repr=False)
    b_: str

    def message(self) -> BlindedMessage:
        """The part that the mint sees."""
        return BlindedMessage(amount=self.amount, keyset_id=self.keyset_id, b_=self.b_)


def make_outputs(
    seed: bytes, keyset_id: str, first_counter: int, amounts: Sequence[int]
) -> tuple[Output, ...]:
    """Outputs for these amounts, from consecutive counters (NUT-13); BLANK where the mint decides.

    The counters must be reserved for good before the outputs are shown to anybody. Raises
    UnsupportedKeyset, InvalidCounter.
    """
    derive = deriver(seed, keyset_id)
    outputs: list[Output] = []
    for counter, amount in enumerate(amounts, start=first_counter):
        secret, r = derive(counter)
        outputs.append(
            Output(
                amount=amount,
                keyset_id=keyset_id,
                counter=counter,
                secret=secret,
                r=r,
                b_=bdhke.blind(secret, r),
            )
        )
    return tuple(outputs)


# ── the mint's answer ─────────────────────────────────────────────────────────────────────────


def unblind_all(
    outputs: Sequence[Output],
    signatures: Sequence[BlindSignature],
    keyset: Keyset,
    *,
    require_dleq: bool,
) -> tuple[Proof, ...]:
    """The proofs of a complete answer, in the order of the outputs.

    Checks count, order, ids, amounts and every DLEQ; one that is absent fails only under
    `require_dleq`, one that is present must hold. Raises BadSignature, and then gives nothing.
    """
    if len(signatures) != len(outputs):
        raise BadSignature("the mint signed another number of outputs")
    pairs = zip(outputs, signatures, strict=True)
    return tuple(_unblind(*pair, keyset, require_dleq=require_dleq) for pair in pairs)


def unblind_change(
    blanks: Sequence[Output],
    signatures: Sequence[BlindSignature],
    keyset: Keyset,
    *,
    require_dleq: bool,
) -> tuple[Proof, ...]:
    """The proofs of melt change: the i-th signature is the i-th blank's, and names its amount.

    Fewer signatures than blanks are right (NUT-08), more are not. Raises BadSignature.
    """
    # Signatures beyond the blanks pair with nothing, and unblind_all counts them.
    named = [
        replace(blank, amount=signature.amount)
        for blank, signature in zip(blanks, signatures, strict=False)
    ]
    return unblind_all(named, signatures, keyset, require_dleq=require_dleq)


def _unblind(
    output: Output, signature: BlindSignature, keyset: Keyset, *, require_dleq: bool
) -> Proof:
    if not signature.keyset_id == output.keyset_id == keyset.id:
        raise BadSignature("the mint signed with another keyset")
    if signature.amount != output.amount or signature.amount not in keyset.keys:
        raise BadSignature("the mint signed another amount")
    key, dleq = keyset.keys[signature.amount], signature.dleq
    if dleq is None and require_dleq:
        raise BadSignature("the mint sent no DLEQ proof")
    if dleq is not None and not bdhke.dleq_ok_for_signature(
        dleq, b_=output.b_, c_=signature.c_, mint_key=key
    ):
        raise BadSignature("the mint's DLEQ proof does not hold")
    try:
        c = bdhke.unblind(signature.c_, output.r, key)
    except EcashError:
        raise BadSignature("the mint's signature is no point on the curve") from None
    return Proof(
        amount=output.amount,
        keyset_id=output.keyset_id,
        secret=output.secret,
        c=c,
        dleq=None if dleq is None else replace(dleq, r=output.r),
    )


# ── the wire ──────────────────────────────────────────────────────────────────────────────────


def blinded_messages_json(outputs: Iterable[Output]) -> list[dict[str, object]]:
    """The `outputs` of a request (NUT-03, NUT-04, NUT-05, NUT-09)."""
    return [{"amount": each.amount, "id": each.keyset_id, "B_": each.b_} for each in outputs]


def proofs_json(proofs: Iterable[Proof]) -> list[dict[str, object]]:
    """The `inputs` of a request (NUT-03, NUT-05): never r, never a DLEQ."""
    inputs: list[dict[str, object]] = []
    for proof in proofs:
        entry: dict[str, object] = {
            "amount": proof.amount,
            "id": proof.keyset_id,
            "secret": proof.secret,
            "C": proof.c,
        }
        if proof.witness is not None:
            entry["witness"] = proof.witness
        inputs.append(entry)
    return inputs


def signatures_from_json(value: object) -> tuple[BlindSignature, ...]:
    """The `signatures` (or `change`) of a mint's answer, given as parsed JSON.

    Sizes and types are checked, points too; whose they are is `unblind_all`'s affair. Raises
    BadSignature.
    """
    if not isinstance(value, list) or len(value) > SIGNATURES_MAX:
        raise BadSignature("the mint's answer has no list of signatures, or too long a one")
    return tuple(_signature(each) for each in value)


def _signature(value: object) -> BlindSignature:
    if not isinstance(value, dict):
        raise BadSignature("a signature is an object")
    amount, keyset_id, c_ = value.get("amount"), value.get("id"), value.get("C_")
    if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount <= AMOUNT_MAX:
        raise BadSignature("a signature's amount is out of range")
    if not isinstance(keyset_id, str) or not _is_full_id(keyset_id):
        raise BadSignature("a signature's keyset id is malformed")
    if not isinstance(c_, str) or not bdhke.is_point(c_):
        raise BadSignature("a signature is no point on the curve")
    return BlindSignature(amount=amount, keyset_id=keyset_id, c_=c_, dleq=_dleq(value.get("dleq")))


def _is_full_id(text: str) -> bool:
    return is_keyset_id(text) and len(text) == VERSIONS[text[:2]].id_chars


def _dleq(value: object) -> Dleq | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadSignature("a DLEQ proof is an object")
    e, s = value.get("e"), value.get("s")
    if not isinstance(e, str) or not isinstance(s, str):
        raise BadSignature("a DLEQ proof has e and s")
    if _SCALAR.fullmatch(e) is None or _SCALAR.fullmatch(s) is None:
        raise BadSignature("a DLEQ proof's e and s are 64 characters of hex")
    return Dleq(e=e, s=s)
