"""What is left when the sets that nothing needs any more cannot be destroyed after a commit."""

import pytest

from tests.kernel.followers import FollowerHost

pytestmark = pytest.mark.kernel

LAST_LIST = """
if test "$1" = list && grep -qxF "$3" "$REYES_TEST/before"; then FAULT; fi
exec {real} "$@"
"""
"""What asks for a set of earlier is the last list of a pass, the one before it destroys sets."""


@pytest.fixture
def second(host: FollowerHost) -> FollowerHost:
    host.apply(0)
    host.apply(1)
    (host.directory / "before").write_text("\n".join(host.sets()), encoding="ascii")
    host.publish(2)
    return host


def test_sets_that_a_repair_destroys_are_made_anew(second: FollowerHost) -> None:
    """A run that is killed leaves the tidying to the next one, which wants one of those sets."""
    second.wrap("ipset", LAST_LIST.replace("FAULT", "kill -KILL $PPID"))
    assert second.run_alone().returncode != 0
    second.settle()
    assert second.in_force() == (2, 2)
    second.wrap("ipset")
    second.apply(0)


def test_sets_that_cannot_be_listed_are_left_for_the_next_run(second: FollowerHost) -> None:
    left = second.sets()
    second.wrap("ipset", LAST_LIST.replace("FAULT", "exit 1"))
    done = second.run()
    assert done.returncode == 0, done.stdout
    assert "left sets for the next run" in done.stdout
    assert second.in_force() == (2, 2)
    assert left < second.sets()
    second.wrap("ipset")
    second.apply(3)
    assert not left <= second.sets()
