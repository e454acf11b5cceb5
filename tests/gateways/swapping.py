"""Swapping at the model mint as the node would: a token of 21 sat, a client without limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from routstr.ecash.bdhke import y_of
from routstr.ecash.outputs import (
    Output,
    blinded_messages_json,
    make_outputs,
    proofs_json,
    unblind_all,
)
from routstr.ecash.proof import BlindSignature, Keyset, Proof
from routstr.ecash.token import decode_token
from routstr.gateways.mint import MintClient, Priority
from routstr.gateways.mint_limits import LaneLimits
from tests.fakes.clock import FakeClock
from tests.fakes.mint import FakeMint

SEED = b"\x07" * 64
FREE = LaneLimits(rate_per_minute=10**9, burst=10**6, failures_max=100)


@asynccontextmanager
async def client_of(
    *mints: FakeMint, limits: LaneLimits = FREE, total_s: float = 10, clock: FakeClock | None = None
) -> AsyncIterator[MintClient]:
    async with MintClient(
        mint_urls=[each.url for each in mints],
        clock=clock or FakeClock(),
        limits=limits,
        allow_loopback_http=True,
        total_s=total_s,
    ) as opened:
        yield opened


class Swap:
    """One swap of a fresh token of 21 sat, as the node would make it."""

    def __init__(self, mint: FakeMint, keyset: Keyset) -> None:
        self.mint = mint
        self.keyset = keyset
        self.proofs: tuple[Proof, ...] = decode_token(mint.issue(21), bytes_max=10_000).proofs
        self.proofs = tuple(  # tokens carry short ids
            Proof(amount=p.amount, keyset_id=keyset.id, secret=p.secret, c=p.c) for p in self.proofs
        )
        self.outputs: tuple[Output, ...] = make_outputs(SEED, keyset.id, 0, [1, 4, 16])

    @property
    def body(self) -> bytes:
        return orjson.dumps(
            {
                "inputs": proofs_json(self.proofs),
                "outputs": blinded_messages_json(self.outputs),
            }
        )

    async def send(self, client: MintClient) -> tuple[BlindSignature, ...]:
        return await client.swap(self.mint.url, self.body, priority=Priority.RECEIVE)

    @property
    def ys(self) -> list[str]:
        return [y_of(proof.secret) for proof in self.proofs]

    def unblind(self, signatures: tuple[BlindSignature, ...]) -> int:
        proofs = unblind_all(self.outputs, signatures, self.keyset, require_dleq=True)
        return sum(proof.amount for proof in proofs)
