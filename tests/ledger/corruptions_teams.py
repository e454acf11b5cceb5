"""Wrong rows of child keys, caps and counters; as in `corruptions.py`."""

from typing import Final

from tests.ledger.corruptions import Corruption

CORRUPTIONS: Final = (
    Corruption(
        what="a child with a chain",
        named="I-4 I-5",
        sql="UPDATE apikey SET version = 1 WHERE id = 'key_child'",
    ),
    Corruption(
        what="a child that spent less",
        named="I-2",
        sql="UPDATE apikey SET total_spent = 299 WHERE id = 'key_child'",
    ),
    Corruption(
        what="a cap that begins later than now",
        named="I-4",
        sql="UPDATE apikey SET limit_base = 301 WHERE id = 'key_child'",
    ),
    Corruption(
        what="a child's hold forgotten",
        named="I-4",
        sql="UPDATE apikey SET limit_held = 0 WHERE id = 'key_child'",
    ),
    Corruption(
        what="a child's request miscounted",
        named="I-4",
        sql="UPDATE apikey SET running = 0 WHERE id = 'key_child'",
    ),
    Corruption(
        what="a request miscounted",
        named="I-4",
        sql="UPDATE apikey SET running = running + 1 WHERE id = 'key_rich'",
    ),
    Corruption(
        what="a child of a child",
        named="I-2 I-4",
        sql="UPDATE apikey SET parent_id = 'key_other' WHERE id = 'key_rich'",
    ),
    Corruption(
        what="a stranger's child",
        named="I-2",
        sql="UPDATE apikey SET parent_id = 'key_other' WHERE id = 'key_child'",
    ),
    Corruption(
        what="another spender",
        named="I-2",
        sql="UPDATE reservation SET spender_id = NULL WHERE id = 'by_child'",
    ),
    Corruption(
        what="a child that cost more",
        named="I-2",
        sql="UPDATE apikey SET opening_fee = 51 WHERE id = 'key_child'",
    ),
)
