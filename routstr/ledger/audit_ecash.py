"""The invariants of guarantees, section 3, that are about ecash; more of `audit_queries`.

What the node holds at a mint changed by done operations alone: `receive`, `mint` and `restore`
brought their inputs less the fee, `swap` and `redeem` cost their fee, a `melt` what it paid and its
true fee. Locked deposits brought their face value, tokens given out took theirs, and what a mint
went back on is `lost`.
"""

from typing import Final

ISSUED: Final = "('completed', 'claimed', 'reclaimed')"
HELD: Final = "('unspent', 'reserved', 'locked')"
OPEN: Final = "state NOT IN ('done', 'failed')"


def msat(amount: str, unit: str) -> str:
    """An amount of a mint's unit as msat."""
    return f"{amount} * CASE {unit} WHEN 'sat' THEN 1000 ELSE 1 END"


# What is held of each keyset, by state and in its unit. Each sum looks only at the coins it is of,
# in the index they are kept by: not at those that were spent, of which there are ever more.
PURSES: Final = """
SELECT ks.id AS keyset_id, ks.mint_id, ks.unit, s.state,
  (SELECT coalesce(sum(p.amount), 0) FROM proof p
    WHERE p.keyset_id = ks.id AND p.state = s.state) AS amount
FROM keyset ks CROSS JOIN (SELECT 'unspent' AS state UNION ALL SELECT 'reserved'
  UNION ALL SELECT 'locked' UNION ALL SELECT 'issued') AS s
"""


def units(amount: str, unit: str) -> str:
    """An amount in msat as whole units of a mint."""
    return f"{amount} / CASE {unit} WHEN 'sat' THEN 1000 ELSE 1 END"


OPERATIONS_CONSERVE: Final = """
SELECT op.id FROM operations op JOIN (
  SELECT operation_id, sum(amount) AS total FROM mint_output GROUP BY operation_id
) o ON o.operation_id = op.id
WHERE op.kind IN ('receive', 'redeem', 'swap') AND o.total <> op.input_amount - op.fee_amount
"""
HELD_EXACTLY: Final = f"""
SELECT mint_id || '/' || unit AS id FROM (
  SELECT ks.mint_id, ks.unit, sum(p.amount) AS moved FROM proof p
  JOIN keyset ks ON ks.id = p.keyset_id
  WHERE p.state IN {HELD} OR p.state = 'lost' GROUP BY ks.mint_id, ks.unit
  UNION ALL
  SELECT mint_id, unit, sum(CASE WHEN kind IN ('swap', 'redeem') THEN fee_amount
    ELSE fee_amount - input_amount END)
  FROM mint_operation WHERE state = 'done' AND kind <> 'melt' GROUP BY mint_id, unit
  UNION ALL
  SELECT op.mint_id, op.unit, sum(op.fee_amount + {units("w.amount", "w.unit")})
  FROM mint_operation op JOIN withdrawal w ON w.id = op.withdrawal_id
  WHERE op.state = 'done' AND op.kind = 'melt' GROUP BY op.mint_id, op.unit
  UNION ALL
  SELECT m.id, d.unit, -sum(d.face_amount) FROM deposit d JOIN mint m ON m.url = d.mint_url
  WHERE d.is_locked AND d.state = 'credited' GROUP BY m.id, d.unit
  UNION ALL
  SELECT m.id, w.unit, sum({units("w.amount", "w.unit")})
  FROM withdrawal w JOIN mint m ON m.url = w.mint_url
  WHERE w.way = 'token' AND w.status IN {ISSUED} GROUP BY m.id, w.unit
) x GROUP BY mint_id, unit HAVING sum(moved) <> 0
"""
MELT_EXACTLY: Final = f"""
SELECT op.id FROM operations op JOIN withdrawal w ON w.id = op.withdrawal_id LEFT JOIN (
  SELECT o.operation_id, sum(p.amount) AS total FROM mint_output o
  JOIN proof p ON p.keyset_id = o.keyset_id AND p.counter = o.counter GROUP BY o.operation_id
) c ON c.operation_id = op.id
WHERE op.kind = 'melt' AND op.state = 'done' AND (w.way <> 'lightning' OR w.status <> 'completed'
  OR op.input_amount - coalesce(c.total, 0) <> op.fee_amount + {units("w.amount", "w.unit")}
  OR w.fee_amount - w.fee_returned <> CASE WHEN {msat("op.fee_amount", "op.unit")} > w.fee_amount
    THEN w.fee_amount ELSE {msat("op.fee_amount", "op.unit")} END)
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
WHERE coalesce(g.given, 0) <> CASE WHEN w.way = 'token' AND w.status IN {ISSUED}
  THEN w.amount ELSE 0 END
UNION ALL
SELECT p.y FROM proof p LEFT JOIN withdrawal w ON w.id = p.withdrawal_id
WHERE p.state = 'issued' AND (w.id IS NULL OR w.status <> 'completed')
"""
INPUTS_RESERVED: Final = f"""
SELECT op.id FROM mint_operation op LEFT JOIN (
  SELECT operation_id, sum(amount) AS total FROM proof WHERE state = 'reserved'
  GROUP BY operation_id
) p ON p.operation_id = op.id
WHERE op.kind IN ('swap', 'redeem', 'melt') AND op.{OPEN}
  AND coalesce(p.total, 0) <> op.input_amount
  AND NOT EXISTS (SELECT 1 FROM mint_operation s WHERE s.predecessor_id = op.id AND s.{OPEN})
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
  SELECT deposit_id, count(*) AS n,
    sum({msat("(input_amount - fee_amount)", "unit")}) AS net
  FROM operations WHERE state = 'done' GROUP BY deposit_id
) s ON s.deposit_id = d.id
WHERE d.state <> 'credited' AND (t.id IS NOT NULL OR s.n IS NOT NULL)
  OR d.state = 'credited' AND (t.id IS NULL OR t.amount <> d.credit_msat
    OR t.api_key_id <> d.api_key_id)
  OR d.state = 'credited' AND NOT d.is_locked AND (coalesce(s.n, 0) <> 1 OR s.net <> d.credit_msat)
"""
LOCKED_IS_ATOMIC: Final = f"""
SELECT d.id FROM deposits d LEFT JOIN (
  SELECT i.deposit_id, count(*) AS inputs, count(p.y) AS n, sum(p.amount) AS total
  FROM deposit_input i LEFT JOIN proof p ON p.y = i.y AND p.lock_key IS NOT NULL
  GROUP BY i.deposit_id
) k ON k.deposit_id = d.id
WHERE d.is_locked AND (d.state <> 'credited' OR k.inputs IS NULL OR k.n <> k.inputs
  OR k.total <> d.face_amount OR d.credit_msat > {msat("d.face_amount", "d.unit")})
UNION ALL
SELECT p.y FROM proof p LEFT JOIN deposit_input i ON i.y = p.y
WHERE p.lock_key IS NOT NULL AND i.y IS NULL
"""
INVOICE_IS_ATOMIC: Final = f"""
SELECT i.id FROM lightning_invoice i LEFT JOIN (
  SELECT lightning_invoice_id, count(*) AS n,
    sum({msat("(input_amount - fee_amount)", "unit")}) AS net
  FROM mint_operation WHERE state = 'done' AND kind = 'mint' GROUP BY lightning_invoice_id
) s ON s.lightning_invoice_id = i.id
WHERE coalesce(s.net, 0) <> CASE i.status WHEN 'paid' THEN i.credit_msat ELSE 0 END
  OR i.status = 'paid' AND s.n <> 1
  OR i.status = 'settlement_pending' AND NOT EXISTS (
    SELECT 1 FROM mint_operation WHERE lightning_invoice_id = i.id AND {OPEN})
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
SELECT id FROM withdrawals WHERE status = 'completed' AND way = 'token' AND token IS NULL
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
