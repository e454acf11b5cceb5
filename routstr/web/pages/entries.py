"""What people type into the operator's rooms: read field by field, and back if it is refused.

Laws: a form that is refused, by its guard as well, comes back as it was filled in, but for codes
and secrets, with the reason at the field. What another site's page filled in never does: it would
stand in ours, ready for the operator's code. A form that was accepted is answered by a redirect
(`shell.back_to`), so that a reload repeats nothing.

    router = APIRouter(route_class=RoomRoute, include_in_schema=False)

    @router.post("/admin/things")
    @shows_again(things_page)
    async def keep_thing(request: Request, admin: Writing, ctx: Ctx) -> Response: …
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

from fastapi import Request, Response

from routstr.core.money import MSAT_PER_SAT
from routstr.errors import AdminRequired, InvalidParameter, RoutstrError
from routstr.web.admin.guard import reading_admin, wants_page
from routstr.web.admin.origin import is_own_origin
from routstr.web.deps import context_of
from routstr.web.pages.forms import PageRoute

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

FIELDS_MAX: Final = 300
CHARS_MAX: Final = 16 * 1024
NEVER_TOLD: Final = frozenset({"csrf", "totp", "key", "token"})
# Errors that are about a field without naming it.
CODE_FIELDS: Final = {"totp_required": "totp", "invalid_credentials": "totp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What was filled in, by the names of its fields; without blanks around it."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, name: str) -> str:
        """As it was typed; empty when nothing was."""
        return self.values.get(name, "")

    def said(self, name: str) -> str | None:
        """The same, None when nothing was."""
        return self.values.get(name) or None

    def is_on(self, name: str) -> bool:
        """Whether a box was ticked."""
        return name in self.values

    def whole(self, name: str) -> int | None:
        """A whole number of at least 0; blanks group its digits. Raises InvalidParameter."""
        said = "".join(self.text(name).split()).replace("_", "")
        if not said:
            return None
        if not (said.isascii() and said.isdigit() and len(said) <= 19):
            raise InvalidParameter("A whole number, such as 21.", param=name)
        return int(said)

    def percent(self, name: str) -> Decimal | None:
        """A number of percent. Raises InvalidParameter."""
        said = self.text(name).removesuffix("%").strip().replace(",", ".")
        try:
            return Decimal(said) if said else None
        except InvalidOperation:
            raise InvalidParameter("A number of percent, such as 5 or 2.5.", param=name) from None

    def msat(self, name: str) -> int | None:
        """An amount that was typed in sats, with up to three decimals. Raises InvalidParameter."""
        said = "".join(self.text(name).split()).replace(",", ".")
        if not said:
            return None
        sats, _, decimals = said.partition(".")
        digits = f"{sats}{decimals}"
        is_number = digits.isascii() and digits.isdigit()
        if not is_number or len(decimals) > 3 or len(sats) > 15:
            raise InvalidParameter("An amount in sats, such as 21 or 0.5.", param=name)
        return int(sats or 0) * MSAT_PER_SAT + int(decimals.ljust(3, "0") or 0)

    def moment(self, name: str) -> datetime | None:
        """A date, or a date and a time, in UTC. Raises InvalidParameter."""
        said = self.text(name)
        try:
            found = datetime.fromisoformat(said) if said else None
        except ValueError:
            raise InvalidParameter("A date such as 2030-12-31 (UTC).", param=name) from None
        return None if found is None else found.replace(tzinfo=found.tzinfo or UTC)

    def words(self, name: str) -> tuple[str, ...]:
        """What stands between commas, blanks and line ends, each once."""
        return tuple(dict.fromkeys(self.text(name).replace(",", " ").split()))

    @property
    def told(self) -> dict[str, str]:
        """What a page may show again."""
        return {name: value for name, value in self.values.items() if name not in NEVER_TOLD}


EMPTY: Final = Form()


async def read_form(request: Request) -> Form:
    """The form in a request. Raises InvalidParameter for a text that is too long, or a file."""
    said = await request.form(max_files=0, max_fields=FIELDS_MAX)
    values: dict[str, str] = {}
    for name, value in said.multi_items():
        if not isinstance(value, str) or len(value) > CHARS_MAX:
            raise InvalidParameter("That is too long.", param=name[:32])
        values[name] = f"{values[name]} {value.strip()}" if name in values else value.strip()
    return Form(values=values)


def go(path: str) -> Response:
    """Look there instead; `path` is ours."""
    return Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a form was refused: at which field, in one sentence, and where the money is."""

    field: str
    message: str
    code: str
    status: int


def problem_of(error: RoutstrError) -> Problem:
    """An error as the page that was used says it."""
    return Problem(
        field=error.param or CODE_FIELDS.get(error.code, ""),
        message=error.message,
        code=error.code,
        status=error.status,
    )


# ── shown again ───────────────────────────────────────────────────────────────────────────────

Shown = Callable[..., Awaitable[Response]]
EndpointT = TypeVar("EndpointT", bound=Callable[..., object])
_SHOWN: Final[dict[Callable[..., object], Shown]] = {}


def shows_again(shown: Shown) -> Callable[[EndpointT], EndpointT]:
    """Have a refused form shown again by `shown(request, ctx, admin, form=…, problem=…, …)`.

    It gets the parameters of the path as well.
    """

    def keep(endpoint: EndpointT) -> EndpointT:
        _SHOWN[endpoint] = shown
        return endpoint

    return keep


class RoomRoute(PageRoute):
    """A page whose refused forms are shown again, to whoever looks at them in a browser."""

    def get_route_handler(self) -> Handler:
        """The handler, and what happens if it refuses."""
        handler, shown = super().get_route_handler(), _SHOWN.get(self.endpoint)

        async def handled(request: Request) -> Response:
            try:
                return await handler(request)
            except RoutstrError as error:
                if shown is None or isinstance(error, AdminRequired) or not wants_page(request):
                    raise
                ctx = context_of(request)
                if not is_own_origin(ctx, request):
                    raise
                admin = await reading_admin(request, ctx)
                form, problem = await read_form(request), problem_of(error)
                return await shown(
                    request, ctx, admin, form=form, problem=problem, **request.path_params
                )

        return handled
