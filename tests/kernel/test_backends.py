"""Rules in both backends of iptables, of which each sees only its own.

The follower's reader runs in a process: /proc/net is that of a process, not of a thread.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reyes.adapters.programs import find_program
from reyes.demo.namespaces import Namespace
from tests.kernel.judge import BACKENDS, Backend, backend

pytestmark = pytest.mark.kernel

OTHER: dict[Backend, Backend] = {"nft": "legacy", "legacy": "nft"}

ACCEPT = ("-A", "INPUT", "-j", "ACCEPT")
READ_TWICE = """
import os, sys
from reyes.adapters.kernel import Kernel
here, there = sys.argv[1:]
kernel = Kernel()
kernel.read()
os.rename(there, here)
kernel.read()
"""
"""As update-alternatives does it: the links change under a resident follower."""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    opened = Namespace()
    yield opened
    opened.close()


def run(namespace: Namespace, *command: str) -> str:
    """Run a command that must succeed, or return the last line of a traceback."""
    done = namespace.run(command)
    return done.stderr.splitlines()[-1] if done.returncode else ""


@pytest.mark.parametrize("ours", BACKENDS)
@pytest.mark.parametrize("prefix", ["iptables", "ip6tables"])
def test_rules_in_the_other_backend_are_refused(
    namespace: Namespace, ours: Backend, prefix: str
) -> None:
    read = (sys.executable, "-c", "from reyes.adapters.kernel import Kernel; Kernel().read()")
    with backend(ours):
        assert not run(namespace, *read)
        assert not run(namespace, f"{prefix}-{OTHER[ours]}", *ACCEPT)
        assert f"uses {ours}, but there are rules in {OTHER[ours]}" in run(namespace, *read)


@pytest.mark.parametrize("ours", BACKENDS)
def test_a_change_of_backend_under_a_resident_follower_is_noticed(
    namespace: Namespace, ours: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run(namespace, f"iptables-{ours}", *ACCEPT)
    with tempfile.TemporaryDirectory() as directory:
        here, there = Path(directory, "here"), Path(directory, "there")
        make_links(here, ours)
        make_links(there, OTHER[ours])
        (links := Path(directory, "links")).symlink_to(here)
        (new := Path(directory, "new")).symlink_to(there)
        monkeypatch.setenv("PATH", f"{links}:{os.environ['PATH']}")
        said = run(namespace, sys.executable, "-c", READ_TWICE, str(links), str(new))
    assert f"uses {OTHER[ours]}, but there are rules in {ours}" in said


def make_links(directory: Path, name: Backend) -> None:
    directory.mkdir()
    for prefix in ("iptables", "ip6tables"):
        for tool in ("save", "restore"):
            target = find_program(f"{prefix}-{name}-{tool}")
            assert target
            (directory / f"{prefix}-{tool}").symlink_to(target)
