"""What every error is: class = status, type and code; docstring = default message.

`web/errors.py` turns any of these into the one envelope of the HTTP
contract; nothing else decides a status. A class without a status of its own is a 500: a 4xx is
chosen, never inherited by accident.

Messages are for the person who sent the request. They never hold a token, a key, a secret or a
word of a prompt.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

Detail = int | str | bool | None | list[str]

RETRY_AFTER_S: Final = 5


class RoutstrError(Exception):
    """Something failed on our side."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"
    retry_after_default_s: ClassVar[int | None] = None
    ends_by_itself: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        details: Mapping[str, Detail] | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the envelope will show; without a message the docstring's first line speaks."""
        self.message = message or (type(self).__doc__ or "").strip().partition("\n")[0]
        self.param = param
        self.details = dict(details or {})
        self.retry_after_s = self.retry_after_default_s if retry_after_s is None else retry_after_s
        # What `x-should-retry` says: true only where a repeat can help and cannot pay twice.
        self.should_retry = self._is_passing if should_retry is None else should_retry
        self.headers = dict(headers or {})
        self.refund_token: str | None = None  # what a payment without an account gets back
        super().__init__(self.message)

    @property
    def _is_passing(self) -> bool:
        return self.ends_by_itself or self.status in {408, 424, 425, 429, 502, 503}
