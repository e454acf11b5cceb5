"""`routstr verify`: whether a receipt is signed and adds up, offline."""

import hashlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from routstr.core.signed_receipt import (
    RECEIPT_BYTES_MAX,
    NoReceipt,
    ReadReceipt,
    UnsoundReceipt,
    check_sums,
    read_receipt,
)
from routstr.ecash.receipt_key import is_signed

WHO = "compare the key with `receipt_pubkey` in the node's /v1/info"


def command(
    file: Annotated[
        str,
        typer.Argument(help="The receipt, as JSON or as a header has it; - reads it from stdin."),
    ],
    pubkey: Annotated[
        str | None, typer.Option(help="The node's key: `receipt_pubkey` in its /v1/info.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="The body of the request, byte for byte as it was sent.")
    ] = None,
) -> None:
    """Check a receipt's signature and arithmetic; asks nobody.

    Exit 0 if it is sound, 1 if it is not, 2 if it is no receipt.
    """
    try:
        receipt = read_receipt(_read(file))
        _check(receipt, pubkey, None if body is None else body.read_bytes())
    except (OSError, NoReceipt) as error:
        typer.echo(f"routstr: {_reason(error)}", err=True)
        raise typer.Exit(2) from error
    charged, absorbed = receipt.number("charged_msats"), receipt.number("absorbed_msats")
    typer.echo(
        f"sound: {charged} msat charged for {receipt.text('request_id')}"
        f" ({receipt.text('model')}, {receipt.text('outcome')}),"
        f" {absorbed} msat borne by the node"
    )
    typer.echo(f"signed by {receipt.text('pubkey')}" + ("" if pubkey else f"; {WHO}"))


def _check(receipt: ReadReceipt, pubkey: str | None, body: bytes | None) -> None:
    """Raises UnsoundReceipt for the first thing that is wrong."""
    if not is_signed(receipt.digest, receipt.signature, receipt.text("pubkey")):
        raise UnsoundReceipt("The signature is not that of the receipt's key over the receipt.")
    if pubkey is not None and pubkey.lower() != receipt.text("pubkey"):
        raise UnsoundReceipt("The receipt was signed by another key.")
    check_sums(receipt)
    if body is not None and hashlib.sha256(body).hexdigest() != receipt.text("request_sha256"):
        raise UnsoundReceipt("The receipt is of a request with another body.")


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(RECEIPT_BYTES_MAX + 1)
    with Path(file).open("rb") as stream:
        return stream.read(RECEIPT_BYTES_MAX + 1)


def _reason(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
