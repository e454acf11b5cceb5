"""The node's signature, BIP-340's own vectors, and a verifier with no library at all."""

import importlib.util
import json
import secrets
from typing import Any

import pytest
from coincurve import PrivateKey

from demo.process import ROOT
from routstr.ecash.receipt_key import ReceiptKey, is_signed, receipt_key

VECTORS = json.loads((ROOT / "tests" / "vectors" / "bip340.json").read_text())


@pytest.fixture(scope="module")
def script() -> Any:
    """`docs/verify_receipt.py` as a module."""
    spec = importlib.util.spec_from_file_location("s", ROOT / "docs" / "verify_receipt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_the_published_vectors(vector: dict[str, Any], script: Any) -> None:
    message = bytes.fromhex(vector["message"])
    arguments = message, vector["signature"], vector["pubkey"]
    assert is_signed(*arguments) is script.is_signed(*arguments) is vector["valid"]


def test_it_signs_as_the_vectors_do() -> None:
    vector = VECTORS[0]  # the one without randomness
    private = PrivateKey(bytes.fromhex(vector["secret"]))
    key = ReceiptKey(public=vector["pubkey"].lower(), private=private)
    assert key.sign(bytes.fromhex(vector["message"])) == vector["signature"].lower()


def test_the_key_that_is_kept_signs_as_one_made_anew() -> None:
    for _ in range(20):
        key, digest = receipt_key(secrets.token_bytes(64)), secrets.token_bytes(32)
        assert key.sign(digest) == key.private.sign_schnorr(digest, bytes(32)).hex()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_it_signs_a_digest_and_nothing_else(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        receipt_key(bytes(64)).sign(bytes(size))


def test_both_verifiers_agree_on_keys_of_ours(script: Any) -> None:
    for _ in range(2):
        key, digest = receipt_key(secrets.token_bytes(64)), secrets.token_bytes(32)
        signature = key.sign(digest)
        assert signature == key.sign(digest)
        assert is_signed(digest, signature, key.public)
        assert script.is_signed(digest, signature, key.public)
        other = receipt_key(secrets.token_bytes(64)).public
        for wrong in (
            (secrets.token_bytes(32), signature, key.public),
            (digest, signature[64:] + signature[:64], key.public),
            (digest, signature, other),
        ):
            assert not is_signed(*wrong)
            assert not script.is_signed(*wrong)


def test_the_key_is_the_seed_s_alone() -> None:
    assert receipt_key(bytes(64)) != receipt_key(bytes(63) + b"\x01")
    assert receipt_key(bytes(64)).public == receipt_key(bytes(64)).public
    assert "private" not in repr(receipt_key(bytes(64)))
