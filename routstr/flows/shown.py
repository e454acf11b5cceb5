"""The catalog as clients read it, written once for each picture: a thousand models take a while."""

import orjson

from routstr.core.listing import Described, model_json
from routstr.flows.catalog import Catalog, Listing, Picture


def shown(listing: Listing, picture: Picture) -> dict[str, object]:
    """A listing as the contract has it (section 3), for `orjson.dumps`."""
    first = listing.shown
    described = Described(
        upstream=first.upstream_slug,
        forwarded_model_id=first.forwarded_model_id,
        aliases=listing.aliases,
        usd=first.usd,
        facts=first.facts,
    )
    return model_json(listing.model, picture.btc_usd, described)


def models_page(catalog: Catalog) -> bytes:
    """The JSON of all models of the picture in force."""
    picture = catalog.picture
    if catalog.written is None or catalog.written[0] is not picture:
        catalog.written = (picture, written(picture))
    return catalog.written[1]


def written(picture: Picture) -> bytes:
    """The JSON of all models of a picture."""
    data = [shown(each, picture) for each in picture.listings.values()]
    return orjson.dumps({"object": "list", "data": data})
