"""Every route by everybody, and every documented endpoint by whatever schemathesis thinks of."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.finding import Finding, stumbled
from routstr.ledger.migrate import migrate
from routstr.log import configure
from tests.harness.fuzz import Fuzzed, fuzz, parts_of
from tests.harness.house import House, open_house
from tests.harness.matrix import Matrix, try_every_door

EXAMPLES: Final = 25
SHOWN: Final = 5
MATRIX: Final = "every route, knocked at by everybody"
DOCUMENT: Final = "every documented endpoint, asked what it allows and what not"


def prove() -> Iterator[Finding]:
    """The matrix, then the document, each asked as whom it is for and as nobody."""
    configure("CRITICAL", json=False)
    with stumbled(MATRIX) as failed:
        yield _of_matrix(asyncio.run(_matrix()))
    yield from failed
    with stumbled(DOCUMENT) as failed:
        for who, found in asyncio.run(_documented()).items():
            yield _of_document(who, found)
    yield from failed


@asynccontextmanager
async def _house() -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory(prefix="routstr-doors-") as home:
        url = f"sqlite+aiosqlite:///{Path(home) / 'routstr.db'}"
        await migrate(url)
        async with open_house(url) as house:
            yield house


async def _matrix() -> Matrix:
    async with _house() as house:
        return await try_every_door(house)


async def _documented() -> Mapping[str, Fuzzed]:
    found = {}
    async with _house() as house:
        key = await house.shop.key(100_000_000)
        asked = {
            ("public", "nobody"): {},
            ("public", "a key"): key.headers,
            ("admin", "nobody"): {},
            ("admin", "the operator"): house.bearer,
        }
        for (part, who), headers in asked.items():
            document = parts_of(house.shop.app.openapi(), aliases=True)[part]
            found[f"{part} as {who}"] = await asyncio.to_thread(
                fuzz, document, house.origin, headers, examples=EXAMPLES
            )
    return found


def _of_matrix(matrix: Matrix) -> Finding:
    right = matrix.cells - len(matrix.wrong)
    return Finding(
        what=MATRIX,
        found=f"{right:,} of {matrix.cells:,} cells as they must be",
        must="all",
        ok=right == matrix.cells > 0,
        figures={"matrix": f"{right}/{matrix.cells}"},
        complaints=tuple(matrix.wrong[:SHOWN]),
    )


def _of_document(who: str, found: Fuzzed) -> Finding:
    wrong = sorted(found.failed | found.undocumented)
    return Finding(
        what=f"{DOCUMENT}: {who}",
        found=f"{found.requests:,} requests, {len(found.failed)} failures of the node,"
        f" {len(found.undocumented)} answers undocumented",
        must="0, 0",
        ok=found.requests > 0 and not wrong,
        figures={"undocumented": len(found.undocumented)},
        complaints=tuple(wrong[:SHOWN]),
    )
