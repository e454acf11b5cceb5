"""What is on sale: a picture that is never changed, only replaced as a whole.

Laws
- A listing's price is that of its first candidate, and that price is pinned in the quote. Whoever
  is asked instead may be dearer: the difference is absorbed, never charged.
- A request takes its listing once. A new picture changes nothing for what is under way.
- What has no price is not on sale, and nothing is sold at a price whose rate is too old.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from routstr.core.pricing import Model, Price, Usage, cost_of
from routstr.core.providers import EVERY_PATH
from routstr.errors import InvalidModel, ServiceUnavailable
from routstr.gateways.upstream_config import BUILT_IN, UpstreamConfig

TYPICAL: Final = Usage(input_tokens=3_000, output_tokens=1_000)  # what prices are compared by


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One upstream that can serve a listing, at its own sale price; `paths` are those it speaks.

    Of two equally dear ones the heavier goes first.
    """

    upstream_id: str
    upstream_slug: str
    forwarded_model_id: str
    price: Price
    context_length: int
    max_output_tokens: int
    weight: int = 0
    paths: frozenset[str] = EVERY_PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A model on sale and who can serve it, the cheapest first; at least one.

    `good_until` is when its price gets too old to sell at; None: never.
    """

    model: Model
    candidates: tuple[Candidate, ...]
    aliases: tuple[str, ...] = ()
    good_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything on sale at a moment. `not_sold` says of known models why they are not."""

    listings: Mapping[str, Listing] = field(default_factory=dict)
    upstreams: Mapping[str, UpstreamConfig] = field(default_factory=dict)
    not_sold: Mapping[str, str] = field(default_factory=dict)
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
        now: Callable[[], datetime] = lambda: datetime.max.replace(tzinfo=UTC),
    ) -> None:
        """Start with models of fixed prices, all at the upstream that the settings name."""
        listings = {model.id: listed(model, [built_in(model)]) for model in models}
        upstreams = {} if upstream is None else {upstream.id: upstream}
        self._picture = Picture(listings=listings, upstreams=upstreams)
        self._now = now

    @property
    def picture(self) -> Picture:
        """The one in force."""
        return self._picture

    def replace(self, picture: Picture) -> None:
        """From now on, this one is in force."""
        self._picture = picture

    def listing(self, model_id: str) -> Listing:
        """What is sold under an id or an alias.

        Raises InvalidModel, with the reason where it is known; ServiceUnavailable while its price
        hangs on an exchange rate that is too old.
        """
        picture = self._picture
        known = picture.by_alias.get(model_id, model_id)
        found = picture.listings.get(known)
        if found is None:
            raise InvalidModel(picture.not_sold.get(known), param="model")
        if found.good_until is not None and self._now() > found.good_until:
            raise ServiceUnavailable("The exchange rate is not known now, so no price is either.")
        return found

    def find(self, model_id: str) -> Model:
        """The model sold under an id or an alias. Raises what `listing` raises."""
        return self.listing(model_id).model

    def all(self) -> tuple[Model, ...]:
        """Every model on sale."""
        return tuple(each.model for each in self._picture.listings.values())


def listed(
    model: Model,
    candidates: Iterable[Candidate],
    *,
    aliases: Iterable[str] = (),
    good_until: datetime | None = None,
) -> Listing:
    """The listing of `model`, at the price and within the limits of its first candidate."""
    ordered = tuple(sorted(candidates, key=_rank))
    assert ordered, "a model that nobody serves is not on sale"
    first = ordered[0]
    return Listing(
        model=replace(
            model,
            price=first.price,
            context_length=first.context_length,
            max_output_tokens=first.max_output_tokens,
        ),
        candidates=ordered,
        aliases=tuple(aliases),
        good_until=good_until,
    )


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


def _rank(candidate: Candidate) -> tuple[int, int, str]:
    typical_msat = cost_of(TYPICAL, candidate.price).total_msat
    return typical_msat, -candidate.weight, candidate.upstream_slug
