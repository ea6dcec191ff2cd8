"""The cut-over: rules go live, prove healthy, or the rules before come back.

1. Arm: another process takes the way back if this one dies or hangs.
2. Execute: sets, rules, and both read back (netfilter.plan).
3. Confirm: the host still reaches what it reached before.
4. Go back if it does not, or if anything went wrong; disarm in any case.

What the kernel refuses in the rehearsal before it is never tried live (`reyes.trial`).

Sets need no way back: they are named by content, and those of the generation before stay.
"""

from collections.abc import Callable
from contextlib import suppress

from reyes.errors import KernelError, ReyesError
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import CommitPlan, FilterTable
from reyes.world import Guard, Kernel


class UnhealthyError(KernelError):
    """The rules went live, and the host did not prove healthy.

    The rules before are back, or the next pass brings them back.
    """


class BlamedError(UnhealthyError):
    """They did so in a pass before, and are not tried again.

    `repaired` tells whether something had changed the rules that stand instead.
    """

    def __init__(self, *, repaired: bool) -> None:
        super().__init__(
            "these rules cost the host its health before, or were not agreed to:"
            " they are not tried again",
            "--force tries them all the same",
        )
        self.repaired = repaired


def cut_over(
    plan: CommitPlan,
    before: LiveKernel,
    filter_table: FilterTable,
    *,
    kernel: Kernel,
    guard: Guard,
    approve: Callable[[], None],
) -> None:
    """Put a plan with new rules in force for good, or leave the rules before in force.

    `approve` remembers that they are good while the way back is still armed; if it fails, so do
    they.

    Raises:
        KernelError: the kernel refused.
        UnhealthyError: it took them, and the host lost what it must reach.
    """

    def go_back() -> None:
        kernel.revert(before, filter_table)

    trouble: str | None = None
    try:
        with guard.armed(go_back):
            kernel.execute(plan)
            try:
                trouble = guard.trouble()
                if not trouble:
                    approve()
            except BaseException:
                # Where this way back is refused there is another one: the switch goes it, too.
                with suppress(ReyesError):
                    go_back()
                raise
            if trouble:
                go_back()
    except ReyesError as error:
        if not trouble:
            raise
        _go_back_again(go_back, trouble, error)
    if trouble:
        raise _verdict(trouble, guard.is_well())


def _go_back_again(go_back: Callable[[], None], trouble: str, first: ReyesError) -> None:
    """Look whether the rules before are back, as the switch has gone back meanwhile.

    Rules that stand all the same are blamed, whatever else may be wrong.
    """
    try:
        go_back()
    except ReyesError as error:
        refused = f"{trouble}, and the way back is refused: {error.message}"
        raise UnhealthyError(refused, "the next run tries to go back once more") from first


def _verdict(trouble: str, well_again: bool) -> KernelError:  # noqa: FBT001 - a fact, not a switch
    """Blame the rules only if the host is well without them."""
    if well_again:
        return UnhealthyError(
            f"{trouble}: the rules before are back in force",
            "this ruleset is not tried again; --force tries it all the same",
        )
    return KernelError(
        f"{trouble}, and neither with the rules before, which are back in force",
        "something else is wrong; the next run tries again",
    )
