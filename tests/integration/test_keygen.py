"""`reyes keygen` makes a key that signs and verifies, or nothing at all."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reyes.adapters import keyring
from reyes.adapters.gpg import KEYRING_FILE
from reyes.cli import main
from reyes.config import SigningConfig
from reyes.trust import authenticate
from tests.gnupg_home import gpg_in
from tests.worlds import document

NOW = 1_795_000_000


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="reyes-") as path:
        yield Path(path) / "keys"


def keygen(directory: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["keygen", "--directory", str(directory), *options])


def made(result: Result) -> str:
    assert result.exit_code == 0, result.output
    found = re.search(r"^made the key ([0-9A-F]{40})$", result.output, re.MULTILINE)
    assert found
    return found[1]


def kill_agent(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def modes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mode & 0o7777:04o}"
        for path in sorted(directory.rglob("*"))
    }


def test_leader_signs_what_followers_accept(directory: Path) -> None:
    fingerprint = made(keygen(directory))
    try:
        envelope = gpg_in(directory / "leader", fingerprint).sign(document(NOW))
    finally:
        kill_agent(directory / "leader")
    for side in ("leader", "follower"):
        report = gpg_in(directory / side, fingerprint).inspect(envelope)
        assert authenticate(report, frozenset({fingerprint})).ruleset.header.serial == NOW * 1000
        assert report.key_expires_at is None


def test_directories_have_the_right_modes_and_no_more_files_than_needed(directory: Path) -> None:
    old = os.umask(0o077)
    try:
        made(keygen(directory))
    finally:
        os.umask(old)
    found = modes(directory)
    assert (found["leader"], found["follower"]) == ("0700", "0755")
    assert [name for name in found if name.startswith("follower/")] == [f"follower/{KEYRING_FILE}"]
    assert found[f"follower/{KEYRING_FILE}"] == found[f"leader/{KEYRING_FILE}"] == "0644"
    secrets = [name for name in found if "private-keys-v1.d/" in name]
    assert len(secrets) == 1
    assert found[secrets[0]] == "0600"
    assert not [name for name in found if "S.gpg" in name]
    assert sorted(path.name for path in directory.iterdir()) == ["follower", "leader"]


def test_follower_directory_holds_no_secret(directory: Path) -> None:
    made(keygen(directory))
    packets = subprocess.run(
        ["gpg", "--list-packets", str(directory / "follower" / KEYRING_FILE)],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert "public key packet" in packets
    assert "secret" not in packets


def test_printed_lines_are_configuration(directory: Path) -> None:
    import msgspec
    import yaml

    result = keygen(directory)
    fingerprint = made(result)
    section = yaml.safe_load(result.output[result.output.index("\nsigning:") :])
    config = msgspec.convert(section["signing"], SigningConfig)
    assert config.pins == {fingerprint}
    for part in ("leader/openpgp-revocs.d", "leader", "follower"):
        assert f"\n{directory / part}\n" in result.output
        assert (directory / part).is_dir()


def test_name_and_expiry_are_the_keys(directory: Path) -> None:
    fingerprint = made(keygen(directory, "--name", "Örtliche Leiter <a@b>", "--expire", "2y"))
    listing = subprocess.run(
        ["gpg", "--with-colons", "--show-keys", str(directory / "follower" / KEYRING_FILE)],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert ":Örtliche Leiter <a@b>:" in listing
    assert fingerprint in listing
    created, expires = map(int, listing.partition("pub:")[2].split(":")[4:6])
    assert 700 < (expires - created) / 86_400 < 740


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_existing_key_is_never_overwritten(directory: Path, side: str) -> None:
    (directory / side).mkdir(parents=True)
    (directory / side / "precious").write_text("secret")
    result = keygen(directory)
    assert result.exit_code == 78
    assert f"{directory / side} exists already" in result.output
    assert list(modes(directory)) == [side, f"{side}/precious"]


def test_second_key_beside_the_first_is_refused(directory: Path) -> None:
    made(keygen(directory))
    before = modes(directory)
    assert keygen(directory).exit_code == 78
    assert modes(directory) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--expire", "whenever"), "--expire 'whenever'"), (("--name", ""), "--name '' and")],
)
def test_nothing_is_left_when_gpg_refuses(
    directory: Path, options: tuple[str, ...], message: str
) -> None:
    result = keygen(directory, *options)
    assert result.exit_code == 78
    assert message in result.output
    assert not directory.exists()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_second_move_fails(
    directory: Path, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_at_last(self: Path, target: Path) -> Path:
        if target.name == "leader":
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_at_last)
    expected = 78 if isinstance(failure, OSError) else 1
    assert keygen(directory).exit_code == expected
    assert not directory.exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_when_it_is_ended(
    directory: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    gpg = tmp_path / "gpg"
    gpg.write_text(f"#!/bin/sh\n: >'{tmp_path}/begun'\nexec sleep 60\n")
    gpg.chmod(0o755)
    argv = [sys.executable, "-m", "reyes", "keygen", "--directory", str(directory)]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(argv, env=environment) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(ending)
        assert process.wait(60) != 0
    assert not directory.exists()


def test_path_that_is_too_long_for_the_agent_is_refused(directory: Path) -> None:
    result = keygen(directory.parent / ("x" * 80))
    assert result.exit_code == 78
    assert "characters" in result.output
    assert list(directory.parent.iterdir()) == []


def test_directory_that_cannot_be_made_is_said(directory: Path) -> None:
    result = keygen(directory / "deep" / "deeper")
    assert result.exit_code == 78
    assert "cannot write in" in result.output


def test_secret_directory_appears_last() -> None:
    assert [part for part, _ in keyring.PARTS] == ["follower", "leader"]
