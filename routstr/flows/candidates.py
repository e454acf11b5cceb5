"""Who may serve an order, in which order: a rule on values, before anybody is asked.

Laws: the price is the listing's, whoever serves; a dearer candidate is asked only as far as the
operator bears the difference; who cannot take the order as it is, is no candidate for it.
"""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Final

from routstr.core.order import Order
from routstr.core.quote import Quote, quote_of
from routstr.errors import InvalidModel, RoutstrError, UnsupportedParameter
from routstr.flows.catalog import Candidate, Listing, typical_msat

PPM: Final = 1_000_000


def candidates_for(
    listing: Listing, order: Order, quote: Quote, *, path: str, loss_ppm_max: int
) -> tuple[Candidate, ...]:
    """The listing's candidates that speak `path`, can take `order`, and are not too dear for it.

    Too dear: the most it could cost there is above the quote by more than `loss_ppm_max`. Raises
    InvalidModel if nobody is left, UnsupportedParameter if that is for the documents in it.
    """
    found = tuple(
        each
        for each in listing.candidates
        if path in each.paths and _is_fit(each, listing, order, quote, loss_ppm_max)
    )
    if order.has_files:
        found = _readers(found)
    if not found:
        raise InvalidModel(f"{listing.model.id} is not sold here for this endpoint.", param="model")
    return found


def _readers(found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Those where a document costs tokens alone. Raises UnsupportedParameter if that is nobody."""
    readers = tuple(each for each in found if each.reads_files)
    if found and not readers:
        raise UnsupportedParameter(
            "Files are not supported for this model: whoever reads them for it bills the page."
        )
    return readers


def spread(candidates: Iterable[Candidate], dice: str) -> list[Candidate]:
    """The candidates in the order to be asked in; `dice` is any text that differs by request.

    Equally dear ones change places, each as often in front as its weight (0 or more) has it.
    """
    given = list(candidates)
    if len(given) == 1 or not any(each.weight for each in given):
        return given  # the usual case, and comparing prices takes time
    turn = zlib.crc32(dice.encode())
    out: list[Candidate] = []
    for _, group in groupby(given, key=typical_msat):
        left = list(group)
        while (total := sum(each.weight for each in left)) > 0:
            point = turn % total
            place = 0
            while point >= left[place].weight:
                point -= left[place].weight
                place += 1
            out.append(left.pop(place))
        out += left
    return out


def _is_fit(
    candidate: Candidate, listing: Listing, order: Order, quote: Quote, loss_ppm_max: int
) -> bool:
    if candidate is listing.candidates[0]:
        return True
    model = replace(
        listing.model,
        price=candidate.price,
        context_length=candidate.context_length,
        max_output_tokens=candidate.max_output_tokens,
    )
    try:
        own = quote_of(order, model)
    except RoutstrError:  # it has no price for this, or a lower limit
        return False
    return own.total_msat * PPM <= quote.total_msat * (PPM + loss_ppm_max)
