"""`reyes follower --interval` in a process of its own: what it tells systemd, what it hears.

Passes end early here: a flag file disables them, or a store of the test's own says 404.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from reyes.cli import main

PATIENCE = 60.0
HOUR = "3600"


class Manager:
    """The service manager's end of the conversation."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self._socket.settimeout(PATIENCE)

    def hear(self) -> dict[str, str]:
        """Wait for the next message."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def hear_until(self, name: str) -> dict[str, str]:
        """Skip messages until one that assigns `name`."""
        while name not in (message := self.hear()):
            pass
        return message

    def close(self) -> None:
        self._socket.close()


class Store(ThreadingHTTPServer):
    """An S3 that tells with which access key it is asked, and answers 404 when it may."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Queue[str] = Queue()
        self.may_answer = threading.Semaphore(0)

    def wait_for_request(self) -> str:
        return self.asked.get(timeout=PATIENCE)


class _Handler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        # The scope reads key, date, region, service.
        credential = self.headers["Authorization"].partition("Credential=")[2]
        self.server.asked.put(credential.partition("/")[0])
        self.server.may_answer.acquire()
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.may_answer.release(1000)
        server.shutdown()
        thread.join()


class Host:
    """A host with a configuration, a follower that stays, and somebody who listens to it."""

    def __init__(self, directory: Path, address: str, store: Store) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.output = directory / "output"
        self.manager = Manager(address)
        self.environment = {
            **os.environ,
            "NOTIFY_SOCKET": address,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.server_port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, **follower: object) -> None:
        document = {
            "environment": "production",
            "s3": {"bucket": "acme-reyes", "key": "ruleset.gpg", "region": "us-west-2"},
            "signing": {"keyring_directory": "/nowhere", "signing_key": "A" * 40},
            "follower": {
                "instance_id": "i-0000000a",
                "region": "us-west-2",
                "state_directory": str(self.directory / "state"),
                "disable_file": str(self.directory / "disabled"),
                **follower,
            },
        }
        self.config.write_text(yaml.safe_dump(document))

    def read_credentials(self, text: str) -> Path:
        """Let the credentials be those of a file, which is returned."""
        del self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"]
        path = self.directory / "credentials"
        path.write_text(text)
        self.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(path)
        return path

    def disable(self, name: str = "disabled") -> str:
        flag = self.directory / name
        flag.touch()
        return str(flag)

    def start(self, interval: str = HOUR) -> None:
        command = ("follower", "--config", str(self.config), "--interval", interval)
        self.start_python("-m", "reyes", *command)

    def start_python(self, *arguments: str) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                (sys.executable, *arguments),
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def exit_code(self) -> int:
        assert self.process
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.manager.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    # pytest's own directories can be too long for a socket's name.
    with tempfile.TemporaryDirectory(prefix="reyes-") as directory:
        yield f"@{directory}" if request.param == "abstract" else f"{directory}/notify"


@pytest.fixture
def host(tmp_path: Path, address: str, store: Store) -> Iterator[Host]:
    host = Host(tmp_path, address, store)
    yield host
    host.end()


in_one_way = pytest.mark.parametrize("address", ["path"], indirect=True)
"""What kind of socket it is matters once."""


def test_a_life(host: Host) -> None:
    flag = host.disable()
    host.start()
    assert host.manager.hear() == {"READY": "1"}
    assert host.manager.hear() == {"WATCHDOG": "1"}
    status = host.manager.hear()
    assert status.pop("STATUS").endswith(" the last pass went well")
    assert status == {"WATCHDOG": "1"}
    host.signal(signal.SIGTERM)
    assert host.manager.hear() == {"STOPPING": "1"}
    assert host.exit_code() == 0
    assert host.output.read_text() == f"disabled by {flag}: nothing is touched\n"


@in_one_way
def test_it_is_not_ready_with_a_configuration_that_is_not_usable(host: Host) -> None:
    host.configure(nonsense=1)
    host.start()
    assert host.exit_code() == 78
    assert "follower.nonsense: unknown key" in host.output.read_text()
    host.disable()
    host.configure()
    host.start()
    assert host.manager.hear() == {"READY": "1"}  # the first message of all


@in_one_way
def test_sighup_reads_the_configuration_anew_and_runs_a_pass(host: Host) -> None:
    before, after = host.disable(), host.disable("off")
    host.start()
    host.manager.hear_until("STATUS")
    host.configure(disable_file=after)
    earliest = time.monotonic_ns() // 1000
    host.signal(signal.SIGHUP)
    reloading = host.manager.hear()
    assert reloading.pop("RELOADING") == "1"
    assert earliest <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert not reloading
    assert host.manager.hear() == {"READY": "1"}
    host.manager.hear_until("STATUS")
    assert host.output.read_text().splitlines() == [
        f"disabled by {before}: nothing is touched",
        "INFO configuration read anew",
        f"disabled by {after}: nothing is touched",
    ]


@in_one_way
def test_a_bad_new_configuration_changes_nothing(host: Host) -> None:
    flag = host.disable()
    host.start()
    host.manager.hear_until("STATUS")
    host.configure(nonsense=1)
    host.signal(signal.SIGHUP)
    host.manager.hear_until("RELOADING")
    assert host.manager.hear() == {"READY": "1"}
    host.manager.hear_until("STATUS")
    disabled = f"disabled by {flag}: nothing is touched"
    refusal = f"{host.config}: follower.nonsense: unknown key"
    assert host.output.read_text().splitlines() == [
        disabled,
        f"ERROR the configuration stays as it was: {refusal}",
        disabled,
    ]


@in_one_way
def test_a_signal_lets_the_pass_at_work_end(host: Host, store: Store) -> None:
    host.start()
    store.wait_for_request()
    host.signal(signal.SIGHUP)
    host.signal(signal.SIGTERM)
    store.may_answer.release()
    assert "404" in host.manager.hear_until("STATUS")["STATUS"]
    assert host.manager.hear() == {"STOPPING": "1"}
    assert host.exit_code() == 0


@in_one_way
def test_sigint_ends_it_as_well(host: Host) -> None:
    host.disable()
    host.start()
    host.manager.hear_until("STATUS")
    host.signal(signal.SIGINT)
    host.manager.hear_until("STOPPING")
    assert host.exit_code() == 0


@in_one_way
def test_a_pass_that_fails_is_reported_and_tried_again(host: Host, store: Store) -> None:
    store.may_answer.release(2)
    host.start(interval="1")
    for _ in range(2):
        status = host.manager.hear_until("STATUS")["STATUS"]
        assert " the last pass failed: s3://acme-reyes/ruleset.gpg: GetObject failed" in status
    first, second, *_ = host.output.read_text().splitlines()
    assert first == second
    assert first.startswith("ERROR s3://acme-reyes/ruleset.gpg: GetObject failed: 404: Not Found")
    assert " (exit code 75 if run once; hint: " in first


def credentials(key: str) -> str:
    return f"[default]\naws_access_key_id = {key}\naws_secret_access_key = none\n"


@in_one_way
def test_credentials_that_were_replaced_are_those_of_the_next_pass(
    host: Host, store: Store
) -> None:
    path = host.read_credentials(credentials("OLD"))
    host.start(interval="1")
    assert store.wait_for_request() == "OLD"
    path.write_text(credentials("NEW"))
    store.may_answer.release()
    assert store.wait_for_request() == "NEW"


@in_one_way
def test_credentials_that_come_late_are_those_of_the_next_pass(host: Host, store: Store) -> None:
    path = host.read_credentials("")
    host.start(interval="1")
    assert "Unable to locate credentials" in host.manager.hear_until("STATUS")["STATUS"]
    path.write_text(credentials("NEW"))
    assert store.wait_for_request() == "NEW"


@in_one_way
def test_a_deadline_that_rings_does_not_shorten_the_pause(host: Host) -> None:
    host.environment["WATCHDOG_USEC"] = "100000"
    host.configure(deadline=1)
    host.start()
    assert "within 1 s" in host.manager.hear_until("STATUS")["STATUS"]
    for _ in range(5):
        assert host.manager.hear() == {"WATCHDOG": "1"}
    assert host.output.read_text().count("ERROR") == 1


@in_one_way
def test_it_asks_for_the_patience_that_its_longest_pass_needs(host: Host) -> None:
    host.disable()
    host.environment["WATCHDOG_USEC"] = "180000000"
    host.configure(deadline=100, confirm_timeout=30)
    host.start()
    assert host.manager.hear() == {"WATCHDOG_USEC": "290000000"}
    assert host.manager.hear() == {"READY": "1"}
    host.manager.hear_until("STATUS")
    host.configure(deadline=40)
    host.signal(signal.SIGHUP)
    host.manager.hear_until("RELOADING")
    assert host.manager.hear() == {"READY": "1"}


@in_one_way
def test_what_an_error_says_is_no_message_to_the_manager(host: Host) -> None:
    host.start_python("-c", resident('raise KernelError("refused\\nREADY=0\\nMAINPID=1")'))
    assert host.manager.hear_until("STATUS").keys() == {"WATCHDOG", "STATUS"}


@in_one_way
def test_a_bug_ends_it_with_a_traceback(host: Host) -> None:
    host.start_python("-c", resident("1 / 0"))
    assert host.exit_code() == 1
    assert host.output.read_text().endswith("ZeroDivisionError: division by zero\n")


@in_one_way
@pytest.mark.parametrize("nobody", ["/nowhere/notify", "@nobody-listens", ""])
def test_without_a_manager_that_listens_it_runs_all_the_same(host: Host, nobody: str) -> None:
    flag = host.disable()
    host.environment["NOTIFY_SOCKET"] = nobody
    host.start()
    wait_until(lambda: flag in host.output.read_text())
    host.signal(signal.SIGTERM)
    assert host.exit_code() == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("leader --interval 5 --dry-run", "--dry-run is for a single pass"),
        ("leader --interval 5 --force", "--force is for a single pass"),
        ("leader --interval 0", "0 is not in the range"),
        ("follower --interval nan", "'nan' is not a valid integer"),
        ("follower --interval 5 --force", "--force is for a single pass"),
        ("follower --interval 5 --dry-run", "--interval and --dry-run exclude each other"),
        ("follower --interval 5 --boot", "--interval and --boot exclude each other"),
        ("follower --interval 5 --splay 1", "--interval varies by itself"),
        ("follower --interval 5 --interactive", "--interval asks nobody"),
    ],
)
def test_options_that_contradict_each_other(arguments: str, problem: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert problem in result.stderr


def resident(work: str) -> str:
    """Write a program whose pass does some work, once an hour."""
    return f"""
from reyes.cli.resident import ResidentPass, run_resident
from reyes.errors import KernelError
def work():
    {work}
run_resident(lambda: ResidentPass(work, 0), {HOUR})
"""


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
