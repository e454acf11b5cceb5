"""The statements of `make seed LEAN=1`: as many keys and rows as a node may ever have, quickly.

The books are whole, but the life is plain. One huge coin came to one account, which gave each key
its money by a transfer, in turn; then the keys buy in turn, each request for the same price. So
every number, balance and time follows from a row's place: nothing is looked up, sorted or summed.
"""

from collections.abc import Callable
from typing import Final

from bench.seed_rows import Sealed, Size, Writer
from routstr.ledger.engine import Dialect

COIN_SAT: Final = 1 << 40
GIVEN_MSAT: Final = 1_000_000
COST_MSAT: Final = 1_000
HOLD_MSAT: Final = 2_000
TOGETHER: Final = 50
ROWS_PER_KEY: Final = 2  # each is given its money by a pair


def lean_key_id(number: int) -> str:
    """The id of a key; they go by their age, as those that a node makes do."""
    return f"key_{number + 1:032x}"


def lean_key_hash(number: int) -> str:
    """The hash by which a request finds it: scattered, as hashes are."""
    return f"{(number + 1) * 2654435761 % 2**32:08x}{number + 1:056x}"


class LeanWriter(Writer):
    """SQL for one engine."""

    def __init__(self, dialect: Dialect, size: Size, sealed: Sealed) -> None:
        """For books of that size; `size.requests` is how many were bought."""
        super().__init__(dialect, size, sealed)
        self._keys, self._requests = size.keys, size.requests

    def _at(self, place: str) -> str:
        """When the event of that place is: first the keys', then the requests'."""
        size = self._size
        places = size.keys + size.requests + 1
        passed = f"CAST(({place}) AS bigint) * {size.end_ms - size.begin_ms} / {places}"
        ms = f"({size.begin_ms} + {passed})"
        if self._lite:
            form = "%Y-%m-%dT%H:%M:%f000+00:00"
            return f"strftime('{form}', {ms} / 1000.0, 'unixepoch')"
        return f"to_timestamp({ms} / 1000.0)"

    def _id(self, prefix: str, number: str) -> str:
        return f"'{prefix}' || {self._hex(f'{number} + 1', 32)}"

    def _key_hash(self, number: str) -> str:
        scattered = f"({number} + 1) * 2654435761 % 4294967296"
        return f"{self._hex(scattered, 8)} || {self._hex(f'{number} + 1', 56)}"

    def _numbered(self, last: int, at: Callable[[str], str]) -> str:
        """A FROM item: `n` from 0 to `last`, and `at`, a time that a few rows have in common."""
        fence = "LIMIT -1" if self._lite else "OFFSET 0"  # or it is made anew for each row
        times = f"SELECT n * {TOGETHER} AS first, {at(f'n * {TOGETHER}')} AS at"
        times += f" FROM {self._series(0, last // TOGETHER)} {fence}"
        return (
            f"(SELECT t.first + i.n AS n, t.at FROM ({times}) AS t CROSS JOIN"
            f" (SELECT n FROM {self._series(0, TOGETHER - 1)}) AS i"
            f" WHERE t.first + i.n <= {last}) AS made"
        )

    def work(self) -> dict[str, list[str]]:
        """Everything, by steps."""
        return {
            "keys": [self._all_keys()],
            "ecash": self._ecash(),
            "holds": [self._all_holds()],
            "chain": self._all_rows(),
        }

    def _all_keys(self) -> str:
        """The keys, and after them the account that gave."""
        keys, bought = self._keys, f"({self._requests} - n + {self._keys - 1}) / {self._keys}"
        giver = f"n = {keys}"
        spent = f"CASE WHEN {giver} THEN 0 ELSE {bought} * {COST_MSAT} END"
        names = (
            "id, key_hash, balance, reserved, total_deposited, total_spent, total_requests,"
            " created_at, first_used_at, last_used_at, version"
        )
        return (
            f"INSERT INTO apikey ({names}) SELECT {self._id('key_', 'n')}, {self._key_hash('n')},"
            f" CASE WHEN {giver} THEN {COIN_SAT * 1000 - keys * GIVEN_MSAT}"
            f" ELSE {GIVEN_MSAT} - {bought} * {COST_MSAT} END, 0,"
            f" CASE WHEN {giver} THEN {COIN_SAT * 1000} ELSE 0 END, {spent},"
            f" CASE WHEN {giver} THEN 0 ELSE {bought} END, at, at, at,"
            f" CASE WHEN {giver} THEN {keys} + 1 ELSE {bought} + 1 END"
            f" FROM {self._numbered(keys, self._at)}"
        )

    def _ecash(self) -> list[str]:
        sealed, at, giver = self._sealed, self._at("0"), self._id("key_", str(self._keys))
        dep, op = (f"'{kind}_{1:032x}'" for kind in ("dep", "op"))
        y, b_ = f"'03{1:064x}'", f"'02{1:064x}'"
        return [
            "INSERT INTO deposit (id, api_key_id, state, source, mint_url, unit, face_amount,"
            " credit_msat, created_at, credited_at, is_locked) SELECT"
            f" {dep}, {giver}, 'credited', 'cashu', '{sealed.mint_url}', 'sat', {COIN_SAT},"
            f" {COIN_SAT * 1000}, {at}, {at}, false",
            f"INSERT INTO deposit_input (y, deposit_id) SELECT '02{1:064x}', {dep}",
            "INSERT INTO mint_operation (id, kind, state, mint_id, unit, request, input_amount,"
            " fee_amount, deposit_id, attempts, next_attempt_at, created_at, ended_at)"
            f" SELECT {op}, 'receive', 'done', '{sealed.mint_id}', 'sat', '{sealed.request}',"
            f" {COIN_SAT}, 0, {dep}, 1, {at}, {at}, {at}",
            "INSERT INTO mint_output (operation_id, position, keyset_id, counter, amount, b_,"
            f" purpose) SELECT {op}, 0, '{sealed.keyset_id}', 0, {COIN_SAT}, {b_}, 'keep'",
            "INSERT INTO proof (y, keyset_id, counter, amount, secret, c, state, operation_id)"
            f" SELECT {y}, '{sealed.keyset_id}', 0, {COIN_SAT}, '{sealed.secret}', {b_},"
            f" 'unspent', {op}",
        ]

    def _all_holds(self) -> str:
        keys = self._keys
        snapshot = self._json("""'{"model_id":"model-1","price_version":"seed"}'""")
        made = self._numbered(self._requests - 1, lambda n: self._at(f"({keys} + {n} + 1)"))
        return (
            "INSERT INTO reservation (id, api_key_id, amount, quote_amount, settled_amount, state,"
            " price_snapshot, owner, deadline, created_at, ended_at)"
            f" SELECT {self._id('req_', 'n')}, {self._id('key_', f'n % {keys}')},"
            f" {HOLD_MSAT}, {HOLD_MSAT}, {COST_MSAT}, 'settled', {snapshot}, 'seed', at,"
            f" at, at FROM {made}"
        )

    def _all_rows(self) -> list[str]:
        keys, giver = self._keys, self._id("key_", str(self._keys))
        insert = (
            'INSERT INTO "transaction" (api_key_id, sequence, amount, balance_after, type,'
            " description, timestamp, request_data, operation_id) SELECT "
        )
        nothing = self._json("NULL")
        said = self._json(
            """'{"outcome":"completed_no_usage","evidence":"estimated","model":"model-1",'"""
            f""" || '"upstream":"upstream-1","cost_msat":{COST_MSAT}}}'"""
        )
        made = self._numbered(self._requests - 1, lambda n: self._at(f"({keys} + {n} + 1)"))
        # In pairs, out before in; a pair's time is when its key was made.
        is_out, of = "n % 2 = 0", "(n / 2)"
        return [
            f"{insert}{giver}, 1, {COIN_SAT * 1000}, {COIN_SAT * 1000}, 'deposit', 'Cashu token',"
            f" {self._at('0')}, {nothing}, 'deposit:dep_{1:032x}'",
            f"{insert}CASE WHEN {is_out} THEN {giver} ELSE {self._id('key_', of)} END,"
            f" CASE WHEN {is_out} THEN {of} + 2 ELSE 1 END,"
            f" CASE WHEN {is_out} THEN -{GIVEN_MSAT} ELSE {GIVEN_MSAT} END,"
            f" CASE WHEN {is_out} THEN {COIN_SAT * 1000} - ({of} + 1) * {GIVEN_MSAT}"
            f" ELSE {GIVEN_MSAT} END, CASE WHEN {is_out} THEN 'transfer_out' ELSE 'transfer_in'"
            f" END, NULL, at, {nothing}, 'transfer:' || {self._hex(f'{of} + 1', 32)}"
            f" || CASE WHEN {is_out} THEN ':out' ELSE ':in' END"
            f" FROM {self._numbered(2 * keys - 1, lambda n: self._at(f'({n}) / 2'))}",
            f"{insert}{self._id('key_', f'n % {keys}')}, n / {keys} + 2, -{COST_MSAT},"
            f" {GIVEN_MSAT} - (n / {keys} + 1) * {COST_MSAT}, 'usage', 'model-1',"
            f" at, {said}, {self._id('end:req_', 'n')} FROM {made}",
        ]
