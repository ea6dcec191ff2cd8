"""What others could change is not used: exit code 78 from the command line, nothing written.

Others are a user of another number, a group, everybody, and whoever owns a link on the way.
"""

import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from reyes.adapters.gpg import KEYRING_FILE
from reyes.adapters.keyring import make_keyrings
from reyes.adapters.state import StateDirectory
from reyes.cli import main
from reyes.cli.options import load_config
from reyes.config import Config
from reyes.errors import ConfigError, SignatureError
from reyes.net import Family
from reyes.netfilter.live import LiveKernel, nothing_live
from reyes.netfilter.plan import CommitPlan
from tests.fakes.ec2_server import ec2_server
from tests.fakes.proxy import Answer, proxy_to
from tests.gnupg_home import gnupg_home, gpg_in

FOREIGNER = 12_345
NOTHING_PUBLISHED = Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

Fault = Callable[[Path], None]


def foreign(path: Path) -> None:
    os.chown(path, FOREIGNER, -1)


def group_writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def world_writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-real")


def foreign_link(path: Path) -> None:
    path.symlink_to(path.rename(beside(path)))
    os.chown(path, FOREIGNER, -1, follow_symlinks=False)


def linked_to_what_others_write(path: Path) -> None:
    away = path.parent / "open"
    away.mkdir()
    path.symlink_to(path.rename(away / path.name))
    away.chmod(0o777)


def in_a_foreign_directory(path: Path) -> None:
    foreign(path.parent)


FAULTS: tuple[Fault, ...] = (
    foreign,
    group_writable,
    world_writable,
    foreign_link,
    linked_to_what_others_write,
    in_a_foreign_directory,
)


@pytest.fixture(autouse=True)
def _root() -> None:
    """Only root can give a file away."""
    if os.geteuid() != 0:
        reason = "giving files to another user needs root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Path, str]]:
    with gnupg_home() as home:
        fingerprint = home.generate("Leader")
        home.export(home.path / KEYRING_FILE, fingerprint)
        yield home.path, fingerprint


class EmptyKernel:
    """A kernel to look at: whoever tells it to do something fails."""

    @staticmethod
    def of_backend_in_use(family: Family) -> list["EmptyKernel"]:
        del family
        return [EmptyKernel()]

    @staticmethod
    def of_other_backend(family: Family) -> list["EmptyKernel"]:
        del family
        return []

    def read(self, *, strict: bool = True) -> LiveKernel:
        del strict
        return nothing_live(Family)

    def execute(self, plan: CommitPlan) -> None:
        assert plan.steps == ()

    def read_members(self, names: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        del names
        return {}


class Host:
    """A host's files, each in a directory of its own, and its command line.

    The object it is offered is no ruleset.
    """

    def __init__(self, directory: Path, keys: tuple[Path, str]) -> None:
        self.directory = directory
        for part in ("etc", "var", "keys"):
            (directory / part).mkdir(mode=0o755)
        self.config = directory / "etc" / "config.yaml"
        self.state = directory / "var" / "state"
        self.keyring = directory / "keys" / "ring"
        self.keyring.mkdir(mode=0o700)
        shutil.copy(keys[0] / KEYRING_FILE, self.keyring)
        self.state.mkdir(mode=0o700)
        (self.state / "state.json").write_bytes(b"{}")
        self.object = directory / "ruleset.gpg"
        self.object.write_bytes(b"\x80")
        self.config.write_text(
            json.dumps(
                {
                    "environment": "production",
                    "s3": {"bucket": "acme-reyes", "key": "ruleset.gpg", "region": "us-west-2"},
                    "signing": {"keyring_directory": str(self.keyring), "signing_key": keys[1]},
                    "leader": {"sources": [{"region": "us-west-2"}]},
                    "follower": {
                        "instance_id": "i-0a1b2c3d",
                        "state_directory": str(self.state),
                        "disable_file": str(directory / "etc" / "disabled"),
                    },
                }
            )
        )

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        argv = [command, "--config", str(self.config), *arguments]
        result = CliRunner().invoke(main, argv)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.output

    def follow(self) -> tuple[int, str]:
        return self.run("follower", "--ruleset", str(self.object))

    def files(self) -> dict[str, object]:
        """Every file with its content, every directory with its mode."""
        return {
            str(path): path.read_bytes() if path.is_file() else path.lstat().st_mode
            for path in sorted(self.directory.rglob("*"))
        }


@pytest.fixture
def host(keys: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose kernel can only be looked at."""
    for module in ("wiring", "removal"):
        monkeypatch.setattr(f"reyes.cli.{module}.Kernel", EmptyKernel)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="reyes-") as directory:
        yield Host(Path(directory), keys)


def test_keys_that_this_user_may_not_read(keys: tuple[Path, str]) -> None:
    gpg = gpg_in(*keys)
    os.seteuid(FOREIGNER)
    try:
        for use in (lambda: gpg.sign(b""), gpg.trusted_keys):
            with pytest.raises(ConfigError, match="not readable for this user") as caught:
                use()
            assert "run it as the owner" in (caught.value.hint or "")
    finally:
        os.seteuid(0)


def test_a_keyring_that_this_user_may_not_read(host: Host) -> None:
    for directory in (host.directory, host.keyring):
        directory.chmod(0o755)
    (host.keyring / KEYRING_FILE).chmod(0o600)
    os.seteuid(FOREIGNER)
    try:
        with pytest.raises(ConfigError, match=r"cannot read the keyring .*Permission denied"):
            gpg_in(host.keyring, "0" * 40).trusted_keys()
    finally:
        os.seteuid(0)


def refused(found: tuple[int, str]) -> None:
    code, said = found
    assert (code, "cannot trust" in said) == (ConfigError.exit_code, True), said


def test_good_permissions_let_a_run_begin(host: Host) -> None:
    assert host.follow()[0] == SignatureError.exit_code
    assert host.run("show", str(host.object))[0] == SignatureError.exit_code


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_directory_of_others(host: Host, fault: Fault) -> None:
    fault(host.state)
    before = host.files()
    for arguments in (("--ruleset", str(host.object)), ("--boot",)):
        refused(host.run("follower", *arguments))
        assert host.files() == before
    code, said = host.run("follower", "--remove")
    assert (code, host.files()) == (0, before)
    assert "there was nothing of Reyes" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dry_run_does_not_believe_what_others_wrote(host: Host, fault: Fault) -> None:
    (host.state / "state.json").write_bytes(b"no JSON")
    fault(host.state)
    before = host.files()
    _, said = host.run("follower", "--dry-run", "--ruleset", str(host.object))
    assert "replays cannot be recognised: cannot trust" in said
    assert host.files() == before


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disabled_run_writes_nothing_among_others(host: Host, fault: Fault) -> None:
    (host.directory / "etc" / "disabled").touch()
    fault(host.state)
    before = host.files()
    host.follow()
    assert host.files() == before


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_a_memory_that_others_wrote(host: Host, fault: Fault) -> None:
    fault(host.state / "state.json")
    refused(host.follow())


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_a_last_good_ruleset_that_others_wrote(host: Host, fault: Fault) -> None:
    (host.state / "last-good.gpg").write_bytes(b"\x80")
    fault(host.state / "last-good.gpg")
    refused(host.run("follower", "--boot"))


@pytest.mark.parametrize("fault", FAULTS)
def test_no_state_directory_is_made_among_others(host: Host, fault: Fault) -> None:
    shutil.rmtree(host.state)
    fault(host.state.parent)
    before = host.files()
    refused(host.follow())
    assert host.files() == before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", [".", KEYRING_FILE])
def test_a_keyring_of_others(host: Host, part: str, fault: Fault) -> None:
    fault(host.keyring / part)
    before = host.files()
    refused(host.run("show", str(host.object)))
    assert host.files() == before
    refused(host.follow())
    written = {Path(path).name for path, _ in host.files().items() - before.items()}
    assert written <= {"lock", "status.json", "state.json"}
    assert StateDirectory(host.state).load().accepted is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_leader_with_a_keyring_of_others(
    host: Host, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(host.keyring)
    before = host.files()
    with ec2_server() as ec2, proxy_to("http://127.0.0.1:1") as s3:
        s3.play("GET", NOTHING_PUBLISHED)
        for name, value in {
            "AWS_ENDPOINT_URL_S3": s3.url,
            "AWS_ENDPOINT_URL": ec2.url,
            "AWS_ACCESS_KEY_ID": "OWN",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        refused(host.run("leader"))
        assert "PUT" not in s3.seen
    assert host.files() == before


@pytest.mark.parametrize("fault", FAULTS)
def test_a_configuration_of_others(host: Host, fault: Fault) -> None:
    fault(host.config)
    before = host.files()
    for command in ("follower", "leader", "show", "check-config"):
        refused(host.run(command))
    assert host.files() == before


def test_a_configuration_in_a_sticky_directory(host: Host) -> None:
    host.config.parent.chmod(0o1777)
    assert isinstance(load_config(host.config), Config)


def test_what_an_ordinary_user_reads_is_their_own_affair(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    world_writable(host.config)
    monkeypatch.setattr(os, "geteuid", lambda: FOREIGNER)
    assert isinstance(load_config(host.config), Config)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0", b"environment: \xe9\n"])
def test_a_configuration_in_another_encoding(host: Host, content: bytes) -> None:
    host.config.write_bytes(content)
    assert host.run("follower")[0] == ConfigError.exit_code


def test_a_configuration_without_end_is_not_read() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError):
            load_config(Path("/dev/zero"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("path", ["a\0b", "/\ud800", "missing"])
def test_a_configuration_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(Path(path))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("target", ["there", "new"])
def test_keys_are_not_made_among_others(host: Host, target: str, fault: Fault) -> None:
    place = host.directory / "keys" / "made"
    place.mkdir(mode=0o700)
    fault(place)
    before = host.files()
    directory = place if target == "there" else place / "new"
    with pytest.raises(ConfigError, match="cannot trust"):
        make_keyrings(directory, "Leader", "0")
    result = CliRunner().invoke(main, ["keygen", "--directory", str(directory)])
    refused((result.exit_code, result.output))
    assert host.files() == before
