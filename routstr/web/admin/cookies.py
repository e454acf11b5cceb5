"""The two cookies of the dashboard: the session, and the mark of a browser that logged in before.

Both are `__Host-`: browsers keep them for this host alone, over TLS (or on this machine), and show
them to no script and to no other site (RFC 6265bis §4.1.3).
"""

from typing import Final

from fastapi import Response

from routstr.flows.house.identity import Opened
from routstr.web.admin.guard import COOKIE
from routstr.web.admin.origin import DEVICE_COOKIE

DEVICE_S: Final = 365 * 86_400


def keep_session(response: Response, opened: Opened) -> None:
    """Give a browser its new session."""
    _set(response, COOKIE, opened.token, opened.lifetime_s)
    if opened.device:
        _set(response, DEVICE_COOKIE, opened.device, DEVICE_S)


def drop_session(response: Response) -> None:
    """Take it back; that the session has ended is written in the database."""
    _set(response, COOKIE, "", 0)


def _set(response: Response, name: str, value: str, lifetime_s: int) -> None:
    response.set_cookie(
        name, value, max_age=lifetime_s, path="/", secure=True, httponly=True, samesite="strict"
    )
