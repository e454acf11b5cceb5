"""A Lightning payment that hangs at the mint while the node is killed, and then is paid or fails.

The real mint calls the payment pending for as long as it runs; its restart on the same database
brings the end. Until then nothing may come back to the key; after it the customer, the node's audit
and the mint's own books must agree to the msat.

The mint charges input fees, so a lost or doubled fee would show as well.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import httpx

from bench.deeds import MSAT
from bench.finding import STUMBLES, FellShort, Finding, complaint, require
from bench.scene import Answer, Customer, Scene, audit, open_scene, rows
from tests.fakes.invoices import invoice

FEE_PPK: Final = 100
FUNDS_SAT: Final = 1_024
KEY_SAT: Final = 512
INVOICE_MSAT: Final = 21_000
END_TIMEOUT_S: Final = 60
POLL_S: Final = 0.2
STATE: Final = "FAKEWALLET_PAYMENT_STATE"
PENDING: Final = {"FAKEWALLET_PAY_INVOICE_STATE": "PENDING", STATE: "PENDING"}
MELTS: Final = "SELECT state FROM mint_operation WHERE kind = 'melt'"
ENDS: Final = {"paid": ("SETTLED", "completed"), "failed": ("FAILED", "failed")}
POINTS: Final = ("melt.answered", "melt.waiting")


def prove() -> Iterator[Finding]:
    """One finding for each end, over every point of death."""
    with open_scene(fee_ppk=FEE_PPK, mint_options=PENDING) as scene:
        for end in ENDS:
            yield _finding(scene, end)


def _finding(scene: Scene, end: str) -> Finding:
    what = f"melt pending, node killed, then {end}"
    lost_msat, doubles, complaints = 0, 0, []
    for number, point in enumerate(POINTS):
        bolt11 = invoice(INVOICE_MSAT + number, created_at=int(time.time()), expiry_s=3_600)
        try:
            lost, double = asyncio.run(_survive(scene, end, point, bolt11))
        except STUMBLES as error:
            complaints.append(f"{point}: {complaint(error)}")
            continue
        lost_msat, doubles = lost_msat + lost, doubles + abs(double)
    is_ok = not (complaints or lost_msat or doubles)
    return Finding(
        what=what,
        found=f"{lost_msat} msat lost, {doubles} paid twice or paid and given back",
        must="money whole, one end",
        ok=is_ok,
        figures={"lost_msat": lost_msat, "double_credits": doubles},
        complaints=tuple(complaints),
    )


async def _survive(scene: Scene, end: str, point: str, bolt11: str) -> tuple[int, int]:
    """Pay, die, wait, let the mint end it; (msat lost, ends too many). Raises FellShort."""
    _set_state(scene, "PENDING")
    before_sat = scene.outstanding_sat()
    with scene.node({"OPERATION_WAIT_S": "1"}, failpoint=point) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            balance_msat = await customer.open_key(KEY_SAT)
            paying = asyncio.create_task(_pay(customer, bolt11))
            await asyncio.to_thread(node.wait_until_killed)
            await asyncio.gather(paying, return_exceptions=True)
            node.arm(None)
            node.start()
            refund = (await _pay(customer, bolt11)).json()
            require("a payment that hangs", refund["status"], "pending")
            held_msat = balance_msat - int(refund["sats"]) * MSAT
            require("what is left meanwhile", (await customer.info())["balance"], held_msat)
            scene.mint.stop()
            _set_state(scene, ENDS[end][0])
            refund = await _ended(customer, refund["refund_id"])
            require("its end", refund["status"], ENDS[end][1])
            return await _count(scene, customer, refund, bolt11, balance_msat, before_sat)


def _set_state(scene: Scene, state: str) -> None:
    scene.mint.change({STATE: state})
    scene.mint.restart()


async def _pay(customer: Customer, bolt11: str) -> httpx.Response:
    return await customer.call("POST", "/v1/balance/refund", {"invoice": bolt11})


async def _ended(customer: Customer, refund_id: str) -> Answer:
    """The refund as soon as it is not pending any more; nobody repeats anything."""
    deadline_s = time.monotonic() + END_TIMEOUT_S
    while True:
        answer = await customer.call("GET", f"/v1/balance/refund/{refund_id}")
        refund: Answer = answer.json()
        if refund["status"] != "pending":
            return refund
        if time.monotonic() > deadline_s:
            raise FellShort("the payment stays pending")
        await asyncio.sleep(POLL_S)


async def _count(
    scene: Scene,
    customer: Customer,
    refund: Answer,
    bolt11: str,
    balance_msat: int,
    before_sat: int,
) -> tuple[int, int]:
    """(msat lost, ends too many), by the customer's balance, the audit and the mint's books."""
    is_paid = refund["status"] == "completed"
    debit_msat = int(refund["sats"]) * MSAT if is_paid else 0
    now_msat = (await customer.info())["balance"]
    totals = (await audit(customer.node, "--deep"))["totals"]
    require("what the node owes", totals["balances_msat"], now_msat)
    require("the node's surplus", totals["surplus_msat"], 0)
    require("what is pending", totals["pending_withdrawals_msat"], 0)
    in_hands_msat = customer.wallet.balance * MSAT + totals["held_msat"]
    vanished_msat = (scene.outstanding_sat() - before_sat) * MSAT - in_hands_msat
    melts = [state for (state,) in rows(customer.node, MELTS)]
    require("the melt", melts, ["done" if is_paid else "failed"])
    missed_msat = balance_msat - debit_msat - now_msat
    return abs(missed_msat) + abs(vanished_msat), scene.paid(bolt11) - int(is_paid)
