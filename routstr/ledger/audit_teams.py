"""What the audit asks of child keys, caps and counters; as in `audit_queries.py`.

A child's figures are those of the holds it is the spender of, as a parent's are those of its chain:
`touched` has the parents, whose chains the children's requests are on.
"""

from typing import Final

MY_CHILDREN: Final = "SELECT id FROM apikey WHERE parent_id IN (SELECT id FROM touched)"

CHILD_TOTALS: Final = f"""
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT spender_id, sum(settled_amount) AS spent,
    sum(CASE WHEN settled_amount > 0 THEN 1 ELSE 0 END) AS requests
  FROM reservation WHERE spender_id IN ({MY_CHILDREN}) GROUP BY spender_id
) r ON r.spender_id = k.id
WHERE k.parent_id IN (SELECT id FROM touched) AND (k.total_deposited <> 0
  OR k.total_spent <> coalesce(r.spent, 0) OR k.total_requests <> coalesce(r.requests, 0))
"""
CHILD_FEES: Final = """
SELECT t.operation_id AS id FROM recent t
LEFT JOIN apikey c ON c.id = substr(t.operation_id, 11) AND c.parent_id = t.api_key_id
WHERE t.type = 'fee' AND t.operation_id LIKE 'child-key:%'
  AND (c.id IS NULL OR -t.amount <> c.opening_fee)
UNION ALL
SELECT c.id FROM apikey c
LEFT JOIN "transaction" t ON t.type = 'fee' AND t.operation_id = 'child-key:' || c.id
WHERE c.parent_id IN (SELECT id FROM touched) AND c.opening_fee <> 0 AND t.id IS NULL
"""
SPENDERS: Final = """
SELECT r.id FROM holds r JOIN apikey c ON c.id = r.spender_id
WHERE c.parent_id IS NULL OR c.parent_id <> r.api_key_id
UNION ALL
SELECT t.operation_id FROM recent t JOIN reservation r ON r.id = substr(t.operation_id, 5)
WHERE t.type = 'usage'
  AND coalesce(t.request_data ->> 'spender', '') <> coalesce(r.spender_id, '')
"""
CHILD_HAS_NOTHING: Final = """
SELECT k.id FROM apikey k JOIN apikey p ON p.id = k.parent_id
WHERE p.id IN (SELECT id FROM touched) AND (p.parent_id IS NOT NULL
  OR k.balance <> 0 OR k.reserved <> 0 OR k.version <> 0)
"""
CAPS: Final = """
SELECT id FROM apikey WHERE limit_base < 0 OR limit_base > total_spent OR limit_held < 0
  OR limit_held <> 0 AND parent_id IS NULL
"""
CHILD_HOLDS: Final = f"""
SELECT k.id FROM apikey k LEFT JOIN (
  SELECT spender_id, sum(amount) AS held, count(*) AS n FROM reservation
  WHERE state = 'held' AND spender_id IN ({MY_CHILDREN}) GROUP BY spender_id
) h ON h.spender_id = k.id
WHERE k.parent_id IN (SELECT id FROM touched)
  AND (k.limit_held <> coalesce(h.held, 0) OR k.running <> coalesce(h.n, 0))
"""
