"""Hosts to measure on: a namespace of its own, a store on its loopback, a configuration."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Literal

import yaml

from reyes.adapters.gpg import Gpg
from reyes.adapters.keyring import make_keyrings
from reyes.config import FollowerConfig
from reyes.demo.namespaces import Namespace
from reyes.envelope import Envelope
from reyes.host import Host, configured_host
from reyes.policy import HostPolicy, resolve_content
from reyes.ruleset import Content, Header, encode
from reyes.ruleset import count as count_content
from tests.bench import processes
from tests.bench.aws_server import AwsServer, aws_server
from tests.bench.generator import HOME, SHARES
from tests.bench.processes import Cost
from tests.gnupg_home import gpg_in

Backend = Literal["nft", "legacy"]
BACKENDS: tuple[Backend, ...] = ("nft", "legacy")

BARE_CLIENT = (sys.executable, "-c", "import boto3; boto3.client('s3')")
"""What a run that asks S3 is measured against."""

_SERIALS = count(int(time.time() * 1000))


@dataclass(frozen=True)
class Bench:
    """What all measures share: is this a quick run, files in memory, a key."""

    quick: bool
    directory: Path

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    @property
    def few_rounds(self) -> int:
        """For what takes seconds each time."""
        return 1 if self.quick else 3

    @cached_property
    def fingerprint(self) -> str:
        return make_keyrings(self.directory / "keys", "Reyes bench", "0")

    def gpg(self, side: Literal["leader", "follower"]) -> Gpg:
        fingerprint = self.fingerprint
        return gpg_in(self.directory / "keys" / side, fingerprint)

    def sign(self, content: Content) -> Envelope:
        """Sign a content as the ruleset that follows all those before."""
        return self.gpg("leader").sign(document(content))

    def configure(self, name: str, side: Literal["leader", "follower"], section: object) -> Path:
        """Write a configuration and return its path."""
        fingerprint = self.fingerprint
        path = self.directory / f"{name}.yaml"
        text = yaml.safe_dump(
            {
                "environment": "bench",
                "s3": {"bucket": "acme-reyes", "key": "bench/ruleset.gpg", "region": HOME},
                "signing": {
                    "keyring_directory": str(self.directory / "keys" / side),
                    "signing_key": fingerprint,
                },
                side: section,
            }
        )
        path.write_text(text, encoding="utf-8")
        return path


def document(content: Content) -> bytes:
    """Write a content as the document that follows all those before."""
    now = int(time.time())
    header = Header(
        environment="bench",
        serial=next(_SERIALS),
        generated_at=now,
        not_after=now + 86_400,
        generator="bench",
        counts=count_content(content, len(SHARES)),
    )
    return encode(header, content)


def host_of(instance: str) -> Host:
    """Describe an instance of the home region with the default configuration."""
    return configured_host(FollowerConfig(), instance, HOME)


def policy_of(content: Content, instance: str) -> HostPolicy:
    """Work out what an instance of the home region lets in."""
    return resolve_content(content, host_of(instance))


@contextmanager
def backend(which: Backend, directory: Path) -> Iterator[None]:
    """Let the commands of iptables be those of one backend."""
    links = directory / which
    links.mkdir(exist_ok=True)
    for prefix in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            link = links / f"{prefix}{suffix}"
            if not link.is_symlink():
                link.symlink_to(_find(f"{prefix}-{which}{suffix}"))
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{links}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _find(command: str) -> Path:
    for directory in os.environ["PATH"].split(":"):
        path = Path(directory, command)
        if path.exists():
            return path
    raise FileNotFoundError(f"{command}: it comes with the package iptables")


@dataclass(frozen=True)
class FollowerHost:
    """A host that runs the real follower against a store of its own."""

    namespace: Namespace
    server: AwsServer
    config: Path
    state: Path

    def follow(self) -> Cost:
        """Run the follower once."""
        argv = (sys.executable, "-m", "reyes", "follower", "--config", str(self.config))
        return processes.run(self.namespace, argv, self.server.environment())

    def outcome(self) -> str:
        """Return how the last pass ended."""
        status = json.loads((self.state / "status.json").read_bytes())
        return str(status["run"]["outcome"])

    def bare_client(self) -> Cost:
        """Make a client for S3 and end."""
        return processes.run(self.namespace, BARE_CLIENT, self.server.environment())


@contextmanager
def follower_host(bench: Bench, name: str, instance: str, blob: bytes) -> Iterator[FollowerHost]:
    """Make a host whose store holds a signed ruleset; nothing is in force yet."""
    state = bench.directory / f"{name}-state"
    section = {
        "instance_id": instance,
        "region": HOME,
        "state_directory": str(state),
        "disable_file": str(bench.directory / "disabled"),
    }
    config = bench.configure(name, "follower", section)
    with Namespace() as namespace, aws_server(namespace) as server:
        server.blob = blob
        yield FollowerHost(namespace, server, config, state)
