"""Routstr: sell an HTTP API per request, for ecash, without accounts."""

import sys

# structlog and httpx take rich and pygments wherever they find them: 6 MB of every node, for
# tracebacks with locals that its log never shows and for a command line that nobody runs.
# Who prints tables imports them himself.
_HIDDEN = [name for name in ("pygments", "rich") if name not in sys.modules]
for _name in _HIDDEN:
    sys.modules[_name] = None  # type: ignore[assignment]  # Python's way to say: not there
try:
    import httpx  # noqa: F401 - found without them, for good
    import structlog  # noqa: F401 - as above
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

__version__ = "0.1.0"
