"""Receipts as a client finds them in an answer, judged as anybody can judge them."""

import base64
import json

from sqlalchemy import text

from routstr.core.signed_receipt import ReadReceipt, canonical, check_sums, read_receipt
from routstr.ecash.receipt_key import is_signed
from routstr.flows.context import Context
from routstr.flows.receipts import receipt_by_id


async def assert_receipts_are_sound(ctx: Context) -> None:
    """Whatever was bought and however it ended: the newest requests' receipts are in order."""
    query = text(
        "SELECT id FROM reservation WHERE state <> 'held' ORDER BY created_at DESC LIMIT 50"
    )
    async with ctx.database.reading() as connection:
        ids = (await connection.execute(query)).scalars().all()
    for request_id in ids:
        receipt = await receipt_by_id(ctx, request_id)
        if receipt is not None:  # a test may have held money by itself
            sound_receipt(receipt.document, ctx.receipt_key.public)


def document_in(shown: str) -> bytes:
    """The receipt as JSON, from a header's value or from a stream's last comment."""
    if shown.startswith(": routstr {"):
        return shown.partition('"receipt":')[2].removesuffix("}").encode()
    assert len(shown) < 4_096
    payload, _, signature = shown.partition(".")
    signed = base64.urlsafe_b64decode(payload + "==")
    return canonical({**json.loads(signed), "signature": signature})


def sound_receipt(document: bytes, pubkey: str) -> ReadReceipt:
    """What it says, once its signature and its sums are found right."""
    receipt = read_receipt(document)
    assert receipt.text("pubkey") == pubkey
    assert is_signed(receipt.digest, receipt.signature, pubkey)
    check_sums(receipt)
    return receipt
