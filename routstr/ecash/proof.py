"""The nouns of Cashu that every part of the node speaks (NUT-00, NUT-01, NUT-12).

Points and scalars are lower-case hex: 66 characters for a compressed point, 64 for a scalar.
Amounts are integers in the mint's unit (sat or msat), never msat by default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Dleq:
    """A proof that one key signed (NUT-12); `r`, the blinding factor, stays with the holder."""

    e: str
    s: str
    r: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Spendable ecash (NUT-00). `keyset_id` is full once the keysets are known."""

    amount: int
    keyset_id: str
    secret: str = field(repr=False)
    c: str = field(repr=False)
    dleq: Dleq | None = field(default=None, repr=False)
    witness: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindedMessage:
    """What a mint is asked to sign (NUT-00): an amount of a keyset on a blinded point B_."""

    amount: int
    keyset_id: str
    b_: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSignature:
    """What a mint answers (NUT-00): C_, with its DLEQ (NUT-12) or None when the mint sent none."""

    amount: int
    keyset_id: str
    c_: str
    dleq: Dleq | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """One keyset of a mint (NUT-01, NUT-02): hex keys by amount, fee per thousand inputs."""

    id: str
    unit: str
    active: bool
    input_fee_ppk: int
    final_expiry: int | None
    keys: Mapping[int, str] = field(repr=False)
