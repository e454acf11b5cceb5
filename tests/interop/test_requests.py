"""Requests to pay, in both forms: cashu-ts reads ours and pays them, and we read its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from demo.mint import RealMint
from demo.wallet import MintRefused
from routstr.ecash.amounts import split
from routstr.ecash.bdhke import public_key
from routstr.ecash.p2pk import lock_of, sign_secret
from routstr.ecash.request import (
    Lock,
    PaymentRequest,
    decode_request,
    encode_request_a,
    encode_request_b,
)
from routstr.ecash.secret import Nut10Secret, parse_secret
from routstr.ecash.token import BODY_BYTES_MAX, decode_token, resolve_ids
from tests.harness.mint import OpenWallet
from tests.interop.conftest import OpenCashuTs

PRIVATE_KEY: Final = "7f" * 32
PUBLIC_KEY: Final = public_key(PRIVATE_KEY)
REFUND_KEY: Final = public_key("11" * 32)
LOCKTIME: Final = 4_102_444_800  # the year 2100
LOCKS: Final = {
    "open": None,
    "locked": Lock(kind="P2PK", data=PUBLIC_KEY),
    "refundable": Lock(
        kind="P2PK",
        data=PUBLIC_KEY,
        tags=(("locktime", str(LOCKTIME)), ("refund", REFUND_KEY)),
    ),
}

Encode = Callable[[PaymentRequest], str]


@pytest.mark.parametrize("encode", [encode_request_a, encode_request_b])
@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
async def test_a_request_is_read_as_it_was_meant(
    real_mint: RealMint, open_cashu_ts: OpenCashuTs, encode: Encode, lock: Lock | None
) -> None:
    request = PaymentRequest(
        id="req-1",
        amount=21,
        unit="sat",
        single_use=True,
        mints=(real_mint.url, "https://mint.example/Bitcoin"),
        description="An answer ₿",
        lock=lock,
    )
    read = await (await open_cashu_ts(real_mint)).read_request(encode(request))
    assert decode_request(read.pop("creqA")) == request
    assert decode_request(read.pop("creqB")) == request
    tags = [] if lock is None else [list(tag) for tag in lock.tags]
    locked = None if lock is None else {"kind": lock.kind, "data": lock.data, "tags": tags}
    if read["lock"] is not None:
        read["lock"].setdefault("tags", [])  # none and an empty list mean the same
    assert read == {
        "id": "req-1",
        "amount": 21,
        "unit": "sat",
        "mints": list(request.mints),
        "description": "An answer ₿",
        "singleUse": True,
        "transports": [],
        "lock": locked,
    }


@pytest.mark.parametrize("lock", [LOCKS["locked"], LOCKS["refundable"]], ids=["forever", "2100"])
async def test_a_locked_request_is_paid_under_its_lock(
    real_mint: RealMint,
    open_cashu_ts: OpenCashuTs,
    open_wallet: OpenWallet,
    lock: Lock,
) -> None:
    payer, payee = await open_cashu_ts(real_mint), await open_wallet(real_mint)
    await payer.mint(50)
    request = PaymentRequest(amount=21, unit="sat", mints=(real_mint.url,), lock=lock)
    token = await payer.pay(encode_request_a(request))
    decoded = decode_token(token, bytes_max=BODY_BYTES_MAX)
    assert decoded.amount == 21
    for proof in decoded.proofs:
        secret = parse_secret(proof.secret)
        assert isinstance(secret, Nut10Secret)
        assert lock_of(secret).is_held_by(PUBLIC_KEY, locktime_min=LOCKTIME)
        assert proof.dleq is not None

    known = resolve_ids(decoded, await payee._load_keysets()).proofs
    with pytest.raises(MintRefused):
        await payee._swap(known, split(21))
    signed = [replace(each, witness=sign_secret(each.secret, PRIVATE_KEY)) for each in known]
    assert sum(each.amount for each in await payee._swap(signed, split(21))) == 21
    assert await payer.states(token) == {"SPENT"}
