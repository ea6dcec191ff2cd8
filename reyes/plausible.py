"""What a leader publishes only if a person says so, because it looks like a mistake."""

from reyes.config import Config
from reyes.difference import shrinkage
from reyes.errors import ImplausibleError
from reyes.findings import find_for
from reyes.ruleset import Content, Counts

_NAMED = 3
"""So many rules are named in a message."""


def refuse_losses(before: Counts, after: Counts, max_shrink: float) -> None:
    """Refuse a world of which more than the share `max_shrink` is gone (ImplausibleError)."""
    messages = shrinkage(before, after, max_shrink)
    if messages:
        raise ImplausibleError(
            "; ".join(messages),
            "`reyes leader --dry-run --force` shows what vanished; --force publishes it",
        )


def refuse_openings(config: Config, before: Content | None, after: Content) -> None:
    """Refuse rules that may be open to whole networks for want of an exclusion (ImplausibleError).

    They are looked at only where `excluded_group_names` are not what was published: whoever may
    write rules in EC2, and is told of by findings, must not be able to stop a leader.
    """
    if before and before.excluded_group_names == after.excluded_group_names:
        return
    known = set(find_for(config, before)) if before else set()
    opened = [one for one in find_for(config, after) if one.severity == "critical"]
    places = list(dict.fromkeys(one.where for one in opened if one not in known))
    if places:
        more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
        since = "excluded_group_names changed" if before else "nothing is published yet"
        raise ImplausibleError(
            f"open to whole networks, and {since}: {'; '.join(places[:_NAMED])}{more}",
            "name the group that opens hosts to the VPN in leader.excluded_group_names, and narrow"
            " other rules; `reyes leader --dry-run --force --output FILE` and `reyes check-ruleset"
            " FILE` show all; --force publishes it",
        )
