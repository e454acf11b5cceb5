"""The mints of the allow-list over httpx: each call once, within limits, read with suspicion.

Laws: a mint that is not allow-listed is refused before any network call. Nothing is ever resent
here; whoever holds the operation's row decides what happens next. Bodies, tokens, secrets and
quote ids are never logged nor kept in an error. Sources: ecash.md sections 4 and 7, SR-6, SR-13.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import orjson

from routstr.core.url import BadUrl, canonical_mint_url
from routstr.ecash.keyset import id_matches, version_of
from routstr.ecash.proof import BlindedMessage, BlindSignature, Keyset
from routstr.errors import UntrustedMint
from routstr.gateways.mint_failure import (
    MintLimited,
    MintMisbehaved,
    MintRefused,
    MintUnknown,
)
from routstr.gateways.mint_http import ANSWER_BYTES_MAX, CONNECT_S, TOTAL_S, Call, MintHttp
from routstr.gateways.mint_limits import Clock, Lane, LaneLimits, Priority
from routstr.gateways.mint_quotes import (
    MeltQuote,
    MintQuote,
    QuoteState,
    melt_quote_from_json,
    mint_quote_from_json,
    quote_id_of,
    quote_path,
)
from routstr.gateways.mint_wire import (
    KeysetInfo,
    MintInfo,
    ProofState,
    info_from_json,
    keys_from_json,
    keysets_from_json,
    parsed,
    restored_from_json,
    signatures_from_answer,
    states_from_json,
)

__all__ = [
    "KeysetInfo",
    "MeltQuote",
    "MintClient",
    "MintInfo",
    "MintQuote",
    "Priority",
    "ProofState",
    "QuoteState",
]

MELT_TOTAL_S: Final = 120.0  # a mint may pay before it answers
MELTS_MAX: Final = 2  # slow melts leave half of a mint's places to all else, recovery first
ITEMS_MAX: Final = 1_000  # a stock mint refuses longer arrays
UNITS: Final = frozenset({"sat", "msat"})
REQUIRED_NUTS: Final = frozenset({7, 9, 12})
INPUT_FEE_PPK_MAX: Final = 1_000

T = TypeVar("T")


class MintClient:
    """The allow-listed mints. Use as an async context manager inside the loop that calls.

    `mint_urls` must be canonical (BadUrl otherwise); a call names one of them exactly, or raises
    UntrustedMint. Every call may raise MintRefused, MintUnknown or MintLimited.
    """

    def __init__(
        self,
        *,
        mint_urls: Iterable[str],
        clock: Clock,
        limits: LaneLimits | None = None,
        allow_loopback_http: bool = False,
        connect_s: float = CONNECT_S,
        total_s: float = TOTAL_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        self._clock = clock
        self._limits = limits or LaneLimits()
        self._allow_loopback_http = allow_loopback_http
        self._http = MintHttp(
            connect_s=connect_s, total_s=total_s, answer_bytes_max=answer_bytes_max
        )
        self._lanes: dict[str, Lane] = {}
        self._melts: dict[str, asyncio.Semaphore] = {}
        self.allow(mint_urls)

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Make the connection pool, for the running event loop."""
        self._http.open()

    async def close(self) -> None:
        """Close the pool."""
        await self._http.close()

    def allow(self, mint_urls: Iterable[str]) -> None:
        """Make these the allow-list. Mints that stay on it keep the state of their limits."""
        urls = tuple(mint_urls)
        for url in urls:
            if canonical_mint_url(url, allow_loopback_http=self._allow_loopback_http) != url:
                raise BadUrl("a mint's URL is not in its canonical form")
        self._lanes = {url: self._lanes.get(url) or Lane(self._clock, self._limits) for url in urls}
        self._melts = {url: self._melts.get(url) or asyncio.Semaphore(MELTS_MAX) for url in urls}

    async def get_info(self, mint_url: str, *, priority: Priority = Priority.RECEIVE) -> MintInfo:
        """What the mint supports (NUT-06)."""
        return await self._get(mint_url, "/v1/info", info_from_json, priority)

    async def get_keysets(
        self, mint_url: str, *, priority: Priority = Priority.RECEIVE
    ) -> tuple[KeysetInfo, ...]:
        """The mint's keysets of versions 00 and 01, active or not, any unit (NUT-02)."""
        return await self._get(mint_url, "/v1/keysets", keysets_from_json, priority)

    async def get_keys(
        self, mint_url: str, keyset_id: str, *, priority: Priority = Priority.RECEIVE
    ) -> Mapping[int, str]:
        """The keys of one keyset by amount, unchecked against its id (NUT-01).

        Raises UnsupportedKeyset, before any call, for an id that is none.
        """
        version_of(keyset_id)

        def read(value: object) -> Mapping[int, str]:
            return keys_from_json(value, keyset_id)

        return await self._get(mint_url, f"/v1/keys/{keyset_id}", read, priority)

    async def load_keysets(
        self,
        mint_url: str,
        *,
        known: Mapping[str, Keyset] | None = None,
        priority: Priority = Priority.RECEIVE,
    ) -> tuple[Keyset, ...]:
        """The keysets of `load_mint`."""
        _, keysets = await self.load_mint(mint_url, known=known, priority=priority)
        return keysets

    async def load_mint(
        self,
        mint_url: str,
        *,
        known: Mapping[str, Keyset] | None = None,
        priority: Priority = Priority.RECEIVE,
    ) -> tuple[MintInfo, tuple[Keyset, ...]]:
        """A mint fit for use, and its sat and msat keysets with keys, ids recomputed.

        `known` keysets by id are not asked for again: an id is a commitment to its keys. Raises
        MintMisbehaved for a missing NUT 07, 09 or 12, an id that is not its keyset's, or an active
        keyset with an input fee above INPUT_FEE_PPK_MAX.
        """
        about = await self.get_info(mint_url, priority=priority)
        if not about.nuts >= REQUIRED_NUTS:
            raise MintMisbehaved("the mint lacks NUT 07, 09 or 12")
        keysets: list[Keyset] = []
        for info in await self.get_keysets(mint_url, priority=priority):
            if info.unit not in UNITS:
                continue
            if info.active and info.input_fee_ppk > INPUT_FEE_PPK_MAX:
                raise MintMisbehaved("the mint's input fee is above the bound")
            held = (known or {}).get(info.id)
            keys = held.keys if held else await self.get_keys(mint_url, info.id, priority=priority)
            keyset = Keyset(
                id=info.id,
                unit=info.unit,
                active=info.active,
                input_fee_ppk=info.input_fee_ppk,
                final_expiry=info.final_expiry,
                keys=keys,
            )
            if not id_matches(keyset):
                raise MintMisbehaved("a keyset's id is not that of its keys")
            keysets.append(keyset)
        return about, tuple(keysets)

    async def swap(
        self, mint_url: str, body: bytes, *, priority: Priority
    ) -> tuple[BlindSignature, ...]:
        """POST the exact bytes of a swap, once (NUT-03).

        The signatures are well-formed, no more: count, amounts, keysets and DLEQs are judged by
        `ecash.outputs.unblind_all`, and an answer that fails there is as unknown as none.
        """
        return await self._post(mint_url, "/v1/swap", body, signatures_from_answer, priority)

    async def restore(
        self,
        mint_url: str,
        outputs: Sequence[BlindedMessage],
        *,
        priority: Priority = Priority.RECOVERY,
    ) -> Mapping[str, BlindSignature]:
        """Which of these (at most 1000) the mint has signed: signatures by B_ (NUT-09)."""
        assert 0 < len(outputs) <= ITEMS_MAX
        asked = [{"amount": o.amount, "id": o.keyset_id, "B_": o.b_} for o in outputs]

        def read(value: object) -> Mapping[str, BlindSignature]:
            return restored_from_json(value, outputs)

        body = orjson.dumps({"outputs": asked})
        return await self._post(mint_url, "/v1/restore", body, read, priority)

    async def check_state(
        self, mint_url: str, ys: Sequence[str], *, priority: Priority = Priority.RECOVERY
    ) -> Mapping[str, ProofState]:
        """The state of these (at most 1000) proofs by Y (NUT-07). Proves no validity."""
        assert 0 < len(ys) <= ITEMS_MAX

        def read(value: object) -> Mapping[str, ProofState]:
            return states_from_json(value, ys)

        return await self._post(
            mint_url, "/v1/checkstate", orjson.dumps({"Ys": ys}), read, priority
        )

    async def request_mint_quote(
        self,
        mint_url: str,
        *,
        amount: int,
        unit: str,
        pubkey: str,
        priority: Priority = Priority.RECEIVE,
    ) -> MintQuote:
        """Ask for an invoice over `amount`, whose ecash only `pubkey` can mint (NUT-04, 20, 23)."""
        body = orjson.dumps({"amount": amount, "unit": unit, "pubkey": pubkey})
        return await self._post(
            mint_url, "/v1/mint/quote/bolt11", body, mint_quote_from_json, priority
        )

    async def mint_quote(
        self, mint_url: str, quote_id: str, *, priority: Priority = Priority.RECOVERY
    ) -> MintQuote:
        """How a mint quote stands (NUT-04). A quote the mint does not know is MintRefused."""
        read = partial(mint_quote_from_json, quote_id=quote_id)
        return await self._get(mint_url, quote_path("mint", quote_id), read, priority)

    async def mint(
        self, mint_url: str, body: bytes, *, priority: Priority
    ) -> tuple[BlindSignature, ...]:
        """POST the exact bytes of a mint request, once (NUT-04); the signatures as in `swap`."""
        return await self._post(mint_url, "/v1/mint/bolt11", body, signatures_from_answer, priority)

    async def request_melt_quote(
        self, mint_url: str, *, bolt11: str, unit: str, priority: Priority = Priority.ISSUE
    ) -> MeltQuote:
        """Ask what paying this invoice costs, in `unit` (NUT-05, NUT-23). Pays nothing yet."""
        read = partial(melt_quote_from_json, bolt11=bolt11)
        body = orjson.dumps({"request": bolt11, "unit": unit})
        return await self._post(mint_url, "/v1/melt/quote/bolt11", body, read, priority)

    async def melt_quote(
        self, mint_url: str, quote_id: str, *, priority: Priority = Priority.RECOVERY
    ) -> MeltQuote:
        """How a melt quote stands (NUT-05). A quote the mint does not know is MintRefused."""
        read = partial(melt_quote_from_json, quote_id=quote_id)
        return await self._get(mint_url, quote_path("melt", quote_id), read, priority)

    async def melt(
        self,
        mint_url: str,
        body: bytes,
        *,
        total_s: float = MELT_TOTAL_S,
        priority: Priority = Priority.ISSUE,
    ) -> MeltQuote:
        """POST the exact bytes of a melt, once and never again (NUT-05, NUT-08).

        PENDING is an ordinary answer: a mint that can is asked to answer before it pays, with 202.
        nutshell reads that wish only from `prefer_async` in the body, and answers 200.
        """
        call = Call(
            method="POST",
            path="/v1/melt/bolt11",
            body=body,
            headers={"prefer": "respond-async"},
            accepted=frozenset({200, 202}),
            total_s=total_s,
        )
        read = partial(melt_quote_from_json, quote_id=quote_id_of(body))
        melts = self._melts.get(mint_url)
        if melts is None:
            raise UntrustedMint
        await self._turn(melts.acquire())
        try:
            return await self._call(mint_url, call, read, priority)
        finally:
            melts.release()

    async def _get(
        self, mint_url: str, path: str, read: Callable[[object], T], priority: Priority
    ) -> T:
        return await self._call(mint_url, Call(method="GET", path=path), read, priority)

    async def _post(
        self, mint_url: str, path: str, body: bytes, read: Callable[[object], T], priority: Priority
    ) -> T:
        call = Call(method="POST", path=path, body=body)
        return await self._call(mint_url, call, read, priority)

    async def _call(
        self, mint_url: str, call: Call, read: Callable[[object], T], priority: Priority
    ) -> T:
        """One call in the mint's lane, which hears how it went."""
        lane = self._lanes.get(mint_url)
        if lane is None:
            raise UntrustedMint
        await self._turn(lane.acquire(priority))
        try:
            value = read(parsed(await self._http.exchange(mint_url, call)))
        except MintLimited as error:
            lane.limited(error.retry_after_s)
            raise
        except MintUnknown:
            lane.failed()
            raise
        except MintRefused:
            lane.succeeded()
            raise
        else:
            lane.succeeded()
            return value
        finally:
            lane.release()

    async def _turn(self, coming: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await coming
        except TimeoutError as error:
            raise MintLimited("no turn in time", retry_after_s=1, was_sent=False) from error
