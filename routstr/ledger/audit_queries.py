"""The invariants of guarantees, section 3, as queries: each yields the `id` of every breach.

They run on both engines. They read through six names that a `Window` defines: `recent` (rows of
`transaction`), `touched` (keys), `holds`, `deposits`, `withdrawals` and `operations`. A full audit
defines them as everything, a fast one as what is open or has moved since the last clean run.

Columns: `transaction`, `apikey`, `reservation`, `withdrawal` and `deposit.credit_msat` are msat;
proofs, outputs and operations are in their mint's unit.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from sqlalchemy import TextClause, bindparam, text

from routstr.ledger.columns import UtcTime
from routstr.ledger.engine import Dialect

ISSUED: Final = "('completed', 'claimed', 'reclaimed')"
HELD: Final = "('unspent', 'reserved', 'locked')"
OPEN: Final = "state NOT IN ('done', 'failed')"

FULL_SCOPE: Final = """
WITH recent AS NOT MATERIALIZED (SELECT * FROM "transaction"),
  touched AS NOT MATERIALIZED (SELECT id FROM apikey),
  holds AS NOT MATERIALIZED (SELECT * FROM reservation),
  deposits AS NOT MATERIALIZED (SELECT * FROM deposit),
  withdrawals AS NOT MATERIALIZED (SELECT * FROM withdrawal),
  operations AS NOT MATERIALIZED (SELECT * FROM mint_operation)
"""
FAST_SCOPE: Final = f"""
WITH recent AS (SELECT * FROM "transaction" WHERE timestamp >= :since),
  touched AS (SELECT api_key_id AS id FROM recent
    UNION SELECT api_key_id FROM reservation WHERE state = 'held'),
  holds AS (SELECT * FROM reservation WHERE state = 'held'
    UNION ALL SELECT * FROM reservation WHERE state <> 'held'
      AND id IN (SELECT substr(operation_id, 5) FROM recent WHERE type = 'usage')),
  deposits AS (SELECT * FROM deposit WHERE created_at >= :since
    OR id IN (SELECT substr(operation_id, 9) FROM recent WHERE type = 'deposit')
    OR id IN (SELECT deposit_id FROM mint_operation WHERE {OPEN})),
  withdrawals AS (SELECT * FROM withdrawal WHERE created_at >= :since
    OR status IN ('pending', 'completed')
    OR id IN (SELECT substr(operation_id, 8) FROM recent WHERE type = 'refund')),
  operations AS (SELECT * FROM mint_operation WHERE {OPEN}
    UNION ALL SELECT * FROM mint_operation WHERE NOT ({OPEN})
      AND (deposit_id IN (SELECT id FROM deposits)
        OR withdrawal_id IN (SELECT id FROM withdrawals)))
"""


def msat(amount: str, unit: str) -> str:
    """An amount of a mint's unit as msat."""
    return f"{amount} * CASE {unit} WHEN 'sat' THEN 1000 ELSE 1 END"


# ── the book ──────────────────────────────────────────────────────────────────────────────────

BALANCE_IS_SUM: Final = """
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT api_key_id, sum(amount) AS total FROM "transaction"
  WHERE api_key_id IN (SELECT id FROM touched) GROUP BY api_key_id
) t ON t.api_key_id = k.id
WHERE k.id IN (SELECT id FROM touched) AND k.balance <> coalesce(t.total, 0)
"""
TRANSFERS_PAIR: Final = r"""
SELECT o.operation_id AS id FROM recent o LEFT JOIN "transaction" i ON i.type = 'transfer_in'
  AND i.operation_id = substr(o.operation_id, 1, length(o.operation_id) - 3) || 'in'
WHERE o.type = 'transfer_out' AND (i.id IS NULL OR i.amount + o.amount <> 0 OR o.amount >= 0)
UNION ALL
SELECT i.operation_id FROM recent i LEFT JOIN "transaction" o ON o.type = 'transfer_out'
  AND o.operation_id = substr(i.operation_id, 1, length(i.operation_id) - 2) || 'out'
WHERE i.type = 'transfer_in' AND o.id IS NULL
"""
DEPOSIT_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN deposit d ON t.operation_id LIKE 'deposit:%' AND d.id = substr(t.operation_id, 9)
  AND d.state = 'credited' AND d.api_key_id = t.api_key_id
LEFT JOIN lightning_invoice i ON t.operation_id LIKE 'invoice:%'
  AND i.id = substr(t.operation_id, 9) AND i.status = 'paid' AND i.api_key_id = t.api_key_id
WHERE t.type = 'deposit' AND t.amount <> coalesce(d.credit_msat, i.credit_msat, 0)
"""
PAID_INVOICES: Final = """
SELECT i.id FROM lightning_invoice i
LEFT JOIN "transaction" t ON t.type = 'deposit' AND t.operation_id = 'invoice:' || i.id
WHERE i.status = 'paid' AND t.id IS NULL
"""
USAGE_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN reservation r ON t.operation_id LIKE 'end:%' AND r.id = substr(t.operation_id, 5)
  AND r.api_key_id = t.api_key_id
WHERE t.type = 'usage' AND (r.id IS NULL OR t.amount > 0
  OR -t.amount <> coalesce(r.settled_amount, -1))
"""
WITHDRAWAL_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN withdrawal w ON t.operation_id LIKE 'withdrawal:%' AND w.id = substr(t.operation_id, 12)
  AND w.api_key_id = t.api_key_id
WHERE t.type = 'withdrawal' AND (w.id IS NULL OR -t.amount <> w.amount)
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'withdrawal' AND t.operation_id = 'withdrawal:' || w.id
WHERE t.id IS NULL
"""
REFUND_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN withdrawal w ON t.operation_id LIKE 'refund:%' AND w.id = substr(t.operation_id, 8)
  AND w.api_key_id = t.api_key_id
WHERE t.type = 'refund' AND NOT coalesce(
  w.status = 'failed' AND t.amount = w.amount + w.fee_amount
  OR w.status = 'reclaimed' AND t.amount > 0 AND t.amount <= w.amount, false)
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'refund' AND t.operation_id = 'refund:' || w.id
WHERE w.status IN ('failed', 'reclaimed') AND t.id IS NULL
"""
FEE_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN withdrawal w ON t.operation_id LIKE 'withdrawal-fee:%'
  AND w.id = substr(t.operation_id, 16) AND w.api_key_id = t.api_key_id
WHERE t.type = 'fee' AND (w.id IS NULL OR -t.amount <> w.fee_amount)
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'fee' AND t.operation_id = 'withdrawal-fee:' || w.id
WHERE w.fee_amount <> 0 AND t.id IS NULL
"""
EXPIRY_ROWS: Final = """
SELECT operation_id AS id FROM recent WHERE type = 'expiry'
  AND (amount > 0 OR substr(operation_id, 8, length(api_key_id)) <> api_key_id)
"""
TOTALS: Final = """
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT api_key_id, sum(CASE type WHEN 'deposit' THEN amount ELSE 0 END) AS deposited,
    sum(CASE type WHEN 'usage' THEN -amount ELSE 0 END) AS spent,
    sum(CASE WHEN type = 'usage' AND amount < 0 THEN 1 ELSE 0 END) AS requests
  FROM "transaction" WHERE api_key_id IN (SELECT id FROM touched) GROUP BY api_key_id
) t ON t.api_key_id = k.id
WHERE k.id IN (SELECT id FROM touched) AND (k.total_deposited <> coalesce(t.deposited, 0)
  OR k.total_spent <> coalesce(t.spent, 0) OR k.total_requests <> coalesce(t.requests, 0))
"""
NEVER_NEGATIVE: Final = """
SELECT id FROM apikey WHERE id IN (SELECT id FROM touched)
  AND (balance < 0 OR reserved < 0 OR reserved > balance)
UNION ALL SELECT y FROM proof WHERE amount <= 0
UNION ALL SELECT operation_id FROM mint_output WHERE amount <= 0
UNION ALL SELECT id FROM operations WHERE input_amount <= 0 OR fee_amount < 0
UNION ALL SELECT id FROM deposits WHERE face_amount <= 0 OR credit_msat <= 0
"""
RESERVED_IS_HELD: Final = """
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT api_key_id, sum(amount) AS held FROM reservation WHERE state = 'held' GROUP BY api_key_id
) h ON h.api_key_id = k.id
WHERE k.id IN (SELECT id FROM touched) AND k.reserved <> coalesce(h.held, 0)
"""
CHAIN: Final = """
SELECT api_key_id AS id FROM (
  SELECT api_key_id, sequence, balance_after, row_number() OVER w AS n,
    coalesce(lag(balance_after) OVER w, 0) + amount AS want
  FROM "transaction" WHERE api_key_id IN (SELECT id FROM touched)
  WINDOW w AS (PARTITION BY api_key_id ORDER BY sequence)) x
WHERE sequence <> n OR balance_after <> want
"""
HEAD: Final = """
SELECT k.id FROM apikey k
LEFT JOIN "transaction" t ON t.api_key_id = k.id AND t.sequence = k.version
WHERE k.balance <> coalesce(t.balance_after, 0) OR k.version <> coalesce(t.sequence, 0)
UNION ALL
SELECT k.id FROM apikey k JOIN "transaction" t ON t.api_key_id = k.id AND t.sequence = k.version + 1
"""
HOLDS_END_ONCE: Final = """
SELECT r.id FROM holds r
LEFT JOIN "transaction" t ON t.operation_id = 'end:' || r.id AND t.api_key_id = r.api_key_id
WHERE r.state = 'held' AND (t.id IS NOT NULL OR r.settled_amount IS NOT NULL)
  OR r.state <> 'held' AND (t.id IS NULL OR t.type <> 'usage' OR r.ended_at IS NULL
    OR r.settled_amount IS NULL OR r.settled_amount <> -t.amount OR r.settled_amount < 0
    OR r.settled_amount > r.amount OR r.settled_amount > r.quote_amount
    OR (r.state = 'settled') <> (r.settled_amount > 0))
"""
HOLDS_OVERDUE: Final = "SELECT id FROM reservation WHERE state = 'held' AND deadline < :late"
EXPOSURE: Final = """
SELECT 'node' AS id FROM (SELECT coalesce(sum(amount), 0) AS held FROM reservation
  WHERE state = 'held') h WHERE held > :held_msat_max
"""
DUPLICATES: Final = """
SELECT operation_id AS id FROM recent GROUP BY operation_id HAVING count(*) > 1
UNION ALL SELECT scope || '/' || key FROM idempotency GROUP BY scope, key HAVING count(*) > 1
UNION ALL SELECT min(id) FROM deposit WHERE idempotency_key IS NOT NULL
  GROUP BY api_key_id, idempotency_key HAVING api_key_id IS NOT NULL AND count(*) > 1
"""

# ── ecash ─────────────────────────────────────────────────────────────────────────────────────

OPERATIONS_CONSERVE: Final = """
SELECT op.id FROM operations op JOIN (
  SELECT operation_id, sum(amount) AS total FROM mint_output GROUP BY operation_id
) o ON o.operation_id = op.id
WHERE op.kind IN ('receive', 'redeem', 'swap') AND o.total <> op.input_amount - op.fee_amount
"""
HELD_EXACTLY: Final = f"""
SELECT mint_id || '/' || unit AS id FROM (
  SELECT ks.mint_id, ks.unit, sum(p.amount) AS moved FROM proof p
  JOIN keyset ks ON ks.id = p.keyset_id WHERE p.state IN {HELD} GROUP BY ks.mint_id, ks.unit
  UNION ALL
  SELECT ks.mint_id, ks.unit, sum(CASE op.kind WHEN 'swap' THEN op.fee_amount
    ELSE op.fee_amount - op.input_amount END)
  FROM mint_operation op JOIN mint_output o ON o.operation_id = op.id AND o.position = 0
  JOIN keyset ks ON ks.id = o.keyset_id
  WHERE op.state = 'done' AND op.kind <> 'melt' GROUP BY ks.mint_id, ks.unit
  UNION ALL
  SELECT m.id, w.unit, sum(w.amount / CASE w.unit WHEN 'sat' THEN 1000 ELSE 1 END)
  FROM withdrawal w JOIN mint m ON m.url = w.mint_url
  WHERE w.status IN {ISSUED} GROUP BY m.id, w.unit
) x GROUP BY mint_id, unit HAVING sum(moved) <> 0
"""
BACKING: Final = f"""
SELECT 'node' AS id FROM (SELECT
  (SELECT coalesce(sum({msat("p.amount", "ks.unit")}), 0) FROM proof p
    JOIN keyset ks ON ks.id = p.keyset_id WHERE p.state IN {HELD}) AS held,
  (SELECT coalesce(sum(balance), 0) FROM apikey) AS owed,
  (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending') AS pending
) x WHERE held < owed + pending
"""
ISSUED_EXACTLY: Final = f"""
SELECT w.id FROM withdrawals w LEFT JOIN (
  SELECT p.withdrawal_id, sum({msat("p.amount", "ks.unit")}) AS given FROM proof p
  JOIN keyset ks ON ks.id = p.keyset_id
  WHERE p.withdrawal_id IS NOT NULL AND p.state IN ('issued', 'spent') GROUP BY p.withdrawal_id
) g ON g.withdrawal_id = w.id
WHERE coalesce(g.given, 0) <> CASE WHEN w.status IN {ISSUED} THEN w.amount ELSE 0 END
UNION ALL
SELECT p.y FROM proof p LEFT JOIN withdrawal w ON w.id = p.withdrawal_id
WHERE p.state = 'issued' AND (w.id IS NULL OR w.status <> 'completed')
"""
INPUTS_RESERVED: Final = f"""
SELECT op.id FROM mint_operation op LEFT JOIN (
  SELECT operation_id, sum(amount) AS total FROM proof WHERE state = 'reserved'
  GROUP BY operation_id
) p ON p.operation_id = op.id
WHERE op.kind = 'swap' AND op.{OPEN} AND coalesce(p.total, 0) <> op.input_amount
"""
INPUTS_OF_DEPOSITS: Final = """
SELECT d.id FROM deposits d LEFT JOIN (
  SELECT deposit_id, count(*) AS n FROM deposit_input GROUP BY deposit_id
) i ON i.deposit_id = d.id
WHERE d.state = 'failed' AND i.n > 0 OR d.state <> 'failed' AND i.n IS NULL
"""
Y_FORM: Final = {
    "sqlite": "SELECT y AS id FROM deposit_input WHERE length(y) <> 66"
    " OR y GLOB '*[^0-9a-f]*' OR substr(y, 1, 2) NOT IN ('02', '03')",
    "postgresql": "SELECT y AS id FROM deposit_input WHERE y !~ '^0[23][0-9a-f]{64}$'",
}
CREDIT_IS_ATOMIC: Final = f"""
SELECT d.id FROM deposits d
LEFT JOIN "transaction" t ON t.operation_id = 'deposit:' || d.id AND t.type = 'deposit'
LEFT JOIN (
  SELECT op.deposit_id, count(*) AS n,
    sum({msat("(op.input_amount - op.fee_amount)", "ks.unit")}) AS net
  FROM operations op JOIN mint_output o ON o.operation_id = op.id AND o.position = 0
  JOIN keyset ks ON ks.id = o.keyset_id WHERE op.state = 'done' GROUP BY op.deposit_id
) s ON s.deposit_id = d.id
WHERE d.state <> 'credited' AND (t.id IS NOT NULL OR s.n IS NOT NULL)
  OR d.state = 'credited' AND (t.id IS NULL OR t.amount <> d.credit_msat
    OR t.api_key_id <> d.api_key_id OR coalesce(s.n, 0) <> 1 OR s.net <> d.credit_msat)
"""
SIGNED_IS_STORED: Final = """
SELECT op.id FROM operations op JOIN mint_output o ON o.operation_id = op.id
LEFT JOIN proof p ON p.keyset_id = o.keyset_id AND p.counter = o.counter AND p.amount = o.amount
WHERE op.state = 'done' AND op.kind <> 'melt' AND p.y IS NULL
"""
STORED_WAS_SIGNED: Final = """
SELECT p.y AS id FROM proof p
LEFT JOIN mint_output o ON o.keyset_id = p.keyset_id AND o.counter = p.counter
LEFT JOIN mint_operation op ON op.id = o.operation_id
WHERE p.counter IS NOT NULL AND coalesce(op.state, '') <> 'done'
"""
RESERVED_IS_IN_USE: Final = f"""
SELECT p.y AS id FROM proof p LEFT JOIN mint_operation op ON op.id = p.operation_id AND op.{OPEN}
WHERE p.state = 'reserved' AND op.id IS NULL
UNION ALL
SELECT d.id FROM deposits d WHERE d.state = 'pending'
  AND NOT EXISTS (SELECT 1 FROM mint_operation WHERE deposit_id = d.id AND {OPEN})
UNION ALL
SELECT w.id FROM withdrawals w WHERE w.status = 'pending'
  AND NOT EXISTS (SELECT 1 FROM mint_operation WHERE withdrawal_id = w.id AND {OPEN})
"""
OPERATIONS_OVERDUE: Final = f"""
SELECT id FROM mint_operation WHERE {OPEN} AND state <> 'waiting' AND next_attempt_at < :late
  AND (lease_until IS NULL OR lease_until < :late)
"""
REFUND_HAS_PROOF: Final = """
SELECT t.operation_id AS id FROM recent t JOIN withdrawal w ON w.id = substr(t.operation_id, 8)
WHERE t.type = 'refund' AND w.status = 'failed' AND (
    NOT EXISTS (SELECT 1 FROM mint_operation WHERE withdrawal_id = w.id AND state = 'failed'
      AND last_code IS NOT NULL)
    OR EXISTS (SELECT 1 FROM mint_operation WHERE withdrawal_id = w.id AND state <> 'failed'))
  OR t.type = 'refund' AND w.status = 'reclaimed' AND NOT EXISTS (
    SELECT 1 FROM mint_operation WHERE withdrawal_id = w.id AND kind = 'receive' AND state = 'done')
"""
WITHDRAWAL_KEPT: Final = """
SELECT id FROM withdrawals WHERE status = 'completed' AND token IS NULL
UNION ALL SELECT min(id) FROM withdrawal WHERE idempotency_key IS NOT NULL
  GROUP BY api_key_id, idempotency_key HAVING count(*) > 1
"""
OUTPUTS_ONCE: Final = """
SELECT min(operation_id) AS id FROM mint_output GROUP BY keyset_id, counter HAVING count(*) > 1
UNION ALL SELECT min(operation_id) FROM mint_output GROUP BY b_ HAVING count(*) > 1
UNION ALL SELECT ks.id FROM keyset ks WHERE ks.next_counter <= (
  SELECT max(counter) FROM mint_output WHERE keyset_id = ks.id)
UNION ALL SELECT ks.id FROM keyset ks WHERE ks.next_counter <= (
  SELECT max(counter) FROM proof WHERE keyset_id = ks.id)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What an audit looks at: all of it, or with `since` what is open or has moved since then.

    `late` is when something must have been done that is due; `held_msat_max` bounds all holds.
    """

    since: datetime | None
    late: datetime
    held_msat_max: int

    def statement(self, sql: str, **more: int | str) -> TextClause:
        """A SELECT over the six names of this module; `more` are further parameters."""
        full = _parsed((FAST_SCOPE if self.since else FULL_SCOPE) + sql)
        times = [
            bindparam(name, value, type_=UtcTime())
            for name, value in (("since", self.since), ("late", self.late))
            if f":{name}" in full.text
        ]
        if ":held_msat_max" in full.text:
            more["held_msat_max"] = self.held_msat_max
        return full.bindparams(*times, **more)


@cache  # the statements are few and long, and an audit may run often
def _parsed(sql: str) -> TextClause:
    return text(sql)


def money_queries(dialect: Dialect, *, is_running: bool) -> list[tuple[str, str]]:
    """(invariant, SELECT of `id` per breach); they bind `:held_msat_max` and `:late`.

    Without `is_running`, what only a living node can do in time is not asked for: a node that is
    stopped has a right to holds past their deadline and to operations nobody drives.
    """
    overdue = [("I-8", OPERATIONS_OVERDUE), ("I-9", HOLDS_OVERDUE)] if is_running else []
    return [
        *(("I-1", query) for query in (BALANCE_IS_SUM, TRANSFERS_PAIR)),
        *(("I-2", query) for query in (DEPOSIT_ROWS, PAID_INVOICES, USAGE_ROWS, WITHDRAWAL_ROWS)),
        *(("I-2", query) for query in (REFUND_ROWS, FEE_ROWS, EXPIRY_ROWS, TOTALS)),
        *(("I-3", query) for query in (OPERATIONS_CONSERVE, HELD_EXACTLY, BACKING)),
        *(("I-3", query) for query in (ISSUED_EXACTLY, INPUTS_RESERVED)),
        *(("I-4", query) for query in (NEVER_NEGATIVE, RESERVED_IS_HELD)),
        *(("I-5", query) for query in (CHAIN, HEAD)),
        *(("I-6", query) for query in (INPUTS_OF_DEPOSITS, Y_FORM[dialect])),
        ("I-7", CREDIT_IS_ATOMIC),
        *(("I-8", query) for query in (SIGNED_IS_STORED, STORED_WAS_SIGNED, RESERVED_IS_IN_USE)),
        ("I-9", HOLDS_END_ONCE),
        ("I-10", REFUND_HAS_PROOF),
        ("I-11", WITHDRAWAL_KEPT),
        ("I-12", OUTPUTS_ONCE),
        ("I-15", DUPLICATES),
        ("I-18", EXPOSURE),
        *overdue,
    ]
