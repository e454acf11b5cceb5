"""One wrong row for each invariant, with all that the audit must name for it, and nothing else."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """What somebody did to the rows that `live` made; `named` is what it breaks."""

    what: str
    named: str
    sql: str


CORRUPTIONS: Final = (
    Corruption(
        what="a balance",
        named="I-1 I-5",
        sql="UPDATE apikey SET balance = balance + 1 WHERE id = 'key_other'",
    ),
    Corruption(
        what="a pair",
        named="I-1",
        sql="UPDATE \"transaction\" SET operation_id = 'transfer:x:in' WHERE type = 'transfer_in'",
    ),
    Corruption(
        what="a transfer",
        named="I-1 I-5",
        sql="UPDATE \"transaction\" SET amount = amount - 1 WHERE type = 'transfer_out'",
    ),
    Corruption(
        what="a deposit row",
        named="I-2 I-7",
        sql="UPDATE \"transaction\" SET operation_id = 'deposit:x' WHERE operation_id = "
        "'deposit:dep_b'",
    ),
    Corruption(
        what="a usage row",
        named="I-2 I-9",
        sql="UPDATE \"transaction\" SET operation_id = 'end:x' WHERE operation_id = 'end:settled'",
    ),
    Corruption(
        what="a debit row",
        named="I-2",
        sql="UPDATE \"transaction\" SET operation_id = 'withdrawal:x' WHERE operation_id = "
        "'withdrawal:exact'",
    ),
    Corruption(
        what="a refund row",
        named="I-2",
        sql="UPDATE \"transaction\" SET operation_id = 'refund:x' WHERE operation_id = "
        "'refund:failed'",
    ),
    Corruption(
        what="a fee row",
        named="I-2",
        sql="UPDATE \"transaction\" SET operation_id = 'x' WHERE operation_id = "
        "'withdrawal-fee:swapped'",
    ),
    Corruption(
        what="an expiry row",
        named="I-2 I-9",
        sql="UPDATE \"transaction\" SET type = 'expiry' WHERE operation_id = 'end:released'",
    ),
    Corruption(
        what="total_spent",
        named="I-2",
        sql="UPDATE apikey SET total_spent = total_spent + 1 WHERE id = 'key_rich'",
    ),
    Corruption(
        what="total_deposited",
        named="I-2",
        sql="UPDATE apikey SET total_deposited = 0 WHERE id = 'key_rich'",
    ),
    Corruption(
        what="total_requests",
        named="I-2",
        sql="UPDATE apikey SET total_requests = 9 WHERE id = 'key_rich'",
    ),
    Corruption(
        what="a coin gone",
        named="I-3",
        sql="UPDATE proof SET state = 'spent' WHERE state = 'unspent'",
    ),
    Corruption(
        what="a coin made",
        named="I-3 I-8",
        sql="UPDATE proof SET amount = 1024 WHERE y = (SELECT min(y) FROM proof WHERE "
        "state = 'unspent')",
    ),
    Corruption(
        what="a coin given twice",
        named="I-3",
        sql="UPDATE proof SET withdrawal_id = NULL WHERE withdrawal_id = 'exact'",
    ),
    Corruption(
        what="an input kept",
        named="I-3",
        sql="UPDATE proof SET state = 'unspent' WHERE state = 'reserved'",
    ),
    Corruption(
        what="a fee hidden",
        named="I-3 I-7",
        sql="UPDATE mint_operation SET fee_amount = fee_amount + 1 WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="a hold forgotten",
        named="I-4",
        sql="UPDATE apikey SET reserved = 0 WHERE id = 'key_rich'",
    ),
    Corruption(
        what="a hold invented",
        named="I-4",
        sql="UPDATE apikey SET reserved = 7 WHERE id = 'key_other'",
    ),
    Corruption(
        what="no input",
        named="I-3 I-4 I-7",
        sql="UPDATE mint_operation SET input_amount = 0 WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="a row rewritten",
        named="I-5",
        sql='UPDATE "transaction" SET balance_after = balance_after + 1 WHERE '
        "operation_id = 'end:settled'",
    ),
    Corruption(
        what="a row removed",
        named="I-5 I-9",
        sql="DELETE FROM \"transaction\" WHERE operation_id = 'end:released'",
    ),
    Corruption(
        what="the last row removed",
        named="I-1 I-2 I-5",
        sql="DELETE FROM \"transaction\" WHERE operation_id = 'withdrawal-fee:pending'",
    ),
    Corruption(
        what="a version",
        named="I-5",
        sql="UPDATE apikey SET version = version - 1 WHERE id = 'key_other'",
    ),
    Corruption(
        what="a Y in capitals",
        named="I-6",
        sql="UPDATE deposit_input SET y = upper(y) WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="a credit of nothing",
        named="I-6",
        sql="DELETE FROM deposit_input WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="a Y kept from its owner",
        named="I-6",
        sql="UPDATE deposit_input SET deposit_id = 'dep_failed' WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="a credit without coins",
        named="I-3 I-7 I-8",
        sql="UPDATE mint_operation SET state = 'failed' WHERE deposit_id = 'dep_b'",
    ),
    Corruption(
        what="another credit",
        named="I-2 I-7",
        sql="UPDATE deposit SET credit_msat = credit_msat - 1 WHERE id = 'dep_b'",
    ),
    Corruption(
        what="coins without a credit",
        named="I-3 I-7 I-8",
        sql="UPDATE mint_operation SET state = 'done' WHERE deposit_id = 'dep_pending'",
    ),
    Corruption(
        what="signed, not stored",
        named="I-8 I-12",
        sql="UPDATE proof SET counter = counter + 1000 WHERE amount = 32",
    ),
    Corruption(
        what="reserved for nothing",
        named="I-3 I-8",
        sql="UPDATE proof SET operation_id = NULL WHERE state = 'reserved'",
    ),
    Corruption(
        what="a pending deposit nobody drives",
        named="I-8",
        sql="UPDATE mint_operation SET state = 'failed' WHERE deposit_id = 'dep_pending'",
    ),
    Corruption(
        what="a pending withdrawal nobody drives",
        named="I-8",
        sql="UPDATE mint_operation SET state = 'failed', last_code = '1' WHERE "
        "withdrawal_id = 'pending'",
    ),
    Corruption(
        what="an overdue operation",
        named="I-8",
        sql="UPDATE mint_operation SET next_attempt_at = "
        "'2020-01-01T00:00:00.000000+00:00', lease_until = NULL WHERE deposit_id = "
        "'dep_pending'",
    ),
    Corruption(
        what="an answer before its charge",
        named="I-15",
        sql="INSERT INTO idempotency (scope, key, reservation_id, fingerprint, answer,"
        " answer_expires_at, created_at, expires_at) SELECT 's', 'k', id, 'f', 'v1|a|b|c|d',"
        " created_at, created_at, created_at FROM reservation WHERE id = 'held'",
    ),
    Corruption(
        what="an answer that somebody else has paid for",
        named="I-15",
        sql="INSERT INTO idempotency (scope, key, reservation_id, fingerprint, answer,"
        " answer_expires_at, created_at, expires_at) SELECT 'key_other /chat/completions', 'k',"
        " id, 'f', 'v1|a|b|c|d', created_at, created_at, created_at FROM reservation"
        " WHERE id = 'settled'",
    ),
    Corruption(
        what="an overdue hold",
        named="I-9",
        sql="UPDATE reservation SET deadline = '2020-01-01T00:00:00.000000+00:00' WHERE "
        "id = 'held'",
    ),
    Corruption(
        what="an end without a charge",
        named="I-9",
        sql="UPDATE reservation SET state = 'released' WHERE id = 'settled'",
    ),
    Corruption(
        what="another charge",
        named="I-2 I-9",
        sql="UPDATE reservation SET settled_amount = 699 WHERE id = 'settled'",
    ),
    Corruption(
        what="a charge above the quote",
        named="I-9",
        sql="UPDATE reservation SET quote_amount = 1 WHERE id = 'settled'",
    ),
    Corruption(
        what="an ended hold revived",
        named="I-4 I-9",
        sql="UPDATE reservation SET state = 'held' WHERE id = 'released'",
    ),
    Corruption(
        what="a refund without a no",
        named="I-10",
        sql="UPDATE mint_operation SET last_code = NULL WHERE withdrawal_id = 'failed'",
    ),
    Corruption(
        what="a refund of an open swap",
        named="I-3 I-10",
        sql="UPDATE mint_operation SET state = 'sent', lease_until = "
        "'2100-01-01T00:00:00.000000+00:00' WHERE withdrawal_id = 'failed'",
    ),
    Corruption(
        what="an invoice paid by nobody",
        named="I-2 I-7",
        sql="UPDATE lightning_invoice SET status = 'paid' WHERE id = 'inv_pending'",
    ),
    Corruption(
        what="an invoice whose credit is denied",
        named="I-2 I-7",
        sql="UPDATE lightning_invoice SET status = 'expired' WHERE id = 'inv_paid'",
    ),
    Corruption(
        what="an invoice over more",
        named="I-2 I-7",
        sql="UPDATE lightning_invoice SET credit_msat = 9000 WHERE id = 'inv_paid'",
    ),
    Corruption(
        what="an invoice that nobody settles",
        named="I-7",
        sql="UPDATE lightning_invoice SET status = 'settlement_pending' WHERE id = 'inv_pending'",
    ),
    Corruption(
        what="a token gone",
        named="I-11",
        sql="UPDATE withdrawal SET token = NULL WHERE id = 'exact'",
    ),
    Corruption(
        what="another row's token",
        named="I-11",
        sql="UPDATE withdrawal SET token = (SELECT token FROM withdrawal WHERE id = "
        "'exact') WHERE id = 'swapped'",
    ),
    Corruption(
        what="another amount",
        named="I-2 I-3 I-11",
        sql="UPDATE withdrawal SET amount = amount + 1000 WHERE id = 'exact'",
    ),
    Corruption(
        what="a counter going back",
        named="I-12",
        sql="UPDATE keyset SET next_counter = 3",
    ),
    Corruption(
        what="another price",
        named="I-14",
        sql="UPDATE reservation SET price_snapshot = '{}' WHERE id = 'settled'",
    ),
    Corruption(
        what="an unexplained charge",
        named="I-14",
        sql='UPDATE "transaction" SET request_data = \'{"evidence": "exact"}\' WHERE '
        "operation_id = 'end:over'",
    ),
    Corruption(
        what="too much promised",
        named="I-4 I-18",
        sql="UPDATE reservation SET amount = 1000000001, quote_amount = 1000000001 WHERE "
        "id = 'held'",
    ),
    Corruption(
        what="a token in a description",
        named="I-23",
        sql='UPDATE "transaction" SET description = \'see '
        "cashuBo2FteB1odHRwczovL21pbnQuZXhhbXBsZQ' WHERE operation_id = 'end:over'",
    ),
    Corruption(
        what="a key in JSON",
        named="I-23",
        sql='UPDATE apikey SET metadata = \'{"k": '
        '"sk-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}\'',
    ),
    Corruption(
        what="a claim secret in JSON",
        named="I-23",
        sql='UPDATE apikey SET metadata = \'{"k": '
        '"clm_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}\'',
    ),
    Corruption(
        what="a bare secret",
        named="I-23",
        sql="UPDATE proof SET secret = 'abc'",
    ),
    Corruption(
        what="a locked coin gone",
        named="I-3 I-7",
        sql="DELETE FROM proof WHERE state = 'locked' AND amount = 2",
    ),
    Corruption(
        what="a fee refund that nothing explains",
        named="I-2",
        sql="UPDATE \"transaction\" SET operation_id = 'fee-refund:x' WHERE operation_id = "
        "'fee-refund:paid'",
    ),
    Corruption(
        what="change of a payment lost",
        named="I-3",
        sql="DELETE FROM proof WHERE counter = (SELECT max(o.counter) FROM mint_output o "
        "JOIN mint_operation op ON op.id = o.operation_id WHERE op.withdrawal_id = 'paid' "
        "AND o.amount IS NOT NULL)",
    ),
    Corruption(
        what="a payment that was paid and given back",
        named="I-2 I-3",
        sql="UPDATE withdrawal SET status = 'failed' WHERE id = 'paid'",
    ),
    Corruption(
        what="a poison that never ran",
        named="I-3 I-8",
        sql="UPDATE mint_operation SET state = 'failed' WHERE predecessor_id IS NOT NULL",
    ),
    Corruption(
        what="an invoice credited twice",
        named="I-1 I-2 I-5",
        sql='INSERT INTO "transaction" (api_key_id, sequence, amount, balance_after, type,'
        " operation_id, timestamp) SELECT id, version + 1, 8000, balance + 8000, 'deposit',"
        " 'invoice:inv_paid:again', created_at FROM apikey WHERE id = 'key_rich'",
    ),
    Corruption(
        what="an invoice minted twice",
        named="I-7",
        sql="UPDATE mint_operation SET lightning_invoice_id = 'inv_paid', kind = 'mint', "
        "deposit_id = NULL WHERE deposit_id = 'dep_b'",
    ),
)
