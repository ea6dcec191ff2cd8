"""The status of a host that is well."""

from reyes.status import AcceptedRuleset, Applied, Run, Status
from tests.machine import NOW

GOOD = Status(
    run=Run(at=NOW, seconds=0.2, outcome="unchanged"),
    last_success=NOW,
    instance="i-0000000b",
    region="us-west-2",
    ruleset=AcceptedRuleset(
        serial=NOW * 1000,
        generated_at=NOW,
        not_after=NOW + 3600,
        environment="production",
        signer="A" * 40,
        key_expires_at=None,
    ),
    applied=Applied(at=NOW, seconds=0.5, rules=12, sets=(), enforced=True),
)
