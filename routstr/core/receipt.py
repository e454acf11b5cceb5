"""What a client is told it paid: one cost object, spliced into the upstream's own bytes.

Laws: numbers are those that were charged; every byte we do not name stays as the upstream wrote
it; a body that we cannot walk is left alone. Source: contract, section 6.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

import orjson

from routstr.core.money import sats_text, usd_text
from routstr.core.pricing import Cost, Usage

# Members of the upstream's usage that ours replace, or that would tell the upstream's price.
_OURS: Final = frozenset({"cost", "cost_sats", "remaining_balance_msats", "cost_details"})

# Numbers stay text: only the places of members matter here.
_WALKER: Final = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
_BLANK: Final = " \t\n\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A settled cost. `btc_usd` None: no rate is known; `remaining_balance_msat` None: no key."""

    cost: Cost
    estimated: bool
    btc_usd: Decimal | None = None
    remaining_balance_msat: int | None = None


def cost_object(receipt: Receipt) -> bytes:
    """The `cost` object as JSON."""
    return orjson.dumps(_cost_object(receipt))


def cost_members(receipt: Receipt) -> bytes:
    """The members that go into `usage`: `"cost":{…},"cost_sats":…,"remaining_balance_msats":…`."""
    members: dict[str, object] = {
        "cost": _cost_object(receipt),
        "cost_sats": orjson.Fragment(sats_text(receipt.cost.total_msat)),
    }
    if receipt.remaining_balance_msat is not None:
        members["remaining_balance_msats"] = receipt.remaining_balance_msat
    return orjson.dumps(members)[1:-1]


def comment_line(
    request_id: str, receipt: Receipt, change: str | None = None, signed: bytes | None = None
) -> bytes:
    """The SSE comment before a stream's terminal event; clients skip it (WHATWG HTML 9.2).

    `signed` is the signed receipt as JSON, which has no line end in it.
    """
    said: dict[str, object] = {"request_id": request_id, "cost": _cost_object(receipt)}
    if change is not None:
        said["change"] = change
    if signed is not None:
        said["receipt"] = orjson.Fragment(signed)
    return b": routstr " + orjson.dumps(said) + b"\n\n"


def cost_headers(receipt: Receipt) -> dict[str, str]:
    """The cost headers of an answer that is no stream."""
    headers = {
        "X-Routstr-Cost-Msats": str(receipt.cost.total_msat),
        "X-Routstr-Input-Cost-Msats": str(receipt.cost.input_msat),
        "X-Routstr-Output-Cost-Msats": str(receipt.cost.output_msat),
    }
    if receipt.btc_usd is not None:
        headers["X-Routstr-Cost-Usd"] = usd_text(receipt.cost.total_msat, receipt.btc_usd)
    return headers


def usage_object(usage: Usage) -> bytes:
    """An OpenAI `usage` object for an answer whose upstream sent none."""
    return orjson.dumps(
        {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    )


def _cost_object(receipt: Receipt) -> dict[str, object]:
    cost, usage = receipt.cost, receipt.cost.usage
    usd = None
    if receipt.btc_usd is not None:
        usd = orjson.Fragment(usd_text(cost.total_msat, receipt.btc_usd))
    said: dict[str, object] = {
        "base_msats": cost.base_msat,
        "input_msats": cost.input_msat,
        "output_msats": cost.output_msat,
        "total_msats": cost.total_msat,
        "cache_read_msats": cost.cache_read_msat,
        "cache_creation_msats": cost.cache_creation_msat,
        "total_usd": usd,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_creation_tokens,
        "estimated": receipt.estimated,
    }
    if receipt.remaining_balance_msat is not None:
        said["remaining_balance_msats"] = receipt.remaining_balance_msat
    return said


# ── splicing ──────────────────────────────────────────────────────────────────────────────────


class _Member(NamedTuple):
    """Where a member of an object stands in the text: key and value, without blanks around.

    `usage` is its value, if that is its name.
    """

    name: str
    start: int
    value_start: int
    end: int
    usage: object


def splice_cost(json_object: bytes, members: bytes) -> bytes:
    """`json_object` with `members` (from `cost_members`) in its last top-level `usage` object.

    The upstream's own members of those names and its `cost_details` go; all other bytes stay.
    Without a `usage` object, or if the text is no JSON object, it is returned unchanged.
    """
    try:
        text = json_object.decode()
        usage = _usage_in(json_object, text)
        if usage is None or not isinstance(usage.usage, dict):
            return json_object
        if _OURS.isdisjoint(usage.usage):
            spliced = _appended(text, usage, members.decode())
        else:
            inner = _members_of(text, usage.value_start)
            spliced = _with_members(text, usage, inner, members.decode())
    except (ValueError, RecursionError):
        return json_object
    return spliced.encode()


def add_usage(json_object: bytes, usage: bytes) -> bytes:
    """`json_object` with `usage` as its top-level usage, in place of a null or other one.

    Unchanged if the text is no JSON object.
    """
    try:
        text = json_object.decode()
        members = _members_of(text, _skip_blank(text, 0))
    except (ValueError, RecursionError):
        return json_object
    old = _last(members, "usage")
    if old is not None:
        start, end, said = old.value_start, old.end, usage.decode()
    else:
        start = end = members[-1].end if members else _skip_blank(text, 0) + 1
        said = ("," if members else "") + f'"usage":{usage.decode()}'
    return (text[:start] + said + text[end:]).encode()


def usage_in(json_object: bytes) -> bytes | None:
    """The bytes of the last top-level `usage` if it is an object, else None."""
    try:
        text = json_object.decode()
        usage = _usage_in(json_object, text)
    except (ValueError, RecursionError):
        return None
    if usage is None or not isinstance(usage.usage, dict):
        return None
    return text[usage.value_start : usage.end].encode()


def changed_within(json_object: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """`json_object` with `change` made to its last top-level member `name`, if that is an object.

    Unchanged if there is none, or if the text is no JSON object.
    """
    try:
        text = json_object.decode()
        member = _last(_members_of(text, _skip_blank(text, 0)), name)
    except (ValueError, RecursionError):
        return json_object
    if member is None or text[member.value_start] != "{":
        return json_object
    changed = change(text[member.value_start : member.end].encode())
    return text[: member.value_start].encode() + changed + text[member.end :].encode()


def _usage_in(data: bytes, text: str) -> _Member | None:
    """The last top-level `usage`, if any; raises ValueError or RecursionError for no JSON object.

    It mostly stands near the end, where it is found without a walk through all before it.
    """
    found = _usage_behind(data, text)
    return found or _last(_members_of(text, _skip_blank(text, 0)), "usage")


def _usage_behind(data: bytes, text: str) -> _Member | None:
    """The last top-level `usage`, if from the last word of that kind on only its siblings follow.

    What begins behind a comma or a brace, in a text that is JSON as a whole, is a name, and one
    whose object ends with the text is of the top level.
    """
    start = text.rfind('"usage"')
    before = start - 1
    while before >= 0 and text[before] in _BLANK:
        before -= 1
    if before < 0 or text[before] not in "{,":
        return None
    try:
        siblings, end = _members_from(text, start)
        if _skip_blank(text, end + 1) < len(text) or not isinstance(orjson.loads(data), dict):
            return None
    except (ValueError, RecursionError):
        return None
    return _last(siblings, "usage")


def _last(members: list[_Member], name: str) -> _Member | None:
    """The last member of that name: the one that parsers keep."""
    found = [member for member in members if member.name == name]
    return found[-1] if found else None


def _appended(text: str, usage: _Member, ours: str) -> str:
    """The text, its usage with ours behind its last member, before any blanks there."""
    if not usage.usage:
        at = usage.value_start + 1
        return text[:at] + ours + text[at:]
    at = usage.end - 1
    while text[at - 1] in _BLANK:
        at -= 1
    return f"{text[:at]},{ours}{text[at:]}"


def _with_members(text: str, usage: _Member, inner: list[_Member], ours: str) -> str:
    """The text, its usage rewritten: kept members with what stood before each, then ours."""
    opening = usage.value_start + 1
    out = [text[:opening]]
    blank_from = opening
    kept = 0
    for member in inner:
        if member.name not in _OURS:
            before = text[blank_from : member.start]
            out += [before if kept else before.replace(",", "", 1), text[member.start : member.end]]
            kept += 1
        blank_from = member.end
    out += ["," if kept else "", ours, text[blank_from:]]
    return "".join(out)


def _members_of(text: str, start: int) -> list[_Member]:
    """The members of the object that opens at `start`. Raises ValueError if there is none."""
    if text[start : start + 1] != "{":
        raise ValueError("no object")
    members, _ = _members_from(text, _skip_blank(text, start + 1))
    return members


def _members_from(text: str, at: int) -> tuple[list[_Member], int]:
    """The members from the one at `at` on, and where their object ends. Raises ValueError."""
    members: list[_Member] = []
    while text[at : at + 1] != "}":
        if members:
            at = _skip_blank(text, _expect(text, at, ","))
        name, key_end = _WALKER.raw_decode(text, at)
        value_start = _skip_blank(text, _expect(text, _skip_blank(text, key_end), ":"))
        value, end = _WALKER.raw_decode(text, value_start)
        usage = value if name == "usage" else None  # the rest may be large
        members.append(_Member(str(name), at, value_start, end, usage))
        at = _skip_blank(text, end)
    return members, at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign}")
    return at + 1


def _skip_blank(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at
