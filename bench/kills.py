"""Kill -9 of the node at every point of a top-up, a create and a withdrawal, at a real mint.

After each kill the node is started again, and money must be whole by three counts that know nothing
of each other: the node's audit, the customer's wallet, and the mint's own books. Each kill happens
twice: once the node may recover by itself first, once the customer repeats the request at once.

The mint charges input fees, so a lost or doubled fee would show as well.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import httpx

from bench.deeds import DEEDS, KEY_SAT, MSAT, Deed
from bench.finding import STUMBLES, FellShort, Finding, complaint, require
from bench.scene import REST_TIMEOUT_S, Customer, Scene, at_rest, audit, ok, open_scene, rows
from tests.harness.process import NodeProcess

FEE_PPK: Final = 100
FUNDS_SAT: Final = 4 * KEY_SAT
PATIENT: Final = (True, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One death: of which deed, where, and whether the customer waits before the repeat."""

    make: Callable[[], Deed]
    point: str
    is_patient: bool

    def __str__(self) -> str:
        return f"{self.make().name} at {self.point}, {'waiting' if self.is_patient else 'at once'}"


def prove(*deeds: str) -> Iterator[Finding]:
    """One finding per deed; names choose some of them."""
    with open_scene(fee_ppk=FEE_PPK) as scene:
        for make in DEEDS:
            if deeds and make().name not in deeds:
                continue
            kills = [
                Kill(make=make, point=point, is_patient=is_patient)
                for point in make().points
                for is_patient in PATIENT
            ]
            yield _finding(make().name, [(kill, *_outcome(scene, kill)) for kill in kills])


def _finding(name: str, outcomes: list[tuple[Kill, str, float]]) -> Finding:
    whole = [seconds for _, why, seconds in outcomes if not why]
    slug = name.replace(",", "").replace("-", "").replace(" ", "_")
    return Finding(
        what=f"kill -9 in: {name}",
        found=f"{len(whole)}/{len(outcomes)} whole, at rest in {max(whole, default=0):.1f} s",
        must="money whole, each time",
        ok=len(whole) == len(outcomes),
        figures={f"kills_{slug}": f"{len(whole)}/{len(outcomes)}"},
        complaints=tuple(f"{kill}: {why}" for kill, why, _ in outcomes if why),
    )


def _outcome(scene: Scene, kill: Kill) -> tuple[str, float]:
    """What is wrong, or nothing; and the seconds from the restart to rest."""
    try:
        return "", asyncio.run(_survive(scene, kill))
    except STUMBLES as error:
        return complaint(error), 0


async def _survive(scene: Scene, kill: Kill) -> float:
    """Prepare, die, start again, repeat, count. Raises FellShort."""
    before_sat = scene.outstanding_sat()
    deed = kill.make()
    with scene.node(failpoint=kill.point) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            await deed.prepare(customer)
            await _die(node, deed, customer)
            node.arm(None)
            started_s = time.monotonic()
            node.start()
            if kill.is_patient:
                await at_rest(node)
            rest_s = time.monotonic() - started_s
            if kill.is_patient:
                await deed.check_before_repeat(customer)
            answer = ok(await _patiently(deed, customer))
            await deed.check_after_repeat(customer, answer)
            await at_rest(node)
            again = await deed.do(customer)
            require("a second repeat's status", again.is_server_error, False)
            await _count(scene, customer, before_sat)
            return rest_s


async def _patiently(deed: Deed, customer: Customer) -> httpx.Response:
    """The answer to the repeat; 425 says that the node is at it, and to ask again."""
    deadline_s = time.monotonic() + REST_TIMEOUT_S
    while True:
        answer = await deed.do(customer)
        if answer.status_code != httpx.codes.TOO_EARLY or time.monotonic() > deadline_s:
            return answer
        await asyncio.sleep(int(answer.headers["retry-after"]))


async def _die(node: NodeProcess, deed: Deed, customer: Customer) -> None:
    try:
        answer = await deed.do(customer)
    except httpx.TransportError:
        node.wait_until_killed()
    else:
        raise FellShort(f"the node lived on and answered {answer.status_code}")


async def _count(scene: Scene, customer: Customer, before_sat: int) -> None:
    """Three counts of the same money; every token was claimed by now."""
    node = customer.node
    report = await audit(node, "--deep")
    totals = report["totals"]
    held_msat = totals["held_msat"]
    require("what the node owes", totals["balances_msat"], (await customer.info())["balance"])
    require("the node's surplus", totals["surplus_msat"], 0)
    require("what is pending", totals["pending_withdrawals_msat"], 0)
    in_hands_sat = customer.wallet.balance + held_msat // MSAT
    require("the mint's own count", scene.outstanding_sat() - before_sat, in_hands_sat)
    unspent = [row[0] for row in rows(node, "SELECT y FROM proof WHERE state = 'unspent'")]
    require("the node's coins that the mint calls spent", scene.spent(unspent), set())
