"""The node, armed: `FAILPOINT=name` or `FAILPOINT=name:hit` kills it, as `kill -9` would, at the
moment that point is reached for the first, or the `hit`-th, time.

`python -m tests.harness.launcher` is `routstr serve` in everything else. Only this program arms a
failpoint; in the node itself they do nothing.
"""

import os

from routstr.__main__ import serve_app
from routstr.app import create_app
from routstr.config import check_for_serving, load_settings
from tests.harness.failpoint import armed


def main() -> None:
    """Serve until killed."""
    settings = check_for_serving(load_settings())
    serve_app(create_app(settings, failpoint=armed(os.environ["FAILPOINT"])), settings)


if __name__ == "__main__":
    main()
