"""What a person sees when the dashboard refuses: the page again with one sentence, never JSON."""

from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from routstr.errors import RoutstrError
from routstr.web.admin.guard import local_path, wants_page
from routstr.web.errors import answer_error, error_headers
from routstr.web.pages.kit import page
from routstr.web.pages.shell import back_to


def install_refusals(app: FastAPI) -> None:
    """Answer people on the dashboard in words; everybody else as before."""
    app.add_exception_handler(RoutstrError, _on_refusal)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoutstrError)
    path = str(request.scope["path"])
    is_ours = path == "/admin" or path.startswith("/admin/")
    is_part = "hx-request" in request.headers  # a script asked, and shows what is in a header
    if not is_ours or is_part or not wants_page(request):
        return answer_error(request, error)
    came_from = urlsplit(request.headers.get("referer", ""))
    if request.method == "POST" and came_from.path:
        query = f"?{came_from.query}" if came_from.query else ""
        return back_to(local_path(f"{came_from.path}{query}"), error.message, kind="bad")
    headers = {name: value for name, value in error_headers(error).items() if name == "retry-after"}
    return page("admin/refusal.html", status=error.status, headers=headers, error=error)
