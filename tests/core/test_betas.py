import pytest

from routstr.core.betas import passed_betas
from routstr.errors import UnsupportedParameter


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("", ""),
        ("interleaved-thinking-2025-05-14", "interleaved-thinking-2025-05-14"),
        ("prompt-caching-2024-07-31 ,Output-128k-2025-02-19", None),
        (
            "claude-code-20250219,oauth-2025-04-20,pdfs-2024-09-25",
            "claude-code-20250219,pdfs-2024-09-25",
        ),
        ("files-api-2025-04-14,mcp-client-2025-11-20", ""),
        ("extended-cache-ttl-2025-04-11,never-heard-of,,", ""),
    ],
)
def test_what_is_not_named_does_not_pass(given: str, passed: str | None) -> None:
    assert passed_betas(given) == (given.replace(" ,", ",") if passed is None else passed)


@pytest.mark.parametrize("beta", ["context-1m-2025-08-07", "Fast-Mode-2026-02-01", "fast-mode"])
def test_what_changes_the_price_is_refused(beta: str) -> None:
    with pytest.raises(UnsupportedParameter, match=beta) as refusal:
        passed_betas(f"effort-2025-11-24, {beta}")
    assert refusal.value.param == "anthropic-beta"
