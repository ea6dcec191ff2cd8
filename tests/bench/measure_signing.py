"""Signing and verifying a ruleset, beside the bare commands of gpg."""

import subprocess
from collections.abc import Callable, Iterator
from time import perf_counter

from reyes.trust import authenticate
from tests.bench.figures import Row, medians
from tests.bench.generator import MIDDLE, make_world
from tests.bench.hosts import Bench, document


def measure(bench: Bench) -> Iterator[Row]:
    payload = document(make_world(MIDDLE))
    leader, follower = bench.gpg("leader"), bench.gpg("follower")
    envelope = leader.sign(payload)
    home = bench.directory / "keys" / "leader"
    keyring = bench.directory / "keys" / "follower" / "trusted.gpg"
    pins = frozenset({bench.fingerprint})
    found = medians(
        {
            "gpg": _timed(
                lambda: _feed(("gpg", "--homedir", str(home), "--batch", "--sign"), payload)
            ),
            "sign": _timed(lambda: leader.sign(payload)),
            "gpgv": _timed(
                lambda: _feed(
                    ("gpgv", "--keyring", str(keyring), "--output", "-", "-"), envelope.blob
                )
            ),
            "verify": _timed(lambda: authenticate(follower.inspect(envelope), pins)),
        },
        bench.rounds,
    )
    size = f"ruleset of 10,000 instances, {len(payload) / 1e6:.1f} MB"
    yield Row(
        measure="signing",
        what=f"sign a {size}",
        beside="bare gpg --sign",
        unit="ms",
        floor=found["gpg"],
        ours=found["sign"],
    )
    yield Row(
        measure="signing",
        what=f"verify, decode and check a {size}",
        beside="bare gpgv",
        unit="ms",
        floor=found["gpgv"],
        ours=found["verify"],
    )


def _feed(argv: tuple[str, ...], stdin: bytes) -> None:
    subprocess.run(argv, input=stdin, capture_output=True, check=True)


def _timed(action: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        started = perf_counter()
        action()
        return (perf_counter() - started) * 1000

    return run
