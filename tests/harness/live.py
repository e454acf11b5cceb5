"""What is in force in a test's node, with the rules that real settings of the same values have."""

from dataclasses import asdict, replace

from routstr.assembly import in_force, rules_of
from routstr.config import Settings
from routstr.flows.limits import Limits, NodeFacts
from routstr.flows.live import InForce, Live


def live_of(limits: Limits, facts: NodeFacts) -> Live:
    """Those limits and facts, which can be changed as the operator's settings can."""
    named = {**asdict(facts), **asdict(limits), "refund_ttl_seconds": limits.refund_ttl_s}
    known = {name: value for name, value in named.items() if name in Settings.model_fields}
    settings = Settings.model_construct(**known, cashu_mints=facts.mints)
    started = in_force(settings)
    facts = replace(facts, version=started.facts.version)
    return Live(InForce(limits=limits, facts=facts, switches=started.switches), rules_of(settings))
