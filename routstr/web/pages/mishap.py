"""What a person sees of an error under `/admin`: a sentence and a way on, never an envelope.

A form that was refused leads back to the page it was on, which says why; anything else is a page of
its own.
"""

from typing import Final

from fastapi import Request, Response

from routstr.core.envelope import status_of
from routstr.errors import RoutstrError
from routstr.web.admin.guard import came_from, wants_page
from routstr.web.pages.kit import page
from routstr.web.pages.shell import back_to
from routstr.web.scope import request_id_of

OURS: Final = "This is this node's own mistake. The log has it under this request's id."
YOURS: Final = "Nothing was changed, and nothing was charged."


def page_of(request: Request, error: RoutstrError) -> Response | None:
    """The answer for whoever looks at a page of the dashboard; None for everybody else."""
    path = str(request.scope["path"])
    if not (path == "/admin" or path.startswith("/admin/")) or not wants_page(request):
        return None
    status = status_of(error)
    if request.method == "POST" and "referer" in request.headers and status < 500:
        return back_to(came_from(request), error.message, kind="bad")
    headers = dict(error.headers)  # where to log in, for what a script of the page asked
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return page(
        "admin/mishap.html",
        status=status,
        headers=headers,
        code=status,
        message=error.message,
        says=YOURS if status < 500 else OURS,
        request_id=request_id_of(request.scope),
    )
