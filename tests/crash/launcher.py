"""The node, which dies as by `kill -9` at the point that the file `FAILPOINT_FILE` names.

The file is read whenever a point is reached and removed by the death, so one node can be killed
again and again, and is disarmed when it starts anew.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from routstr.__main__ import serve_app
from routstr.app import create_app
from routstr.config import check_for_serving, load_settings
from routstr.log import configure

VARIABLE = "FAILPOINT_FILE"


@dataclass(frozen=True, slots=True)
class Trap:
    path: Path

    def __call__(self, name: str) -> None:
        """The node has reached the point `name`."""
        try:
            armed = self.path.read_text()
        except FileNotFoundError:
            return
        if armed == name:
            self.path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve until killed."""
    settings = check_for_serving(load_settings())
    configure(settings.log_level, json=settings.log_json)
    trap = Trap(Path(os.environ[VARIABLE]))
    serve_app(create_app(settings, failpoint=trap), settings)


if __name__ == "__main__":
    main()
