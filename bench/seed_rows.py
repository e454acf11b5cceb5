"""The statements of `make seed`: a node's rows, thought out from their numbers, on both engines.

Every row follows from its number, so the same size makes the same books. A key is born when its
first deposit is credited, one coin that is worth more than it will ever spend; every fifth gets a
second coin, which it takes out again; every tenth is paid for over Lightning; every hundredth has a
child that spends a third of its requests.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from routstr.ledger.engine import Dialect

INPUT_MSAT: Final = 1  # a token
OUTPUT_MSAT: Final = 3
HOLD_MSAT: Final = 12_000
MODELS: Final = 12
UPSTREAMS: Final = 3
CHILD_EVERY: Final = 100
OUT_EVERY: Final = 5
LIGHTNING_EVERY: Final = 10
UNCLAIMED_MAX: Final = 300
BUSY_EVERY: Final = 50
SCRAMBLER: Final = 2654435761  # Knuth's, for 32 bits

# Of a thousand requests, those from the first number on: outcome, evidence.
OUTCOMES: Final = (
    (0, "upstream_failed", "none"),
    (12, "stalled", "none"),
    (16, "cut_before_output", "none"),
    (20, "client_left_early", "none"),
    (30, "upstream_rejected", "none"),
    (36, "completed_no_usage", "estimated"),
    (60, "completed", "exact"),
)
FREE_BELOW: Final = 36


def key_id(number: int) -> str:
    """The id of a key; that of number 0 has a fiftieth of all requests."""
    return f"key_{(number + 1) * SCRAMBLER % 2**32:08x}{number + 1:024x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to make: keys, requests, and the time they are spread over, in Unix ms."""

    keys: int
    requests: int
    begin_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What cannot be made by number: sealed blobs, the mint, its keyset."""

    secret: str
    request: str
    quote: str
    mint_id: str
    mint_url: str
    keyset_id: str


class Writer:
    """SQL for one engine: the few things that they say differently."""

    def __init__(self, dialect: Dialect, size: Size, sealed: Sealed) -> None:
        """For books of that size."""
        self._lite = dialect == "sqlite"
        self._size = size
        self._sealed = sealed

    # ── how each engine says it ───────────────────────────────────────────────────────────────

    def _series(self, first: int, last: int) -> str:
        if self._lite:
            counted = f"SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}"
            return f"(WITH RECURSIVE s(n) AS ({counted}) SELECT n FROM s) AS s"
        return f"generate_series(CAST({first} AS bigint), {last}) AS s(n)"

    def _hex(self, number: str, digits: int) -> str:
        if self._lite:
            return f"printf('%0{digits}x', {number})"
        return f"lpad(to_hex(CAST({number} AS bigint)), {digits}, '0')"

    def _time(self, place: str) -> str:
        """When an event is, by its place in the order of all."""
        places = 4 * (self._size.requests + 1)
        passed = f"CAST({place} AS bigint) * {self._size.end_ms - self._size.begin_ms} / {places}"
        ms = f"({self._size.begin_ms} + {passed})"
        if self._lite:
            form = "%Y-%m-%dT%H:%M:%f000+00:00"
            return f"strftime('{form}', {ms} / 1000.0, 'unixepoch')"
        return f"to_timestamp({ms} / 1000.0)"

    def _json(self, text: str) -> str:
        return text if self._lite else f"CAST({text} AS jsonb)"

    def _key_id(self, number: str) -> str:
        scrambled = f"(({number}) + 1) * {SCRAMBLER} % 4294967296"
        return f"'key_' || {self._hex(scrambled, 8)} || {self._hex(f'({number}) + 1', 24)}"

    def _child_id(self, number: str) -> str:
        return self._key_id(f"{self._size.keys} + ({number}) / {CHILD_EVERY}")

    # ── the plan ──────────────────────────────────────────────────────────────────────────────

    def plan(self) -> list[str]:
        """What happens, in order: requests with what they cost, keys with what they need."""
        keys, requests = self._size.keys, self._size.requests
        born = f"{keys} * (n - 1) / {requests}"
        return [
            "CREATE TEMPORARY TABLE seed_use (n integer PRIMARY KEY, k bigint, o bigint, h bigint,"
            " tokens_in bigint, tokens_out bigint, cost bigint)",
            "CREATE TEMPORARY TABLE seed_key (k integer PRIMARY KEY, place bigint, uses bigint,"
            " paid bigint, spent bigint, coin bigint, out_coin bigint)",
            "CREATE TEMPORARY TABLE seed_coin (v bigint PRIMARY KEY)",
            f"INSERT INTO seed_coin SELECT CAST(1 AS bigint) << CAST(n AS integer)"
            f" FROM {self._series(0, 40)}",
            "INSERT INTO seed_use SELECT n, k, o, h, tokens_in, tokens_out,"
            f" CASE WHEN o < {FREE_BELOW} THEN 0 ELSE"
            f" tokens_in * {INPUT_MSAT} + tokens_out * {OUTPUT_MSAT} END"
            f" FROM (SELECT n, h, h / 7 % 1000 AS o, "
            f" CASE WHEN h % {BUSY_EVERY} = 0 THEN 0 ELSE h / 11 % (1 + {born}) END AS k,"
            " 50 + h / 13 % 3000 AS tokens_in, 10 + h / 17 % 1000 AS tokens_out"
            f" FROM (SELECT n, n * {SCRAMBLER} % 4294967296 AS h"
            f" FROM {self._series(1, requests)}) a) b",
            f"INSERT INTO seed_key SELECT n, 4 * (n * {requests} / {keys}) + 1,"
            " coalesce(uses, 0), coalesce(paid, 0), coalesce(spent, 0),"
            " (SELECT min(v) FROM seed_coin WHERE v * 1000 > coalesce(spent, 0)),"
            f" CASE WHEN n % {OUT_EVERY} = 0"
            f" THEN CAST(1 AS bigint) << CAST(n / {OUT_EVERY} % 6 AS integer) ELSE 0 END"
            f" FROM {self._series(0, keys - 1)} LEFT JOIN (SELECT k, count(*) AS uses,"
            " sum(CASE WHEN cost > 0 THEN 1 ELSE 0 END) AS paid,"
            " sum(cost) AS spent FROM seed_use GROUP BY k) u ON u.k = n",
        ]

    # ── keys and ecash ────────────────────────────────────────────────────────────────────────

    def keys(self) -> list[str]:
        """Keys as they stand at the end, and children with what they spent."""
        now = self._time(f"4 * {self._size.requests}")
        names = (
            "id, key_hash, balance, reserved, total_deposited, total_spent, total_requests,"
            " created_at, first_used_at, last_used_at, expires_at, revoked_at, version, parent_id,"
            " preview"
        )
        tail = self._hex("k % 65536", 4)
        preview = f"'sk-' || {self._hex(f'k * {SCRAMBLER} % 65536', 4)} || '...' || {tail}"
        child_preview = f"'sk-' || {tail} || '...' || {self._hex('k % 4096', 4)}"
        nothing = "NULL" if self._lite else "CAST(NULL AS timestamptz)"
        soon = self._time("place + 4000")
        return [
            f"INSERT INTO apikey ({names}) SELECT {self._key_id('k')},"
            f" {self._hex('k + 1', 64)}, coin * 1000 - spent, 0, (coin + out_coin) * 1000, spent,"
            f" paid, {self._time('place')}, {self._time('place + 1')}, {now},"
            f" CASE WHEN k % 20 = 3 THEN {soon} ELSE {nothing} END,"
            f" CASE WHEN k % 200 = 7 THEN {now} ELSE {nothing} END,"
            " uses + 1 + CASE WHEN out_coin > 0 THEN 1 ELSE 0 END, NULL,"
            f" {preview} FROM seed_key ORDER BY k",
            f"INSERT INTO apikey ({names}) SELECT {self._child_id('s.k')},"
            f" {self._hex(f's.k + 1 + {2 * self._size.keys}', 64)}, 0, 0, 0, coalesce(c.spent, 0),"
            f" coalesce(c.paid, 0), {self._time('place + 1')}, {self._time('place + 1')}, {now},"
            f" {nothing}, {nothing}, 0, {self._key_id('s.k')},"
            f" {child_preview.replace('k %', 's.k %')}"
            " FROM seed_key s LEFT JOIN (SELECT k, sum(cost) AS spent,"
            " sum(CASE WHEN cost > 0 THEN 1 ELSE 0 END) AS paid FROM seed_use"
            f" WHERE k % {CHILD_EVERY} = 0 AND n % 3 = 0 GROUP BY k) c ON c.k = s.k"
            f" WHERE s.k % {CHILD_EVERY} = 0",
        ]

    def brought(self) -> list[str]:
        """Tokens and invoices, and the calls to the mint that they took."""
        sealed, by_invoice = self._sealed, f"k % {LIGHTNING_EVERY} = 1"
        deposit_id, invoice_id = (
            f"'{kind}_' || {self._hex('k + 1', 32)}" for kind in ("dep", "inv")
        )
        operation_id = f"'op_' || {self._hex('k + 1', 32)}"
        at, url = self._time("place"), f"'{sealed.mint_url}'"
        return [
            "INSERT INTO deposit (id, api_key_id, state, source, mint_url, unit, face_amount,"
            " credit_msat, created_at, credited_at, is_locked)"
            f" SELECT {deposit_id}, {self._key_id('k')}, 'credited', 'cashu', {url}, 'sat',"
            f" coin + out_coin, (coin + out_coin) * 1000, {at}, {at}, false FROM seed_key"
            f" WHERE NOT ({by_invoice})",
            f"INSERT INTO deposit_input (y, deposit_id) SELECT '02' || {self._hex('k + 1', 64)},"
            f" {deposit_id} FROM seed_key WHERE NOT ({by_invoice})",
            "INSERT INTO lightning_invoice (id, api_key_id, purpose, status, mint_url, unit,"
            " amount, credit_msat, bolt11, payment_hash, quote_id, created_at, expires_at, paid_at)"
            f" SELECT {invoice_id}, {self._key_id('k')}, 'create', 'paid', {url}, 'sat', coin,"
            f" coin * 1000, 'lnbcseed' || {self._hex('k + 1', 32)}, {self._hex('k + 1', 64)},"
            f" '{sealed.quote}', {at}, {self._time('place + 4')}, {at} FROM seed_key"
            f" WHERE {by_invoice}",
            "INSERT INTO lightning_invoice (id, api_key_id, purpose, status, mint_url, unit,"
            " amount, credit_msat, bolt11, payment_hash, quote_id, created_at, expires_at)"
            f" SELECT 'inx_' || {self._hex('k + 1', 32)}, {self._key_id('k')}, 'topup', 'expired',"
            f" {url}, 'sat', coin, coin * 1000, 'lnbcseedx' || {self._hex('k + 1', 32)},"
            f" {self._hex('k + 1', 64)}, '{sealed.quote}', {at}, {self._time('place + 4')}"
            f" FROM seed_key WHERE k % {LIGHTNING_EVERY} = 2",
            "INSERT INTO mint_operation (id, kind, state, mint_id, unit, request, input_amount,"
            " fee_amount, deposit_id, lightning_invoice_id, attempts, next_attempt_at, created_at,"
            f" ended_at) SELECT {operation_id}, CASE WHEN {by_invoice} THEN 'mint' ELSE 'receive'"
            f" END, 'done', '{sealed.mint_id}', 'sat', '{sealed.request}', coin + out_coin, 0,"
            f" CASE WHEN {by_invoice} THEN NULL ELSE {deposit_id} END,"
            f" CASE WHEN {by_invoice} THEN {invoice_id} END, 1, {at}, {at}, {at} FROM seed_key",
        ]

    def coins(self) -> list[str]:
        """The coins that became of it, and what was taken out."""
        sealed, out_at = self._sealed, self._time("place + 2")
        operation_id, out_id = (f"'{kind}_' || {self._hex('k + 1', 32)}" for kind in ("op", "wd"))
        is_out = f"CASE WHEN k / {OUT_EVERY} < {UNCLAIMED_MAX} THEN"
        status, issued = (
            f"{is_out} 'completed' ELSE 'claimed' END",
            f"{is_out} 'issued' ELSE 'spent' END",
        )
        return [
            "INSERT INTO withdrawal (id, api_key_id, way, amount, fee_amount, mint_url, unit,"
            f" status, created_at, completed_at, retry_count, token) SELECT {out_id},"
            f" {self._key_id('k')}, 'token', out_coin * 1000, 0, '{sealed.mint_url}', 'sat',"
            f" {status}, {out_at}, {out_at}, 0, '{sealed.secret}' FROM seed_key WHERE out_coin > 0",
            *(
                f"INSERT INTO mint_output (operation_id, position, keyset_id, counter, amount, b_,"
                f" purpose) SELECT {operation_id}, {place}, '{sealed.keyset_id}', 2 * k + {place},"
                f" {coin}, '02' || {self._hex(f'2 * k + {place}', 64)}, 'keep' FROM seed_key"
                f" WHERE {coin} > 0"
                for place, coin in enumerate(("coin", "out_coin"))
            ),
            "INSERT INTO proof (y, keyset_id, counter, amount, secret, c, state, operation_id)"
            f" SELECT '03' || {self._hex('2 * k', 64)}, '{sealed.keyset_id}', 2 * k, coin,"
            f" '{sealed.secret}', '02' || {self._hex('2 * k', 64)}, 'unspent', {operation_id}"
            " FROM seed_key",
            "INSERT INTO proof (y, keyset_id, counter, amount, secret, c, state, operation_id,"
            f" withdrawal_id) SELECT '03' || {self._hex('2 * k + 1', 64)}, '{sealed.keyset_id}',"
            f" 2 * k + 1, out_coin, '{sealed.secret}', '02' || {self._hex('2 * k + 1', 64)},"
            f" {issued}, {operation_id}, {out_id} FROM seed_key WHERE out_coin > 0",
        ]

    # ── what was sold ─────────────────────────────────────────────────────────────────────────

    def _outcome(self, place: int) -> str:
        cases = "".join(
            f" WHEN o < {following[0]} THEN '{each[place]}'"
            for each, following in pairwise(OUTCOMES)
        )
        return f"CASE{cases} ELSE '{OUTCOMES[-1][place]}' END"

    def holds(self) -> str:
        """A reservation for each request, ended."""
        snapshot = (
            f"""'{{"model_id":"model-' || (h % {MODELS}) || '","price_version":"seed",'"""
            f""" || '"input_msat_per_mtok":{INPUT_MSAT}000000,"output_msat_per_mtok":"""
            f"""{OUTPUT_MSAT}000000,"request_msat":0,"n":1,"context_length":128000,'"""
            f""" || '"input_tokens_max":4096,"output_limit":1024,"ceiling_msat":{HOLD_MSAT},'"""
            f""" || '"total_msat":{HOLD_MSAT}}}'"""
        )
        return (
            "INSERT INTO reservation (id, api_key_id, amount, quote_amount, settled_amount, state,"
            " price_snapshot, owner, deadline, created_at, ended_at, spender_id)"
            f" SELECT 'req_' || {self._hex('n', 32)}, {self._key_id('k')}, {HOLD_MSAT},"
            f" {HOLD_MSAT}, cost, CASE WHEN cost > 0 THEN 'settled' ELSE 'released' END,"
            f" {self._json(snapshot)}, 'seed', {self._time('4 * n')}, {self._time('4 * n - 1')},"
            f" {self._time('4 * n')}, CASE WHEN {self._is_childs()} THEN {self._child_id('k')} END"
            " FROM seed_use ORDER BY n"
        )

    def _is_childs(self) -> str:
        return f"k % {CHILD_EVERY} = 0 AND n % 3 = 0"

    def chain(self) -> str:
        """Every change of every balance, in the order of time."""
        events = (
            "SELECT k, 4 * n AS place, 0 AS kind, n, h, o, tokens_in, tokens_out, cost,"
            " -cost AS amount FROM seed_use"
            " UNION ALL SELECT k, place, 1, 0, 0, 0, 0, 0, 0, (coin + out_coin) * 1000"
            " FROM seed_key"
            " UNION ALL SELECT k, place + 2, 2, 0, 0, 0, 0, 0, 0, -out_coin * 1000 FROM seed_key"
            " WHERE out_coin > 0"
        )
        credit = f"CASE WHEN k % {LIGHTNING_EVERY} = 1 THEN 'invoice:inv_' ELSE 'deposit:dep_' END"
        return (
            'INSERT INTO "transaction" (api_key_id, sequence, amount, balance_after, type,'
            " description, timestamp, request_data, operation_id)"
            f" SELECT {self._key_id('k')}, sequence, amount, balance_after,"
            " CASE kind WHEN 0 THEN 'usage' WHEN 1 THEN 'deposit' ELSE 'withdrawal' END,"
            f" CASE kind WHEN 0 THEN 'model-' || (h % {MODELS}) WHEN 1 THEN 'Cashu token' END,"
            f" {self._time('place')},"
            f" CASE WHEN kind = 0 THEN {self._json(self._said())} END,"
            f" CASE kind WHEN 0 THEN 'end:req_' || {self._hex('n', 32)}"
            f" WHEN 1 THEN {credit} || {self._hex('k + 1', 32)}"
            f" ELSE 'withdrawal:wd_' || {self._hex('k + 1', 32)} END"
            " FROM (SELECT e.*, row_number() OVER w AS sequence,"
            f" sum(amount) OVER w AS balance_after FROM ({events}) e"
            " WINDOW w AS (PARTITION BY k ORDER BY place)) x ORDER BY place"
        )

    def _said(self) -> str:
        """The `request_data` of a request."""
        failed = f"CASE WHEN o < {FREE_BELOW} THEN"
        numbers = {
            "cost_msat": "cost",
            "at_risk_msat": f"{failed} {HOLD_MSAT} ELSE 0 END",
            "attempts": "1",
            "ms": "200 + h / 19 % 90 * (h / 23 % 97)",
            "first_ms": "100 + h / 19 % 90 * (h / 23 % 7)",
            "added_us": "400 + h / 29 % 900 + CASE WHEN h % 200 = 0 THEN 20000 ELSE 0 END",
            "absorbed_msat": "0",
        }
        parts = "".join(f""" || ',"{name}":' || ({value})""" for name, value in numbers.items())
        child = f"""' || '"' || {self._child_id("k")} || '"'"""
        return (
            f"""'{{"outcome":"' || {self._outcome(1)} || '","evidence":"' || {self._outcome(2)}"""
            f""" || '","model":"model-' || (h % {MODELS}) || '","upstream":"upstream-' ||"""
            f""" (h / 31 % {UPSTREAMS}) || '","price_version":"seed",'"""
            """ || '"usage":{"input_tokens":' ||"""
            f""" ({failed} 0 ELSE tokens_in END) || ',"output_tokens":' || ({failed} 0 ELSE"""
            f""" tokens_out END) || '}}'{parts} || CASE WHEN cost > 0 THEN ',"upstream_msat":' ||"""
            f""" (cost * 10 / 11) ELSE '' END || CASE WHEN {self._is_childs()} THEN"""
            f""" ',"spender":{child} ELSE '' END || '}}'"""
        )
