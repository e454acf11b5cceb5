import base64
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routstr.ecash import bech32, tlv
from routstr.ecash.errors import InvalidPaymentRequest
from routstr.ecash.request import (
    CREQ_CHARS_MAX,
    Lock,
    PaymentRequest,
    Transport,
    decode_request,
    encode_request_a,
    encode_request_b,
)

KEY = "02c3b5bb27e361457c92d93d78dd73d3d53732110b2cfe8b50fbc0abc615e9c331"


def of_json(fields: Any) -> PaymentRequest:
    def tags(value: Any) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(tag) for tag in value or ())

    lock = fields.get("nut10")
    return PaymentRequest(
        id=fields.get("i"),
        amount=fields.get("a"),
        unit=fields.get("u"),
        single_use=fields.get("s"),
        mints=tuple(fields.get("m", ())),
        description=fields.get("d"),
        transports=tuple(
            Transport(kind=each["t"], target=each["a"], tags=tags(each.get("g")))
            for each in fields.get("t", ())
        ),
        lock=lock and Lock(kind=lock["k"], data=lock["d"], tags=tags(lock.get("t"))),
    )


def test_creq_a_vectors(nut: Any) -> None:
    cases = nut("18")
    assert len(cases) == 6
    for case in cases:
        decoded = decode_request(case["encoded"])
        wanted = of_json(case["json"])
        assert (decoded == wanted) == case["decodes_to_json"], case["name"]
        assert decode_request(encode_request_a(wanted)) == wanted
        assert decode_request(encode_request_a(decoded)) == decoded
        assert decode_request(case["encoded"].rstrip("=")) == decoded
        assert ("+" in case["encoded"] or "/" in case["encoded"]) == case["uses_std_b64_alphabet"]


def test_creq_a_is_written_in_the_order_of_the_nut(nut: Any) -> None:
    same_order = [
        case["encoded"].rstrip("=")
        for case in nut("18")
        if encode_request_a(of_json(case["json"])) == case["encoded"].rstrip("=")
    ]
    assert len(same_order) == 2  # the other four put t first


def test_creq_b_vectors(nut: Any) -> None:
    cases = nut("26")
    assert len(cases) == 16
    as_npub = []
    for number, case in enumerate(cases):
        decoded = decode_request(case["encoded"])
        assert decode_request(case["encoded"].lower()) == decoded
        assert encode_request_b(decoded) == case["encoded"], case["name"]
        wanted = of_json(case["json"])
        assert encode_request_b(wanted) == case["encoded"], case["name"]
        if decoded != wanted:
            as_npub.append(number)
            assert decoded.transports[0].target.startswith("npub1")
            assert wanted.transports[0].target.startswith("nprofile1")
    assert as_npub == [1, 11, 12]


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
filled_tags = st.lists(st.lists(words, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple)
requests = st.builds(
    PaymentRequest,
    id=st.none() | words,
    amount=st.none() | st.integers(0, 2**64 - 1),
    unit=st.sampled_from(["sat", "msat"]),
    single_use=st.none() | st.booleans(),
    mints=st.lists(words, max_size=3).map(tuple),
    description=st.none() | words,
    transports=st.lists(
        st.builds(Transport, kind=st.just("post"), target=words, tags=filled_tags), max_size=2
    ).map(tuple),
    lock=st.none()
    | st.builds(Lock, kind=st.sampled_from(["P2PK", "HTLC"]), data=words, tags=filled_tags),
)


@settings(max_examples=100, deadline=None)
@given(requests)
def test_round_trips(request: PaymentRequest) -> None:
    assert decode_request(encode_request_a(request)) == request
    assert decode_request(encode_request_b(request)) == request


def a(fields: object) -> str:
    return "creqA" + base64.urlsafe_b64encode(cbor2.dumps(fields)).decode()


def b(data: bytes, prefix: str = "creqb") -> str:
    return bech32.encode(prefix, data, bech32.Checksum.BECH32M)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "creqA",
        "creqA*",
        "creqA====",
        "creqAA",
        "creqC" + "A" * 8,
        "creqA" + "A" * CREQ_CHARS_MAX,
        a([]),
        a({"a": 1}),
        a({"a": -1, "u": "sat"}),
        a({"a": True, "u": "sat"}),
        a({"a": "1", "u": "sat"}),
        a({"u": 1}),
        a({"s": 1}),
        a({"m": "https://m"}),
        a({"m": [1]}),
        a({"t": [1]}),
        a({"t": [{"t": "post"}]}),
        a({"t": [{"t": "post", "a": "x", "g": [1]}]}),
        a({"t": [{"t": "post", "a": "x", "g": [[]]}]}),
        a({"nut10": []}),
        a({"nut10": {"k": "P2PK"}}),
        a({"nut10": {"k": "P2PK", "d": KEY, "t": {}}}),
        a({"d": 1.5}),
        b(b"", prefix="creqc"),
        bech32.encode("creqb", b"", bech32.Checksum.BECH32),
        b(tlv.record(2, bytes(8))),
        b(tlv.record(2, bytes(7)) + tlv.record(3, b"\x00")),
        b(tlv.record(4, b"")),
        b(tlv.record(1, b"\xff")),
        b(b"\x01"),
        b(b"\x01\x00"),
        b(b"\x01\x00\x05x"),
        b(tlv.record(7, b"")),
        b(tlv.record(7, tlv.record(1, b"\x01"))),
        b(tlv.record(7, tlv.record(1, b"\x09") + tlv.record(2, b"x"))),
        b(tlv.record(7, tlv.record(1, b"\x00") + tlv.record(2, b"x"))),
        b(tlv.record(7, tlv.record(1, b"\x01") + tlv.record(2, b"x") + tlv.record(3, b""))),
        b(tlv.record(7, tlv.record(1, b"\x01") + tlv.record(2, b"x") + tlv.record(3, b"\x05a"))),
        b(tlv.record(8, tlv.record(1, b"\x00"))),
        b(tlv.record(8, tlv.record(1, b"\x02") + tlv.record(2, b"x"))),
    ],
)
def test_malformed_requests(text: str) -> None:
    with pytest.raises(InvalidPaymentRequest):
        decode_request(text)


def test_mixed_case_and_wrong_checksums_are_refused() -> None:
    text = encode_request_b(PaymentRequest(unit="sat"))
    assert decode_request(text) == PaymentRequest(unit="sat")
    for wrong in (text[:-1] + text[-1].lower(), text[:-1], text + "q", text.replace("1", "")):
        with pytest.raises(InvalidPaymentRequest):
            decode_request(wrong)
    last = "Q" if text[-1] != "Q" else "P"
    with pytest.raises(InvalidPaymentRequest):
        decode_request(text[:-1] + last)


def test_unknown_records_and_transports_are_skipped() -> None:
    known = tlv.record(7, tlv.record(1, b"\x01") + tlv.record(2, b"x") + tlv.record(9, b"y"))
    unknown = tlv.record(7, tlv.record(1, b"\x09") + tlv.record(2, b"x"))
    decoded = decode_request(b(unknown + known + tlv.record(200, b"?")))
    assert decoded == PaymentRequest(transports=(Transport(kind="post", target="x"),))


def test_an_empty_transport_list_is_in_band() -> None:
    assert decode_request(a({"t": []})) == PaymentRequest()


@given(st.text(max_size=40), st.binary(max_size=60))
def test_only_a_typed_error_escapes(text: str, data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    for each in (text, "creqA" + text, "creqA" + encoded, b(data)):
        try:
            decode_request(each)
        except InvalidPaymentRequest:
            continue


@pytest.mark.parametrize(
    "request_",
    [
        PaymentRequest(transports=(Transport(kind="carrier pigeon", target="x"),)),
        PaymentRequest(transports=(Transport(kind="nostr", target="nonsense"),)),
        PaymentRequest(transports=(Transport(kind="post", target="x", tags=((),)),)),
        PaymentRequest(lock=Lock(kind="P3PK", data=KEY)),
        PaymentRequest(lock=Lock(kind="P2PK", data=KEY, tags=(("x" * 256,),))),
        PaymentRequest(description="x" * 2**16),
        PaymentRequest(description="\ud800"),
    ],
)
def test_what_does_not_fit_creq_b(request_: PaymentRequest) -> None:
    with pytest.raises(InvalidPaymentRequest):
        encode_request_b(request_)


def test_what_does_not_fit_creq_a() -> None:
    with pytest.raises(InvalidPaymentRequest):
        encode_request_a(PaymentRequest(description="\ud800"))


@pytest.mark.parametrize("amount", [-1, 2**64])
def test_an_amount_needs_a_unit_and_64_bits(amount: int) -> None:
    with pytest.raises(InvalidPaymentRequest):
        PaymentRequest(amount=amount, unit="sat")
    with pytest.raises(InvalidPaymentRequest):
        PaymentRequest(amount=1)


# ── nostr addresses and bech32 ────────────────────────────────────────────────────────────────


def test_nostr_addresses_of_nip_19() -> None:
    key = bytes.fromhex("3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d")
    npub = "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6"
    assert tlv.nostr_target(npub) == (key, ())
    assert tlv.nostr_address(key, ()) == npub
    profile = tlv.nostr_address(key, ("wss://a", "wss://b"))
    assert tlv.nostr_target(profile) == (key, ("wss://a", "wss://b"))
    newer = b"\x09\x01x" + b"\x00\x20" + key
    assert tlv.nostr_target(bech32.encode("nprofile", newer, bech32.Checksum.BECH32)) == (key, ())


@pytest.mark.parametrize(
    ("prefix", "data"),
    [
        ("npub", bytes(31)),
        ("note", bytes(32)),
        ("nprofile", b""),
        ("nprofile", b"\x00"),
        ("nprofile", b"\x00\x20" + bytes(31)),
        ("nprofile", b"\x00\x20" + bytes(32) + b"\x01\x01\xff"),
    ],
)
def test_malformed_nostr_addresses(prefix: str, data: bytes) -> None:
    with pytest.raises(tlv.InvalidTlv):
        tlv.nostr_target(bech32.encode(prefix, data, bech32.Checksum.BECH32))


@given(st.binary(max_size=400))
def test_bech32_has_no_length_limit(data: bytes) -> None:
    for checksum in bech32.Checksum:
        text = bech32.encode("test", data, checksum)
        assert bech32.decode(text, checksum) == ("test", data)
        assert bech32.decode(text.upper(), checksum) == ("test", data)


@pytest.mark.parametrize(
    "text",
    ["A1LQFN3A", "a1lqfn3a", "1qzzfhee", "é1lqfn3a", "a1lqfn3b", "pzry9x0s0muk", "a1", "a1b", ""],
)
def test_bech32m_of_bip_350(text: str) -> None:
    if text.lower() == "a1lqfn3a":
        assert bech32.decode(text, bech32.Checksum.BECH32M) == ("a", b"")
        return
    with pytest.raises(bech32.InvalidBech32):
        bech32.decode(text, bech32.Checksum.BECH32M)


def test_bech32_padding_is_zero_and_short() -> None:
    # Prefix "a", data words 0 and 1 (non-zero padding) and one word too many, checksums right.
    for words in ([0, 1], [0]):
        residue = bech32._polymod([*bech32._expanded("a"), *words, *[0] * 6]) ^ 1
        words += [residue >> shift & 31 for shift in range(25, -1, -5)]
        text = "a1" + "".join(bech32.ALPHABET[word] for word in words)
        with pytest.raises(bech32.InvalidBech32, match="padding"):
            bech32.decode(text, bech32.Checksum.BECH32)
