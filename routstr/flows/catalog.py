"""What is on sale: a picture that is never changed, only replaced as a whole.

Laws
- A listing's price on a path is that of its first candidate there, and that price is pinned in the
  quote. Whoever is asked instead may be dearer: the difference is absorbed, never charged. The
  published price is the dearest of all paths.
- A request takes its listing once. A new picture changes nothing for what is under way.
- What has no price is not on sale, and nothing is sold at a price whose rate is too old.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from routstr.core.pricing import Model, Price, Usage, cost_of
from routstr.core.providers import EVERY_PATH, bills_files_apart
from routstr.errors import InvalidModel, ServiceUnavailable
from routstr.gateways.upstream_config import BUILT_IN, UpstreamConfig

PPM_PER_PERCENT: Final = 10_000
NO_RATE: Final = "The exchange rate is not known now, so no price is either."
# What prices are compared by: of a model that is sold by a unit, that unit decides.
TYPICAL: Final = Usage(
    input_tokens=3_000, output_tokens=1_000, images=1, seconds=60, characters=1_000
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One upstream that can serve a listing, at its own sale price; `paths` are those it speaks.

    Equally dear ones share the requests by their weights; one without weight comes after them.
    `good_until` is when its price gets too old to sell at; None: never. `usd` is the same price in
    USD, fee included, by the names of `core.prices.CLASSES`; empty for a price that was set in
    msat. `facts` only describe. It `reads_files` unless documents have a bill of their own there.
    """

    upstream_id: str
    upstream_slug: str
    forwarded_model_id: str
    price: Price
    context_length: int
    max_output_tokens: int
    weight: int = 0
    paths: frozenset[str] = EVERY_PATH
    fee_ppm: int = 0
    good_until: datetime | None = None
    usd: Mapping[str, Decimal] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    reads_files: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A model on sale and who can serve it, the cheapest first; at least one.

    `model` has the price and the limits of the candidate at `shown_at`.
    """

    model: Model
    candidates: tuple[Candidate, ...]
    aliases: tuple[str, ...] = ()
    shown_at: int = 0

    @property
    def shown(self) -> Candidate:
        """The candidate whose price is published."""
        return self.candidates[self.shown_at]

    def on(self, path: str) -> "Listing":
        """The listing as `path` is sold: only by those that speak it, at the first one's price.

        Raises InvalidModel if nobody does.
        """
        if self.shown_at == 0 and path in self.shown.paths:
            return self
        able = tuple(each for each in self.candidates if path in each.paths)
        if not able:
            raise InvalidModel(
                f"{self.model.id} is not sold here for this endpoint.", param="model"
            )
        return _priced_as(able[0], self.model, able, self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path that is sold by the request: `price.request_msat` buys a call of `upstream_path`."""

    id: str
    method: str
    path: str
    upstream_id: str
    upstream_path: str
    price: Price
    good_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything on sale at a moment. `not_sold` says of known models why they are not.

    `routes` are by method and path, `btc_usd` is the rate that amounts are shown in USD with.
    `reasons` says the same as `not_sold` of each model of each upstream, by both their ids.
    `unrated` and `unrated_routes` would be on sale if an exchange rate had ever been known.
    """

    listings: Mapping[str, Listing] = field(default_factory=dict)
    upstreams: Mapping[str, UpstreamConfig] = field(default_factory=dict)
    not_sold: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[tuple[str, str], Route] = field(default_factory=dict)
    btc_usd: Decimal | None = None
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unrated: frozenset[str] = frozenset()
    unrated_routes: frozenset[tuple[str, str]] = frozenset()
    by_alias: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """An id is never another model's alias; of two that claim one alias, the first has it."""
        named: dict[str, str] = {}
        for each in self.listings.values():
            for alias in each.aliases:
                if alias not in self.listings:
                    named.setdefault(alias, each.model.id)
        object.__setattr__(self, "by_alias", named)


class Catalog:
    """Holds the picture in force. `now` is the clock that old prices are judged by."""

    def __init__(
        self,
        models: Iterable[Model] = (),
        *,
        upstream: UpstreamConfig | None = None,
        btc_usd: Decimal | None = None,
        now: Callable[[], datetime] = lambda: datetime.max.replace(tzinfo=UTC),
    ) -> None:
        """Start with models of fixed prices, all at the upstream that the settings name."""
        reads_files = upstream is None or not bills_files_apart(
            upstream.provider_type, upstream.base_url
        )
        own = ((model, built_in(model)) for model in models)
        self.fixed = tuple(
            listed(model, [replace(each, reads_files=reads_files)]) for model, each in own
        )
        self.upstream = upstream
        self._picture = Picture(
            listings={each.model.id: each for each in self.fixed},
            upstreams={} if upstream is None else {upstream.id: upstream},
            btc_usd=btc_usd,
        )
        self._now = now
        self.saved_versions: frozenset[str] = frozenset()
        self.stamp: object = None  # of the rows that the picture was made from
        self.written: tuple[Picture, bytes] | None = None  # as clients read it
        self.painted: tuple[Picture, str] | None = None  # as people read it

    @property
    def picture(self) -> Picture:
        """The one in force."""
        return self._picture

    def replace(self, picture: Picture) -> None:
        """From now on, this one is in force."""
        self._picture = picture

    def listing(self, model_id: str, path: str | None = None) -> Listing:
        """What is sold under an id or an alias, on `path` or as it is published.

        Raises InvalidModel, with the reason where it is known; ServiceUnavailable while its price
        hangs on an exchange rate that is too old, or was never known.
        """
        picture = self._picture
        known = picture.by_alias.get(model_id, model_id)
        found = picture.listings.get(known)
        if found is None:
            if known in picture.unrated:
                raise ServiceUnavailable(NO_RATE)
            raise InvalidModel(picture.not_sold.get(known), param="model")
        if path is not None:
            found = found.on(path)
        self._check_fresh(found.shown.good_until)
        return found

    @property
    def has_old_prices(self) -> bool:
        """Whether something cannot be sold now, because its rate is too old or was never known."""
        picture, now = self._picture, self._now()
        if picture.unrated or picture.unrated_routes:
            return True
        until = [each.shown.good_until for each in picture.listings.values()]
        until += [each.good_until for each in picture.routes.values()]
        return any(each is not None and now > each for each in until)

    def route(self, method: str, path: str) -> Route | None:
        """What is sold by the request under that method and path; raises ServiceUnavailable."""
        found = self._picture.routes.get((method, path))
        if found is not None:
            self._check_fresh(found.good_until)
        elif (method, path) in self._picture.unrated_routes:
            raise ServiceUnavailable(NO_RATE)
        return found

    def _check_fresh(self, good_until: datetime | None) -> None:
        if good_until is not None and self._now() > good_until:
            raise ServiceUnavailable(NO_RATE)

    def find(self, model_id: str, path: str | None = None) -> Model:
        """The model sold under an id or an alias. Raises what `listing` raises."""
        return self.listing(model_id, path).model

    @property
    def btc_usd(self) -> Decimal | None:
        """The rate that amounts are shown in USD with."""
        return self._picture.btc_usd

    @property
    def btc_usd_text(self) -> str:
        """The same as text; empty while none is known."""
        return "" if self.btc_usd is None else str(self.btc_usd)

    def all(self) -> tuple[Model, ...]:
        """Every model on sale."""
        return tuple(each.model for each in self._picture.listings.values())


def listed(
    model: Model, candidates: Iterable[Candidate], *, aliases: Iterable[str] = ()
) -> Listing:
    """The listing of `model`, shown as its cheapest candidate, or the dearest it takes for a path.

    Where one path is spoken only by dearer candidates, theirs is what is published: no quote is
    above it, and on the other paths the cheaper ones still make the price.
    """
    ordered = tuple(sorted(candidates, key=_rank))
    assert ordered, "a model that nobody serves is not on sale"
    firsts = (
        next(each for each in ordered if path in each.paths)
        for path in frozenset[str]().union(*(each.paths for each in ordered))
    )
    return _priced_as(max(firsts, key=_rank, default=ordered[0]), model, ordered, tuple(aliases))


def _priced_as(
    candidate: Candidate, model: Model, ordered: tuple[Candidate, ...], aliases: tuple[str, ...]
) -> Listing:
    return Listing(
        model=replace(
            model,
            price=candidate.price,
            context_length=candidate.context_length,
            max_output_tokens=candidate.max_output_tokens,
        ),
        candidates=ordered,
        aliases=aliases,
        shown_at=ordered.index(candidate),
    )


def markup_percent(picture: Picture) -> float | int:
    """The highest margin on what is sold, in percent, as a client is told it."""
    fees_ppm = (each.shown.fee_ppm for each in picture.listings.values())
    percent = max(fees_ppm, default=0) / PPM_PER_PERCENT
    return int(percent) if percent.is_integer() else percent


def sold_route(route: Route) -> Listing:
    """A route as a listing: a model without tokens, whose only price is that of a request."""
    name = f"{route.method} {route.path}"
    model = Model(
        id=name,
        name=name,
        context_length=1,
        max_output_tokens=0,
        price=route.price,
        is_free=route.price.request_msat == 0,
    )
    candidate = Candidate(
        upstream_id=route.upstream_id,
        upstream_slug=route.upstream_id,
        forwarded_model_id=name,
        price=route.price,
        context_length=1,
        max_output_tokens=0,
        paths=frozenset({route.upstream_path}),
    )
    return Listing(model=model, candidates=(candidate,))


def built_in(model: Model) -> Candidate:
    """The upstream of the settings as the one that serves `model`, under the same id."""
    return Candidate(
        upstream_id=BUILT_IN,
        upstream_slug=BUILT_IN,
        forwarded_model_id=model.id,
        price=model.price,
        context_length=model.context_length,
        max_output_tokens=model.max_output_tokens,
    )


def typical_msat(candidate: Candidate) -> int:
    """What prices are compared by."""
    return cost_of(TYPICAL, candidate.price).total_msat


def _rank(candidate: Candidate) -> tuple[int, int, str]:
    return typical_msat(candidate), -candidate.weight, candidate.upstream_slug
