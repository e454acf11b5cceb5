import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects import DIALECTS
from routstr.core.form import FormFile, parse_form
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import NOTHING_USED, Model, Price, Usage, cost_of
from routstr.core.quote import quote_of
from routstr.errors import InvalidModel, InvalidParameter, RoutstrError, UnsupportedParameter
from tests.core.forms import FORM_TYPE, form, mp3, wav

GENERATE, EDIT, VARY = "/images/generations", "/images/edits", "/images/variations"
SPEAK, HEAR, TRANSLATE = "/audio/speech", "/audio/transcriptions", "/audio/translations"

FREE = Price(version="v", input_msat_per_mtok=0, output_msat_per_mtok=0)
MODEL = Model(id="m", name="m", context_length=4_000, max_output_tokens=1_000, price=FREE)


def sold(**rates: Any) -> Model:
    return replace(MODEL, price=replace(FREE, **rates))


BY_IMAGE, BY_SECOND = sold(image_msat=40_000), sold(second_msat=100)
BY_TOKEN = sold(
    input_msat_per_mtok=5_000_000,
    image_input_msat_per_mtok=10_000_000,
    image_output_msat_per_mtok=40_000_000,
)
BY_HEARD = sold(output_msat_per_mtok=10_000_000, audio_input_msat_per_mtok=6_000_000)
BY_CHARACTER = sold(characters_msat_per_million=15_000_000)


def parse(path: str, **members: object) -> Order:
    body = json.dumps({"model": "m", **members}).encode()
    return DIALECTS[path].parse(body, content_type="application/json", depth_max=64)


def parse_parts(path: str, *parts: tuple[str, str | bytes]) -> Order:
    body = form(("model", "m"), *parts)
    return DIALECTS[path].parse(body, content_type=FORM_TYPE, depth_max=64)


def tally(path: str, order: Order, answer: object, content_type: str = "application/json") -> Tally:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return DIALECTS[path].meter_body(body, order=order, content_type=content_type, usage_cap=4_000)


def used(seen: Tally) -> Usage:
    assert seen.usage is not None
    return seen.usage


# ── images ────────────────────────────────────────────────────────────────────────────────────

IMAGE = {"b64_json": "aGk="}


def test_images_are_quoted_as_ordered_and_charged_as_delivered() -> None:
    order = parse(GENERATE, prompt="a cat", n=3, size="1024x1024", quality="hd")
    quote = quote_of(order, BY_IMAGE)
    assert quote.total_msat == quote.minimum_msat == 120_000
    two = tally(GENERATE, order, {"data": [IMAGE, {"url": "https://a.example/b"}, {"url": ""}]})
    assert (used(two).images, two.output_seen) == (2, True)
    assert cost_of(used(two), BY_IMAGE.price).total_msat == 80_000
    assert used(tally(GENERATE, order, {"data": [IMAGE] * 9})).images == 3


@pytest.mark.parametrize("answer", [{"data": []}, {}, {"data": [{}, 1, {"url": None}]}])
def test_no_image_is_no_output(answer: dict[str, object]) -> None:
    seen = tally(GENERATE, parse(GENERATE, prompt="a"), {**answer, "usage": TOKENS})
    assert (seen.usage, seen.output_seen) == (NOTHING_USED, False)


TOKENS = {
    "total_tokens": 350,
    "input_tokens": 50,
    "output_tokens": 300,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}


def test_images_by_the_token_cannot_be_lowered() -> None:
    order = parse(GENERATE, prompt="a cat", n=2)
    quote = quote_of(order, BY_TOKEN)
    assert quote.minimum_msat == quote.total_msat
    assert quote.total_msat == order.prompt_bytes * 5 + 2 * 1_000 * 40
    seen = used(tally(GENERATE, order, {"data": [IMAGE, IMAGE], "usage": TOKENS}))
    assert (seen.image_input_tokens, seen.image_output_tokens, seen.images) == (40, 300, 2)
    assert cost_of(seen, BY_TOKEN.price).total_msat == 10 * 5 + 40 * 10 + 300 * 40


def test_images_by_the_token_need_a_limit_of_tokens() -> None:
    order = parse(GENERATE, prompt="a cat")
    with pytest.raises(InvalidModel):
        quote_of(order, replace(BY_TOKEN, max_output_tokens=0))
    both = replace(BY_TOKEN, max_output_tokens=0, price=replace(BY_TOKEN.price, image_msat=1))
    assert quote_of(order, both).total_msat == order.prompt_bytes * 5 + 1


def test_an_insane_report_leaves_the_images() -> None:
    order = parse(GENERATE, prompt="a cat")
    seen = tally(GENERATE, order, {"data": [IMAGE], "usage": {"input_tokens": -1}})
    assert (used(seen).images, seen.usage_insane) == (1, True)


def test_an_edit_is_quoted_at_the_whole_context() -> None:
    images = [("image[]", b"png"), ("image[]", b"png")]
    order = parse_parts(EDIT, ("prompt", "a hat"), ("n", "2"), *images)
    assert (order.n, order.units.images) == (2, 2)
    assert quote_of(order, BY_TOKEN).total_msat == 3_000 * 10 + 2 * 1_000 * 40
    assert quote_of(order, BY_IMAGE).total_msat == 80_000


def test_a_form_is_forwarded_as_ours() -> None:
    order = parse_parts(VARY, ("image", b"--\r\nx"), ("size", "256x256"))
    sent = DIALECTS[VARY].forward_body(order, forwarded_model_id="theirs", output_limit=5)
    assert FORM_TYPE.partition("boundary=")[2].strip('"').encode() not in sent
    assert parse_form(
        sent, content_type=order.content_type, texts=["model", "size"], files=["image"]
    ) == {
        "model": "theirs",
        "image": FormFile(name="image.bin", type="application/x-any", data=b"--\r\nx"),
        "size": "256x256",
    }


# ── sound ─────────────────────────────────────────────────────────────────────────────────────


def test_what_tells_a_voice_how_to_speak_is_sold_too() -> None:
    order = parse(SPEAK, input="hi", instructions="Slowly, please.", voice="alloy")
    assert quote_of(order, BY_CHARACTER).total_msat == 17 * 15
    assert used(tally(SPEAK, order, b"sound", "audio/mpeg")).characters == 17
    with pytest.raises(UnsupportedParameter):
        parse(SPEAK, input="hi", voice={"id": "voice_1"})


def test_speech_is_sold_by_characters() -> None:
    order = parse(SPEAK, input="grüß dich", voice="alloy")
    assert quote_of(order, BY_CHARACTER).total_msat == 9 * 15
    seen = tally(SPEAK, order, b"\xff\xfb sound", "audio/mpeg")
    assert cost_of(used(seen), BY_CHARACTER.price).total_msat == 9 * 15
    assert not tally(SPEAK, order, b"", "audio/mpeg").output_seen
    assert tally(SPEAK, order, {"error": {"message": "no"}}).error_seen


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"text": "one", "usage": {"type": "duration", "seconds": 9}}, 9),
        ({"text": "one", "usage": {"type": "duration", "seconds": 2.1}}, 3),
        ({"text": "one", "duration": 7.2}, 8),
        ({"text": "one", "duration": "7.2"}, 8),
        ({"text": "one", "duration": "nan"}, 4),
        ({"text": "one"}, 4),
        ({"text": "x" * 76 * 4}, 5),  # nobody speaks that fast: the file is longer than it says
        ({"text": "x" * 9_999}, 5),  # never more than was quoted
        ({"text": "one", "usage": "many"}, 4),
    ],
)
def test_seconds_are_reported_or_measured(answer: dict[str, object], seconds: int) -> None:
    order = parse_parts(HEAR, ("file", wav(3_500) + b"LIST\xe8\3\0\0" + bytes(1_000)))
    assert quote_of(order, BY_SECOND).total_msat == 500
    seen = tally(HEAR, order, answer)
    assert (used(seen).seconds, seen.output_seen) == (seconds, True)


@pytest.mark.parametrize(
    ("told", "answer", "seconds"),
    [
        ("text", b"one two\n", 3),
        ("srt", b"1\n00:00:01,000 --> 00:00:02,500\none\n\n", 3),
        ("srt", b"1\n00:00:01,000 --> 00:00:04,500\none\n\n", 4),
        ("vtt", b"WEBVTT\n\n00:01.000 --> 01:00.500\none\n", 5),
    ],
)
def test_text_is_charged_by_the_file(told: str, answer: bytes, seconds: int) -> None:
    sound = mp3(100) + bytes(2_000)
    order = parse_parts(HEAR, ("response_format", told), ("file", sound))
    seen = tally(HEAR, order, answer, "text/plain")
    assert (used(seen).seconds, seen.output_seen) == (seconds, True)
    assert not tally(HEAR, order, b"WEBVTT\n\n", "text/plain").output_seen
    assert tally(HEAR, order, {"error": "no"}).error_seen
    assert tally(HEAR, order, b"\xff", "text/plain").malformed_events


def test_hearing_by_the_token_is_quoted_by_the_seconds() -> None:
    order = parse_parts(HEAR, ("file", wav(10_000)))
    tokens = 10 * 50 + len("m")
    assert quote_of(order, BY_HEARD).total_msat == tokens * 6 + 1_000 * 10
    usage = {
        "type": "tokens", "input_tokens": 110, "output_tokens": 20, "total_tokens": 130,
        "input_token_details": {"text_tokens": 10, "audio_tokens": 100},
    }  # fmt: skip
    seen = used(tally(HEAR, order, {"text": "one", "usage": usage}))
    assert cost_of(seen, BY_HEARD.price).total_msat == 100 * 6 + 20 * 10
    assert cost_of(seen, BY_SECOND.price).total_msat == 10 * 100
    text = parse_parts(HEAR, ("file", wav(10_000)), ("response_format", "text"))
    with pytest.raises(InvalidModel):  # it reports no tokens, so it would be for nothing
        quote_of(text, BY_HEARD)


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "members", "refusal"),
    [
        (GENERATE, {}, InvalidParameter),
        (GENERATE, {"prompt": ""}, InvalidParameter),
        (GENERATE, {"prompt": ["a"]}, InvalidParameter),
        (GENERATE, {"prompt": "a", "n": 129}, InvalidParameter),
        (GENERATE, {"prompt": "a", "n": True}, InvalidParameter),
        (GENERATE, {"prompt": "a", "stream": True}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "stream": 1}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "partial_images": 2}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "partial_images": False}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "num_images": 4}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "N": 4}, UnsupportedParameter),
        (GENERATE, {"prompt": "a", "steps": 500}, UnsupportedParameter),
        (SPEAK, {"voice": "a"}, InvalidParameter),
        (SPEAK, {"input": ["a"]}, InvalidParameter),
        (SPEAK, {"input": "a", "stream_format": "sse"}, UnsupportedParameter),
        (SPEAK, {"input": "a", "extra_body": {}}, UnsupportedParameter),
    ],
)
def test_json_refusals(path: str, members: dict[str, object], refusal: type[RoutstrError]) -> None:
    with pytest.raises(refusal):
        parse(path, **members)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (EDIT, [("image", b"png")]),
        (EDIT, [("prompt", "a")]),
        (EDIT, [("prompt", "a"), ("image", b"png"), ("n", "0")]),
        (EDIT, [("prompt", "a"), ("image", b"png"), ("n", "two")]),
        (EDIT, [("prompt", "a"), ("image", b"png"), ("stream", "true")]),
        (EDIT, [("prompt", "a"), ("image", b"png"), ("partial_images", "3")]),
        (VARY, [("prompt", "a"), ("image", b"png")]),
        (HEAR, [("file", b"")]),
        (HEAR, [("language", "en")]),
        (HEAR, [("file", wav(10)), ("model", "other")]),
        (HEAR, [("file", wav(10)), ("stream", "true")]),
        (HEAR, [("file", wav(10)), ("response_format", "yaml")]),
        (HEAR, [("file", b"who knows"), ("response_format", "text")]),
        (HEAR, [("file", wav(10)), ("known_speaker_references[]", "data:audio/wav;base64,AA")]),
        (TRANSLATE, [("file", wav(10)), ("language", "en")]),
    ],
)
def test_form_refusals(path: str, parts: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises((InvalidParameter, UnsupportedParameter)):
        parse_parts(path, *parts)


def test_harmless_members_pass() -> None:
    assert not parse(GENERATE, prompt="a", stream=False, partial_images=0, quality=None).stream
    assert parse(SPEAK, input="a", stream_format="audio").body["stream_format"] == "audio"
    assert parse_parts(HEAR, ("file", wav(10)), ("stream", "false")).units.seconds == 1


@pytest.mark.parametrize("model", [MODEL, BY_IMAGE, BY_TOKEN, BY_SECOND, BY_HEARD, BY_CHARACTER])
def test_what_a_model_is_not_sold_by_it_does_not_sell(model: Model) -> None:
    orders = (
        (parse(GENERATE, prompt="a"), (BY_IMAGE, BY_TOKEN)),
        (parse_parts(HEAR, ("file", wav(10))), (BY_SECOND, BY_HEARD)),
        (parse(SPEAK, input="a"), (BY_CHARACTER,)),
    )
    for order, sellers in orders:
        if model in sellers:
            assert quote_of(order, model).total_msat > 0
        else:
            with pytest.raises(InvalidModel):
                quote_of(order, model)


# ── what is used never costs more than was quoted ─────────────────────────────────────────────

RATES = st.integers(0, 10**9)
PRICES = st.builds(
    Price,
    version=st.just("v"),
    input_msat_per_mtok=RATES,
    output_msat_per_mtok=RATES,
    request_msat=st.integers(0, 10**6),
    image_msat=RATES,
    second_msat=RATES,
    characters_msat_per_million=RATES,
    audio_input_msat_per_mtok=st.none() | RATES,
    image_input_msat_per_mtok=st.none() | RATES,
    image_output_msat_per_mtok=st.none() | RATES,
)
ORDERS = st.one_of(
    st.builds(lambda n: (GENERATE, parse(GENERATE, prompt="a", n=n)), st.integers(1, 10)),
    st.builds(
        lambda n: (EDIT, parse_parts(EDIT, ("prompt", "a"), ("image", b"i"), ("n", str(n)))),
        st.integers(1, 10),
    ),
    st.builds(lambda text: (SPEAK, parse(SPEAK, input=text)), st.text("aß", min_size=1)),
    st.builds(
        lambda ms, tail: (HEAR, parse_parts(HEAR, ("file", wav(ms) + tail))),
        st.integers(1, 9_000),
        st.binary(max_size=3_000),
    ),
)
ANSWERS = st.fixed_dictionaries(
    {
        "text": st.text(max_size=300),
        "data": st.lists(st.just(IMAGE), max_size=12),
    }
)


@given(price=PRICES, ordered=ORDERS, answer=ANSWERS)
def test_units_never_cost_more_than_their_quote(
    price: Price, ordered: tuple[str, Order], answer: dict[str, object]
) -> None:
    path, order = ordered
    quote = quote_of(order, replace(MODEL, price=price, is_free=True))
    seen = tally(path, order, answer)
    assert cost_of(used(seen), price).total_msat <= quote.total_msat == quote.minimum_msat


NAMES = st.sampled_from(["data", "text", "usage", "duration", "seconds", "url", "error", "type"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
ONE_OF_EACH = [
    (GENERATE, parse(GENERATE, prompt="a", n=2)),
    (VARY, parse_parts(VARY, ("image", b"i"))),
    (SPEAK, parse(SPEAK, input="a")),
    (HEAR, parse_parts(HEAR, ("file", wav(10)))),
    (TRANSLATE, parse_parts(TRANSLATE, ("file", wav(10)), ("response_format", "srt"))),
]


@given(st.dictionaries(NAMES, JSON).map(json.dumps).map(str.encode) | st.binary())
def test_nothing_that_an_upstream_says_raises(answer: bytes) -> None:
    for path, order in ONE_OF_EACH:
        for content_type in ("application/json", "text/plain"):
            seen = tally(path, order, answer, content_type)
            assert seen.usage is None or seen.usage.is_sane
