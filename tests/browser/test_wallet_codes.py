"""What the wallet page reads and draws by itself: tokens, and QR codes, against our own readers."""

import base64
import json
import secrets
from pathlib import Path
from typing import Any, Final

import cbor2
import pytest
import segno

from routstr.ecash.proof import Proof
from routstr.ecash.token import Token, decode_token, encode_token_v3, encode_token_v4
from routstr.errors import RoutstrError
from routstr.web.pages.kit import module_path
from tests.browser.visiting import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

VECTORS: Final = Path("tests/vectors/nut00.json")
READ: Final = """async ([path, texts]) => {
    const { decodeToken, InvalidToken } = await import(path);
    return texts.map((text) => {
        try {
            const { mint, unit, amount, keysets, memo, locks } = decodeToken(text);
            return { mint, unit, amount, keysets: Object.fromEntries(keysets), memo, locks };
        } catch (error) {
            return error instanceof InvalidToken ? "refused" : String(error);
        }
    });
}"""
DRAW: Final = """async ([path, texts]) => {
    const { qrMatrix } = await import(path);
    return texts.map((text) => qrMatrix(text));
}"""
EVENTS: Final = """async ([path, text]) => {
    const { EventReader } = await import(path);
    const bytes = new TextEncoder().encode(text);
    const runs = [];
    for (let cut = 0; cut <= bytes.length; cut += 1) {
        const said = [];
        const reader = new EventReader({
            onData: (data) => said.push(`data ${data}`),
            onComment: (comment) => said.push(`comment ${comment}`),
        });
        reader.feed(bytes.slice(0, cut));
        reader.feed(bytes.slice(cut));
        reader.end();
        runs.push(JSON.stringify(said));
    }
    return [...new Set(runs)];
}"""


async def run(visitor: Visitor, script: str, module: str, value: object) -> Any:
    await visitor.page.goto("/")
    return await visitor.page.evaluate(script, [module_path(module), value])


def token(amounts: tuple[int, ...], *, keyset_id: str = "009a1f293253e41e") -> Token:
    point = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    return Token(
        mint_url="https://mint.example/Bitcoin",
        unit="sat",
        proofs=tuple(
            Proof(keyset_id=keyset_id, amount=each, secret=secrets.token_hex(32), c=point)
            for each in amounts
        ),
        memo="dünne Suppe",
    )


async def test_tokens_say_what_our_own_reader_says(visitor: Visitor) -> None:
    made = token((1, 2, 4, 2**40))
    long = token((8,), keyset_id="01" + 64 * "a")
    texts = [*json.loads(VECTORS.read_text())["tokens_in_order"]]
    texts += [encode_token_v3(made), encode_token_v4(made), encode_token_v4(long, short_ids=True)]
    texts += [f"cashu:{encode_token_v4(long)}"]
    found = await run(visitor, READ, "wallet-token.js", texts)
    for text, read in zip(texts, found, strict=True):
        try:
            ours = decode_token(text, bytes_max=100_000)
        except RoutstrError:
            assert read == "refused", text
            continue
        assert read["amount"] == ours.amount
        assert (read["mint"], read["unit"]) == (ours.mint_url.rstrip("/"), ours.unit)
        assert sum(read["keysets"].values()) == len(ours.proofs)
        assert set(read["keysets"]) == {each.keyset_id for each in ours.proofs}
        assert read["memo"] == ours.memo


def as_b(data: bytes) -> str:
    return "cashuB" + base64.urlsafe_b64encode(data).decode().rstrip("=")


async def test_what_is_no_token_is_refused(visitor: Visitor) -> None:
    good = encode_token_v4(token((1,)))
    data = base64.urlsafe_b64decode(good[6:] + "=" * (-len(good[6:]) % 4))
    value = cbor2.loads(data)
    texts = [
        as_b(data + b"\x00"),  # something behind it
        as_b(data[:-1]),  # cut
        as_b(cbor2.dumps(cbor2.CBORTag(1, value))),
        as_b(cbor2.dumps({**value, "x": 1.5})),
        as_b(b"\xbf" + data[1:] + b"\xff"),  # of open length
        as_b(b"\xa2\x61m\x61a\x61m\x61b"),  # a name twice
        as_b(b"\x81" * 10_000),  # deep
        as_b(b"\x9b\x00\x1f\xff\xff\xff\xff\xff\xff"),  # a list of 2^53 - 1
        as_b(cbor2.dumps({**value, "t": []})),
        "cashuB", "cashuB!!", "cashuC" + good[6:], good.replace("cashuB", "cashuA"),
        "cashuA" + base64.urlsafe_b64encode(b'{"token":[]}').decode(),
        "cashuA" + base64.urlsafe_b64encode(b"null").decode(),
    ]  # fmt: skip
    found = await run(visitor, READ, "wallet-token.js", texts)
    assert found == ["refused"] * len(texts)


async def test_codes_are_those_of_another_maker(visitor: Visitor) -> None:
    texts = ["HELLO WORLD", "LNBC1" + "QPZRY9X8" * 60, "A" * 4_296, "x" * 2_953]
    found = await run(visitor, DRAW, "wallet-qr.js", [*texts, "A" * 4_297, "x" * 2_954])
    assert found[-2:] == [None, None]
    for text, drawn in zip(texts, found, strict=False):
        # Which mask is the fairest is a matter of taste; what it covers is not.
        masks = range(8)
        codes = (segno.make(text, error="l", boost_error=False, micro=False, mask=m) for m in masks)
        assert any([list(row) for row in code.matrix] == drawn for code in codes), text[:20]


async def test_events_are_the_same_however_they_are_cut(visitor: Visitor) -> None:
    stream = ': routstr {"é": 1}\r\n\r\ndata: ü\ndata: b\n\nevent: x\ndata:c\r\rid: 4\n\ndata: end'
    [said] = await run(visitor, EVENTS, "wallet-sse.js", stream)
    assert json.loads(said) == ['comment routstr {"é": 1}', "data ü\nb", "data c", "data end"]
