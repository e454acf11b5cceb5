"""Whether this process is about to stop: told at `/health` first, so that balancers send no more.

While it is leaving it serves whatever comes, as ever; it has only stopped to ask for it.
"""


class Departure:
    """One for the process, made by the composition root."""

    def __init__(self) -> None:
        """It stays."""
        self.has_begun = False

    def begin(self) -> None:
        """From now on it is leaving."""
        self.has_begun = True
