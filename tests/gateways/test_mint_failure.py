import pytest

from routstr.gateways.mint_failure import SAFE_REFUSALS, Refusal, classify


@pytest.mark.parametrize(
    ("codes", "refusal"),
    [
        ([11001], Refusal.SPENT),
        ([11002, 11004, 20005], Refusal.PENDING),
        ([11003, 20002], Refusal.OUTPUTS_SIGNED),
        ([20004], Refusal.PAYMENT_FAILED),
        ([20006], Refusal.QUOTE_PAID),
        ([20001], Refusal.QUOTE_UNPAID),
        ([20007], Refusal.QUOTE_EXPIRED),
        ([10001, 0], Refusal.SAFE),
        ([11000, 11005, 12001, 12002, 12003], Refusal.SAFE_REFRESH),
        ([*range(11006, 11018), 20008, 20009, 422], Refusal.SAFE_OUR_BUG),
        ([-1, 1, 200, 400, 429, 500, 10000, 11018, 12004, 20003, 99999], Refusal.UNKNOWN),
    ],
)
def test_the_table_of_refusals(codes: list[int], refusal: Refusal) -> None:
    assert {classify(code) for code in codes} == {refusal}


def test_only_the_codes_marked_safe_are_safe() -> None:
    safe = {code for code in SAFE_REFUSALS if classify(code).is_safe}
    assert safe == {
        0, 10001, 11000, 11005, *range(11006, 11018), 12001, 12002, 12003, 20007, 20008, 20009, 422,
    }  # fmt: skip
