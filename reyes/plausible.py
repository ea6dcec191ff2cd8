"""What a leader publishes only if a person says so, because it looks like a mistake."""

from reyes.config import Config
from reyes.errors import ImplausibleError
from reyes.findings import OPEN_TO_WHOLE_NETWORKS, find_for
from reyes.ruleset import Content, Counts
from reyes.text import first_of

GUARDED = ("sources", "groups", "instances", "members")
"""The counts that fall when a region, an account or a page of a reply is missing."""

NAMED = 3
"""So many open rules are named: a name that is missing in the configuration makes one per VPC."""


def refuse_losses(before: Counts, after: Counts, max_shrink: float) -> None:
    """Refuse a world of which more than the share `max_shrink` is gone (ImplausibleError)."""
    messages = shrinkage(before, after, max_shrink)
    if messages:
        raise ImplausibleError(
            "; ".join(messages),
            "`reyes leader --dry-run --force` shows what vanished; --force publishes it",
        )


def shrinkage(before: Counts, after: Counts, max_shrink: float) -> list[str]:
    """Say what fell by more than the share `max_shrink`."""
    messages = []
    for name in GUARDED:
        had, has = getattr(before, name), getattr(after, name)
        if had - has > max_shrink * had:
            share = (had - has) / had
            messages.append(
                f"{name} fell from {had} to {has} ({share:.0%}, max_shrink is {max_shrink:.0%})"
            )
    return messages


def refuse_openings(config: Config, before: Content | None, after: Content) -> None:
    """Refuse rules that may be open to whole networks for want of an exclusion (ImplausibleError).

    They are looked at only where `excluded_group_names` are not what was published: whoever may
    write rules in EC2, and is told of by findings, must not be able to stop a leader.
    """
    if before and before.excluded_group_names == after.excluded_group_names:
        return
    known = _open_places(config, before) if before else {}
    places = [where for where in _open_places(config, after) if where not in known]
    if places:
        since = "excluded_group_names changed" if before else "nothing is published yet"
        raise ImplausibleError(
            f"open to whole networks, and {since}: {first_of(places, NAMED, '; ')}",
            "name the group that opens hosts to the VPN in leader.excluded_group_names, and narrow"
            " other rules; `reyes leader --dry-run --force --output FILE` and `reyes check-ruleset"
            " FILE` show all; --force publishes it",
        )


def _open_places(config: Config, content: Content) -> dict[str, None]:
    """Return the rules that are open to whole networks, each once, in their order."""
    findings = find_for(config, content)
    return dict.fromkeys(f.where for f in findings if f.kind == OPEN_TO_WHOLE_NETWORKS)
