"""What kernel tests need, and what becomes of them where it cannot be had."""

import os
from collections.abc import Iterator

import pytest

from reyes.demo.namespaces import Namespace
from tests.bench.aws_server import AwsServer, aws_server
from tests.kernel.followers import FollowerHost, Keys


def why_not() -> str | None:
    """Say what is missing for kernel tests, if anything is."""
    try:
        namespace = Namespace()
    except OSError as error:
        return f"no network namespace to be had: {error} (run as root)"
    try:
        for argv in (["ipset", "list"], ["iptables", "-S"], ["ip6tables", "-S"]):
            done = namespace.run(argv)
            if done.returncode != 0:
                return f"{argv[0]} does not work in a network namespace: {done.stderr.strip()}"
    except FileNotFoundError as error:
        return f"a command is missing: {error}"
    finally:
        namespace.close()
    return None


@pytest.fixture(scope="session", autouse=True)
def _real_kernel() -> None:
    """Skip kernel tests where there is no kernel for them, and fail where there must be one."""
    reason = why_not()
    if reason and (os.environ.get("CI") or os.environ.get("REYES_REQUIRE_KERNEL")):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def keys(_real_kernel: None) -> Iterator[Keys]:
    with Keys() as made:
        yield made


@pytest.fixture
def host(keys: Keys) -> Iterator[FollowerHost]:
    with FollowerHost(keys) as made:
        yield made


@pytest.fixture
def store(host: FollowerHost) -> Iterator[AwsServer]:
    """EC2 and S3 on the host's loopback."""
    with aws_server(host.wire.host) as server:
        yield server
