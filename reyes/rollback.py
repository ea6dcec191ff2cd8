"""Going back to the generation before, and staying there against what is published."""

from collections.abc import Collection, Iterable

from msgspec import Struct
from msgspec.structs import replace

from reyes.errors import ConfigError, KernelError
from reyes.netfilter.ipset import IPSet
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.plan import FilterTable, drifted_sets, plan_return
from reyes.ruleset import Ruleset
from reyes.state import Hold
from reyes.world import Guard, Kernel, Memory

OTHERS_STAY_AWAY = "other programs' rules of that time do not come back: %s"
"""What to log of a `Return` that says `refused`."""


class Return(Struct, frozen=True, kw_only=True):
    """What came of the way back to a generation.

    `changed` tells whether anything had to be. `unknown` names sets that are empty or wrong, as
    nobody remembers their members; `refused` says why the rules of other programs did not come
    back, where all of the table should.
    """

    rules: LiveKernel
    changed: bool
    unknown: tuple[str, ...] = ()
    refused: str | None = None


def is_held(hold: Hold | None, ruleset: Ruleset, now: float) -> bool:
    """Tell whether a rollback still holds against a ruleset."""
    if hold is None or hold.ended(now):
        return False
    return ruleset.header.serial <= hold.serial or ruleset.content_sha256 == hold.content_sha256


def roll_back(
    memory: Memory,
    kernel: Kernel,
    guard: Guard,
    filter_table: FilterTable,
    until: int,
    *,
    on_trial: Generation | None = None,
    force: bool = False,
) -> Return:
    """Bring the generation before back and stay there until a time; 0 for no end.

    `on_trial` is what was remembered of a trial before the lock was had: whether that has ended
    well or not, its change is the last one.

    Where a rollback holds already its rules stay the ones to go back to, so that whoever says it
    twice, or to a whole fleet once more, changes nothing. One that is cut short leaves things as
    they were, or has the next pass finish it.

    Raises:
        ConfigError: no generation is remembered, or one without rules and without `force`.
        KernelError: the kernel refused, or a set of that generation is gone.
    """
    now = kernel.read(strict=False)
    state = memory.load()
    held = memory.generation("held") if state.hold else None
    # What a run left on trial is the last change, also if it has been taken back since, unless it
    # was refused in the rehearsal.
    trial, on_trial = (
        one if one and one.replaced else None for one in (memory.generation("trial"), on_trial)
    )
    before = trial or held or on_trial or memory.generation("previous")
    if before is None or state.accepted is None:
        raise ConfigError(
            "no earlier rules are remembered on this host",
            "each commit that changes rules remembers those before it",
        )
    if not before.kernel.judges and before is not held and not force:
        raise ConfigError(
            "there were no rules of Reyes before: a rollback would leave this host with none",
            "a group that lets in the whole tunnel would open it; --force goes back all the same",
        )
    hold = Hold(serial=state.accepted.serial, content_sha256=state.content_sha256, until=until)
    with guard.armed(lambda: kernel.revert(now, filter_table)):
        changed, refused = _go_back(before, now, kernel, filter_table)
        after = kernel.read(strict=False)
        if plan_return(before, after, "shared" if refused else filter_table).steps:
            kernel.revert(now, filter_table)
            raise KernelError(
                "the rules that came back are not in force",
                "another program may be changing the filter table at the same time",
            )
        if before is not held:
            # Sets of a family that has been switched off since are not there to be read.
            back = snapshot(replace(before.kernel, sets=after.sets), kernel)
            # What the kernel has made of a set costs nothing of what was known of it before.
            memory.keep_generation(
                "held", replace(back, members={**before.members, **back.members})
            )
        # Its sets may have been changed since: the next pass looks at their members.
        memory.save(replace(state, hold=hold, applied=None, members_checked_at=0))
        memory.end_trial(proved=False)
    return Return(rules=before.kernel, changed=changed, refused=refused)


def stay(
    memory: Memory,
    kernel: Kernel,
    filter_table: FilterTable,
    drifted: frozenset[str],
    known: Iterable[IPSet],
) -> Return:
    """Repair what is held: what a rollback brought back, or the rules before blamed ones.

    A set that is gone, and whose members nobody remembers, comes back empty.

    `drifted` is as for `plan_commit`, and `known` are sets whose members are certain: those of
    the ruleset that is not put in force, which differ little from what is held.

    Raises:
        ConfigError: nobody remembers what is held.
        KernelError: the kernel refused.
    """
    held = memory.generation("held")
    if held is None:
        raise ConfigError(
            "the rules that should be held are not remembered any more",
            "those in force stay as they are until another ruleset or `reyes rollback` ends that",
        )
    return bring_back(held, kernel, filter_table, drifted, known)


def bring_back(
    rules: Generation,
    kernel: Kernel,
    filter_table: FilterTable,
    drifted: frozenset[str],
    known: Iterable[IPSet],
) -> Return:
    """Put a generation in force; all else is as for `stay`."""
    live = kernel.read()
    members = {**{entry.name: entry.members for entry in known}, **rules.members}
    unknown = rules.referenced_sets.difference(members)
    # A group whose members nobody knows is locked out, rather than everybody let in.
    gone = dict.fromkeys(unknown.difference(live.sets), ())
    rules = replace(rules, members={**members, **gone})
    changed, refused = _go_back(rules, live, kernel, filter_table, drifted)
    unlike = tuple(sorted(unknown.intersection(drifted.union(gone))))
    return Return(rules=rules.kernel, changed=changed, unknown=unlike, refused=refused)


def _go_back(
    rules: Generation,
    live: LiveKernel,
    kernel: Kernel,
    filter_table: FilterTable,
    drifted: frozenset[str] = frozenset(),
) -> tuple[bool, str | None]:
    """Bring rules back, with others' if `filter_table` says so and the kernel takes them.

    A rule of another program may name a set that is not there any more, as after a restart; that
    keeps nobody from the rules of Reyes.

    Returns whether anything was changed, and what was refused: the next pass tries it again.
    """
    plan, refused = plan_return(rules, live, filter_table, drifted), None
    try:
        kernel.execute(plan)
    except KernelError as error:
        if filter_table != "exclusive":
            raise
        refused = error.message.splitlines()[0]
        plan = plan_return(rules, kernel.read(strict=False), "shared", drifted)
        kernel.execute(plan)
    return bool(plan.steps), refused


def snapshot(
    rules: LiveKernel, kernel: Kernel, without: Collection[str] = frozenset()
) -> Generation:
    """Read the members of the sets that rules name, and keep those that are right.

    `without` names sets that stay in force, whose members need not be remembered.
    """
    names = rules.referenced_sets.intersection(rules.sets).difference(without)
    members = kernel.read_members(names) if names else {}
    right = members.keys() - drifted_sets(members)
    return Generation(rules, {name: members[name] for name in right})
