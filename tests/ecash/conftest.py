"""What the protocol's tests share: the published vectors, the judge, and a keyset with its keys."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from routstr.ecash import bdhke
from routstr.ecash.keyset import keyset_id
from routstr.ecash.proof import BlindSignature, Keyset
from tests.harness.oracle import Oracle, running_oracle

VECTORS = Path(__file__).parents[1] / "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeyset:
    """A keyset whose private keys are known."""

    keyset: Keyset
    private_keys: dict[int, str]

    def sign(self, amount: int, b_: str) -> BlindSignature:
        key = self.private_keys[amount]
        return BlindSignature(
            amount=amount,
            keyset_id=self.keyset.id,
            c_=bdhke.sign_blinded(b_, key),
            dleq=bdhke.dleq_prove(b_, key, bdhke.dleq_nonce(b_, key)),
        )


def signing_keyset(version: str, *, unit: str = "sat", fee: int = 0) -> SigningKeyset:
    private_keys = {1 << bit: f"{(bit + 3) * 7919:064x}" for bit in range(20)}
    keys = {amount: bdhke.public_key(key) for amount, key in private_keys.items()}
    name = keyset_id(keys, unit=unit, input_fee_ppk=fee, final_expiry=None, version=version)
    keyset = Keyset(
        id=name, unit=unit, active=True, input_fee_ppk=fee, final_expiry=None, keys=keys
    )
    return SigningKeyset(keyset=keyset, private_keys=private_keys)


@pytest.fixture(params=["00", "01"])
def signer(request: pytest.FixtureRequest) -> SigningKeyset:
    return signing_keyset(request.param)


@pytest.fixture(scope="session")
def nut() -> Any:
    """Reads the vectors of one NUT."""

    def read(number: str) -> Any:
        return json.loads((VECTORS / f"nut{number}.json").read_text())

    return read


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with running_oracle() as judge:
        yield judge
