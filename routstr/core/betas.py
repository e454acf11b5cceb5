"""The beta features an Anthropic client may switch on by a header (guarantees, SR-9, SR-10).

Laws: what is not named here does not pass; what is known to change the price is refused, because a
client who asked for it must not get something else. What a beta adds to the body is judged there.
"""

import re
from collections.abc import Mapping
from typing import Final

from routstr.errors import UnsupportedParameter

HEADER: Final = "anthropic-beta"

# Families, without their dates: within the prices of tokens, and without a second account.
_PASSED: Final = frozenset(
    {
        "adaptive-thinking",
        "claude-code",
        "computer-use",
        "context-management",
        "effort",
        "fine-grained-tool-streaming",
        "interleaved-thinking",
        "model-context-window-exceeded",
        "output-128k",
        "pdfs",
        "prompt-caching",
        "redact-thinking",
        "structured-outputs",
        "token-counting",
        "token-efficient-tools",
    }
)
_DEARER: Final[Mapping[str, str]] = {
    "context-1m": "tokens beyond the usual context have another price",
    "fast-mode": "it changes the price of tokens",
}
_DATE: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


def passed_betas(given: str) -> str:
    """The header's value with only what may pass, "" for nothing.

    Raises UnsupportedParameter for a beta that changes the price.
    """
    passed = []
    for beta in (part.strip() for part in given.split(",")):
        family = _DATE.sub("", beta.lower())
        if family in _DEARER:
            raise UnsupportedParameter(
                f"The beta {beta} is not supported here: {_DEARER[family]}.", param=HEADER
            )
        if family in _PASSED:
            passed.append(beta)
    return ",".join(passed)
