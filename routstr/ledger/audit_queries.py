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

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.audit_ecash import (
    BACKING,
    CREDIT_IS_ATOMIC,
    HELD_EXACTLY,
    INPUTS_OF_DEPOSITS,
    INPUTS_RESERVED,
    INVOICE_IS_ATOMIC,
    ISSUED_EXACTLY,
    LOCKED_IS_ATOMIC,
    MELT_EXACTLY,
    OPEN,
    OPERATIONS_CONSERVE,
    OPERATIONS_OVERDUE,
    OUTPUTS_ONCE,
    REFUND_HAS_PROOF,
    RESERVED_IS_IN_USE,
    SIGNED_IS_STORED,
    STORED_WAS_SIGNED,
    WITHDRAWAL_KEPT,
    Y_FORM,
)
from routstr.ledger.audit_teams import (
    CAPS,
    CHILD_FEES,
    CHILD_HAS_NOTHING,
    CHILD_HOLDS,
    CHILD_TOTALS,
    SPENDERS,
)
from routstr.ledger.columns import UtcTime
from routstr.ledger.engine import Dialect

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
    OR status = 'pending' OR completed_at >= :since OR status = 'completed' AND way = 'token'
    OR id IN (SELECT substr(operation_id, 8) FROM recent WHERE type = 'refund')),
  operations AS (SELECT * FROM mint_operation WHERE {OPEN}
    UNION ALL SELECT * FROM mint_operation WHERE NOT ({OPEN})
      AND (deposit_id IN (SELECT id FROM deposits) OR ended_at >= :since
        OR withdrawal_id IN (SELECT id FROM withdrawals)))
"""


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
DEPOSIT_ROWS: Final = f"""
SELECT t.operation_id AS id FROM recent t
LEFT JOIN deposit d ON t.operation_id LIKE 'deposit:%' AND d.id = substr(t.operation_id, 9)
  AND d.state = 'credited' AND d.api_key_id = t.api_key_id
LEFT JOIN lightning_invoice i ON t.operation_id LIKE 'invoice:%'
  AND i.id = substr(t.operation_id, 9) AND i.status = 'paid' AND i.api_key_id = t.api_key_id
WHERE t.type = 'deposit' AND t.amount <> coalesce(d.credit_msat, i.credit_msat, 0)
  AND NOT (t.operation_id LIKE 'profit:%' AND t.api_key_id = '{OWNER_KEY_ID}' AND t.amount > 0)
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
LEFT JOIN withdrawal p ON t.operation_id LIKE 'fee-refund:%' AND p.id = substr(t.operation_id, 12)
  AND p.api_key_id = t.api_key_id
WHERE t.type = 'refund' AND NOT coalesce(
  w.status = 'failed' AND t.amount = w.amount
    + CASE w.way WHEN 'lightning' THEN w.fee_returned ELSE w.fee_amount END
  OR w.status = 'reclaimed' AND t.amount > 0 AND t.amount <= w.amount, false)
  AND NOT coalesce(p.status = 'completed' AND t.amount = p.fee_returned, false)
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'refund' AND t.operation_id = 'fee-refund:' || w.id
WHERE w.fee_returned <> 0 AND w.status = 'completed' AND t.id IS NULL
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'refund' AND t.operation_id = 'refund:' || w.id
WHERE w.status IN ('failed', 'reclaimed') AND t.id IS NULL
"""
FEE_ROWS: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN withdrawal w ON t.operation_id LIKE 'withdrawal-fee:%'
  AND w.id = substr(t.operation_id, 16) AND w.api_key_id = t.api_key_id
WHERE t.type = 'fee' AND t.operation_id NOT LIKE 'child-key:%'
  AND (w.id IS NULL OR -t.amount <> w.fee_amount)
UNION ALL
SELECT w.id FROM withdrawals w
LEFT JOIN "transaction" t ON t.type = 'fee' AND t.operation_id = 'withdrawal-fee:' || w.id
WHERE w.fee_amount <> 0 AND t.id IS NULL
"""
EXPIRY_ROWS: Final = f"""
SELECT t.operation_id AS id FROM recent t JOIN apikey k ON k.id = t.api_key_id
WHERE t.type = 'expiry' AND (t.amount >= 0 OR t.balance_after <> 0
  OR k.parent_id IS NOT NULL OR k.id = '{OWNER_KEY_ID}'
  OR t.operation_id <> 'expiry:' || t.api_key_id || ':' || t.sequence)
"""
TOTALS: Final = """
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT api_key_id, sum(CASE type WHEN 'deposit' THEN amount ELSE 0 END) AS deposited,
    sum(CASE type WHEN 'usage' THEN -amount ELSE 0 END) AS spent,
    sum(CASE WHEN type = 'usage' AND amount < 0 THEN 1 ELSE 0 END) AS requests
  FROM "transaction" WHERE api_key_id IN (SELECT id FROM touched) GROUP BY api_key_id
) t ON t.api_key_id = k.id
WHERE k.id IN (SELECT id FROM touched) AND k.parent_id IS NULL
  AND (k.total_deposited <> coalesce(t.deposited, 0)
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
# Grouped by an expression: by the column itself SQLite would go through the index of all holds that
# ever were, instead of that of the few that live.
RESERVED_IS_HELD: Final = """
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT api_key_id || '' AS key_id, sum(amount) AS held, count(*) AS n
  FROM reservation WHERE state = 'held' GROUP BY api_key_id || ''
) h ON h.key_id = k.id
WHERE k.id IN (SELECT id FROM touched) AND k.parent_id IS NULL
  AND (k.reserved <> coalesce(h.held, 0) OR k.running <> coalesce(h.n, 0))
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
# On PostgreSQL a partition is unique by itself only: each id is in the table that is so as a whole.
NOTED: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN transaction_operation o ON o.operation_id = t.operation_id WHERE o.operation_id IS NULL
"""
DUPLICATES: Final = """
SELECT operation_id AS id FROM recent GROUP BY operation_id HAVING count(*) > 1
UNION ALL SELECT i.scope FROM idempotency i LEFT JOIN (
    SELECT id, state, coalesce(spender_id, api_key_id) || ' ' AS owner FROM reservation
  ) r ON r.id = i.reservation_id
  WHERE i.answer_expires_at IS NOT NULL AND (r.id IS NULL OR r.state IN ('held', 'expired')
    OR substr(i.scope, 1, length(r.owner)) <> r.owner)
UNION ALL SELECT min(id) FROM deposit WHERE idempotency_key IS NOT NULL
  GROUP BY api_key_id, idempotency_key HAVING api_key_id IS NOT NULL AND count(*) > 1
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
    is_parted = dialect == "postgresql"
    overdue = [("I-8", OPERATIONS_OVERDUE), ("I-9", HOLDS_OVERDUE)] if is_running else []
    return [
        *(("I-1", query) for query in (BALANCE_IS_SUM, TRANSFERS_PAIR)),
        *(("I-2", query) for query in (DEPOSIT_ROWS, PAID_INVOICES, USAGE_ROWS, WITHDRAWAL_ROWS)),
        *(("I-2", query) for query in (REFUND_ROWS, FEE_ROWS, EXPIRY_ROWS, TOTALS)),
        *(("I-3", query) for query in (OPERATIONS_CONSERVE, HELD_EXACTLY, BACKING)),
        *(("I-3", query) for query in (ISSUED_EXACTLY, INPUTS_RESERVED, MELT_EXACTLY)),
        *(("I-2", query) for query in (CHILD_TOTALS, CHILD_FEES, SPENDERS)),
        *(("I-4", query) for query in (NEVER_NEGATIVE, RESERVED_IS_HELD)),
        *(("I-4", query) for query in (CHILD_HAS_NOTHING, CAPS, CHILD_HOLDS)),
        *(("I-5", query) for query in (CHAIN, HEAD)),
        *(("I-6", query) for query in (INPUTS_OF_DEPOSITS, Y_FORM[dialect])),
        *(("I-7", query) for query in (CREDIT_IS_ATOMIC, LOCKED_IS_ATOMIC, INVOICE_IS_ATOMIC)),
        *(("I-8", query) for query in (SIGNED_IS_STORED, STORED_WAS_SIGNED, RESERVED_IS_IN_USE)),
        ("I-9", HOLDS_END_ONCE),
        ("I-10", REFUND_HAS_PROOF),
        ("I-11", WITHDRAWAL_KEPT),
        ("I-12", OUTPUTS_ONCE),
        *(("I-15", query) for query in ((DUPLICATES, NOTED) if is_parted else (DUPLICATES,))),
        ("I-18", EXPOSURE),
        *overdue,
    ]
