"""What gpg says of good and bad messages, and that `trust` refuses every bad one."""

import errno
import logging
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reyes.adapters import gpg as gpg_adapter
from reyes.adapters.deadline import deadline
from reyes.adapters.gpg import KEYRING_FILE, Gpg
from reyes.envelope import MAX_ENVELOPE_BYTES, Envelope, SignatureReport
from reyes.errors import ConfigError, SignatureError, UnreachableError
from reyes.trust import authenticate
from tests.gnupg_home import FAR_AHEAD, LONG_AGO, GnupgHome, gnupg_home, gpg_in
from tests.worlds import document

NOW = 1_795_000_000
PAYLOAD = document(NOW)
SPECIFICATION = Path(__file__).parents[2] / "docs" / "ruleset-format.md"


@dataclass(frozen=True)
class Workshop:
    """Keys of every kind in one home, all of them in the public keyring but the outsider."""

    home: GnupgHome
    leader: str
    stranger: str
    outsider: str
    expired: str
    revoked: str
    divided: str
    subkey: str
    locked: str
    rsa: str
    dying: str
    unborn: str

    def gpg(self, key: str) -> Gpg:
        return gpg_in(self.home.path, key)

    def inspect(self, blob: bytes) -> SignatureReport:
        return self.gpg(self.leader).inspect(Envelope(blob))

    def refuse(self, blob: bytes) -> str:
        """The reason why a message is refused, with every key but the stranger's pinned."""
        pins = {self.leader, self.expired, self.revoked, self.divided, self.rsa, self.outsider}
        with pytest.raises(SignatureError) as caught:
            authenticate(self.inspect(blob), frozenset(pins))
        return caught.value.message


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with gnupg_home() as home:
        divided = home.generate("Divided", usage="cert")
        shop = Workshop(
            home=home,
            leader=home.generate("Leader"),
            stranger=home.generate("Stranger"),
            outsider=home.generate("Outsider"),
            expired=home.generate("Expired", *LONG_AGO, expire="1d"),
            revoked=home.generate("Revoked"),
            divided=divided,
            subkey=home.add_subkey(divided),
            locked=home.generate("Locked", passphrase="secret"),
            rsa=home.generate("Rsa", algorithm="rsa2048"),
            dying=home.generate("Dying", expire="30d"),
            unborn=home.generate("Unborn", *FAR_AHEAD),
        )
        ring = [v for k, v in vars(shop).items() if k not in ("home", "outsider", "subkey")]
        before = home.sign(PAYLOAD, shop.revoked)
        (home.path / "before-revocation.gpg").write_bytes(before)
        home.revoke(shop.revoked)
        home.export(home.path / KEYRING_FILE, *ring)
        subprocess.run(["gpgconf", "--homedir", str(home.path), "--kill", "all"], check=True)
        yield shop


@pytest.mark.parametrize("key", ["leader", "rsa", "divided", "dying"])
def test_what_is_signed_comes_back_unchanged(workshop: Workshop, key: str) -> None:
    fingerprint = getattr(workshop, key)
    envelope = workshop.gpg(fingerprint).sign(PAYLOAD)
    report = workshop.inspect(envelope.blob)
    assert report.payload == PAYLOAD
    assert report.primary_fingerprint == fingerprint
    assert (report.valid, report.returncode, report.status, report.key_status) == (
        True,
        0,
        "signature valid",
        None,
    )
    assert (report.problems, report.signatures) == (0, 1)
    assert authenticate(report, frozenset({fingerprint})).signer == fingerprint


def test_keys_that_sign_nothing_that_counts_are_told(workshop: Workshop) -> None:
    found = workshop.gpg(workshop.leader).trusted_keys()
    known = {name: found.get(key) for name, key in vars(workshop).items() if key in found}
    assert known.pop("expired") == "has expired"
    assert known.pop("revoked") == "was revoked"
    known.pop("unborn")  # gpg from 2.4 on takes it for one that can sign
    assert set(known) == {"leader", "stranger", "divided", "locked", "rsa", "dying"}
    assert set(known.values()) == {None}


def test_of_a_keys_copies_in_the_keyring_the_first_counts() -> None:
    with gnupg_home() as home:
        key = home.generate("Leader", *LONG_AGO, expire="1d")
        old = home.run("--export", key)
        home.run("--quick-set-expire", key, "2y")
        new = home.run("--export", key)
        blob = home.sign(PAYLOAD, key)
        for copies, status, valid in ((old + new, "has expired", False), (new + old, None, True)):
            (home.path / KEYRING_FILE).write_bytes(copies)
            gpg = gpg_in(home.path, key)
            assert gpg.trusted_keys() == {key: status}
            assert gpg.inspect(Envelope(blob)).valid is valid


@pytest.mark.parametrize(
    "payload", [b"x" * 1_000_000, "ü\r\n \t\x0c-----BEGIN".encode(), bytes(range(256)) * 40]
)
def test_no_byte_is_changed(workshop: Workshop, payload: bytes) -> None:
    envelope = workshop.gpg(workshop.leader).sign(payload)
    assert workshop.inspect(envelope.blob).payload == payload


def test_signing_key_may_be_written_in_small_letters(workshop: Workshop) -> None:
    envelope = workshop.gpg(workshop.leader.lower()).sign(PAYLOAD)
    assert workshop.inspect(envelope.blob).primary_fingerprint == workshop.leader


def test_subkey_signs_for_its_primary(workshop: Workshop) -> None:
    packets = workshop.home.run(
        "--list-packets", stdin=workshop.gpg(workshop.divided).sign(PAYLOAD).blob
    )
    assert workshop.subkey[-16:] in packets.decode()


@pytest.mark.parametrize(("key", "part"), [("dying", "pub:"), ("divided", "sub:")])
def test_expiry_of_the_signing_key_is_reported(workshop: Workshop, key: str, part: str) -> None:
    fingerprint = getattr(workshop, key)
    report = workshop.inspect(workshop.gpg(fingerprint).sign(PAYLOAD).blob)
    listing = workshop.home.run("--with-colons", "--list-keys", fingerprint).decode()
    assert report.key_expires_at == int(listing.partition(part)[2].split(":")[5])


@pytest.mark.parametrize("expire", ["7d", "60d"])
def test_of_primary_and_signing_subkey_the_first_to_expire_counts(expire: str) -> None:
    with gnupg_home() as home:
        key = home.generate("Leader", usage="cert", expire=expire)
        home.add_subkey(key)
        home.run("--passphrase", "", "--quick-add-key", key, "cv25519", "encr", "1d")
        home.export(home.path / KEYRING_FILE, key)
        report = gpg_in(home.path, key).inspect(gpg_in(home.path, key).sign(PAYLOAD))
        listing = home.run("--with-colons", "--list-keys", key).decode()
    primary, subkey = (int(listing.partition(part)[2].split(":")[5]) for part in ("pub:", "sub:"))
    assert report.key_expires_at == (primary if expire == "7d" else subkey)
    assert abs(primary - subkey) > 86_400


def test_a_key_without_end_has_no_expiry(workshop: Workshop) -> None:
    report = workshop.inspect(workshop.gpg(workshop.leader).sign(PAYLOAD).blob)
    assert report.key_expires_at is None


@pytest.mark.parametrize(
    ("key", "reason", "hint"),
    [
        ("expired", "has expired", "import the prolonged key"),
        ("revoked", "was revoked", "make a new one"),
        ("locked", "no pinentry", "must have no passphrase"),
        ("subkey", "there is no secret key", "the primary key's fingerprint"),
    ],
)
def test_key_that_cannot_sign_is_named_with_the_reason(
    workshop: Workshop, key: str, reason: str, hint: str
) -> None:
    fingerprint = getattr(workshop, key)
    with pytest.raises(ConfigError, match=reason) as caught:
        workshop.gpg(fingerprint).sign(PAYLOAD)
    assert fingerprint in caught.value.message
    assert hint in (caught.value.hint or "")


def test_who_signs_before_the_key_was_made_is_told_to_look_at_the_clock(
    workshop: Workshop,
) -> None:
    with pytest.raises(ConfigError, match="cannot sign") as caught:
        workshop.gpg(workshop.unborn).sign(PAYLOAD)
    assert "clock" in (caught.value.hint or "")


def test_unknown_key_is_never_replaced_by_another(workshop: Workshop) -> None:
    with pytest.raises(ConfigError, match="there is no secret key " + "0" * 40):
        workshop.gpg("0" * 40).sign(PAYLOAD)


def test_signature_by_another_key_than_asked_for_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gpg, "_secret_fingerprints", lambda *_: frozenset({workshop.stranger}))
    with pytest.raises(SignatureError, match=workshop.leader):
        workshop.gpg(workshop.leader).sign(PAYLOAD)


def test_a_message_that_gpg_signed_and_failed_is_none(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gpg_adapter.gnupg_program
    (fake := tmp_path / "gpg").write_text(
        f'#!/bin/sh\n{real("gpg")} "$@" || exit\ncase "$*" in *" -s "*) exit 2 ;; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(
        gpg_adapter, "gnupg_program", lambda name: str(fake) if name == "gpg" else real(name)
    )
    with pytest.raises(ConfigError, match=f"cannot sign with {workshop.leader}: exit code 2"):
        workshop.gpg(workshop.leader).sign(PAYLOAD)


def test_signing_leaves_the_secret_home_as_it_was(workshop: Workshop) -> None:
    workshop.gpg(workshop.leader).sign(PAYLOAD)
    before = contents(workshop.home.path)
    workshop.gpg(workshop.leader).sign(PAYLOAD)
    assert contents(workshop.home.path) == before


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# What a verification says, case by case: each of these is refused, whatever looks good in it.


def test_message_of_an_expired_key(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.expired, *LONG_AGO)
    report = workshop.inspect(blob)
    assert (report.returncode, report.status) == (0, "signature valid")
    assert "the signing key has expired" in workshop.refuse(blob)


def test_message_of_a_revoked_key(workshop: Workshop) -> None:
    blob = (workshop.home.path / "before-revocation.gpg").read_bytes()
    report = workshop.inspect(blob)
    assert (report.returncode, report.status) == (0, "signature valid")
    assert "the signing key was revoked" in workshop.refuse(blob)


def test_signature_that_expired(workshop: Workshop) -> None:
    blob = workshop.home.sign(
        PAYLOAD, workshop.rsa, "--faked-system-time", tomorrow(), "--default-sig-expire", "1d"
    )
    assert workshop.inspect(blob).valid is True
    old = workshop.home.sign(
        PAYLOAD, workshop.expired, *LONG_AGO, "--default-sig-expire", "seconds=60"
    )
    assert workshop.inspect(old).valid is False
    assert "signature refused" in workshop.refuse(old)


def tomorrow() -> str:
    return subprocess.run(
        ["date", "-u", "-d", "+1 day", "+%Y%m%dT%H%M%S!"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()


def test_message_of_an_unrelated_key_in_the_ring(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.stranger)
    report = workshop.inspect(blob)
    assert (report.valid, report.returncode, report.problems) == (True, 0, 0)
    assert workshop.stranger in workshop.refuse(blob)


def test_message_of_a_key_outside_the_ring(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.outsider)
    report = workshop.inspect(blob)
    assert report.returncode != 0
    assert report.problems != 0
    said = workshop.refuse(blob)
    assert f"no public key for {workshop.outsider[-16:]}" in said


def test_a_message_that_breaks_off_at_once(workshop: Workshop) -> None:
    compressed = b"\xa3\x01"  # RFC 4880, 5.6, and nothing behind it
    said = workshop.refuse(compressed)
    assert said in (
        "signature refused: gpg says 'no complete message'",
        "signature refused: gpg says 'error - gpg-exit 33554433'",  # from gpg 2.4 on
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [("outsider", "leader"), ("leader", "outsider"), ("stranger", "leader"), ("rsa", "leader")],
)
def test_message_with_two_signatures(workshop: Workshop, first: str, second: str) -> None:
    blob = workshop.home.sign(
        PAYLOAD, getattr(workshop, first), "--local-user", getattr(workshop, second)
    )
    assert "signature refused" in workshop.refuse(blob)


@pytest.mark.parametrize("compression", ["0", "6"])
def test_only_what_is_signed_counts_of_several_messages(
    workshop: Workshop, compression: str
) -> None:
    good = workshop.home.sign(PAYLOAD, workshop.leader, "-z", compression)
    other = workshop.home.sign(b"more", workshop.stranger, "-z", compression)
    bare = workshop.home.run("--store", "-z", compression, stdin=b"more")
    for behind in (good + good, good + other, good + bare, good + b"\xb0\x03abc"):
        report = workshop.inspect(behind)
        assert report.payload == PAYLOAD or not report.valid
    for before in (other + good, bare + good):
        assert workshop.refuse(before)


def test_no_change_of_a_message_makes_another_text_good(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.leader)
    for position in range(0, len(blob), len(blob) // 60):
        changed = bytearray(blob)
        changed[position] ^= 0x04
        if changed[0] & 0x80:
            report = workshop.inspect(bytes(changed))
            assert not report.valid or report.returncode or report.payload == PAYLOAD


def test_sha1_signature(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.rsa, "--digest-algo", "SHA1")
    assert "signature refused" in workshop.refuse(blob)


def test_signature_that_is_older_than_its_key(workshop: Workshop) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.leader, *LONG_AGO, "--ignore-time-conflict")
    assert "signature refused: gpg says 'signature error'" in workshop.refuse(blob)


def test_who_verifies_before_the_key_was_made_is_told_to_look_at_the_clock(
    workshop: Workshop,
) -> None:
    report = workshop.inspect(workshop.home.sign(PAYLOAD, workshop.unborn, *FAR_AHEAD))
    with pytest.raises(SignatureError, match="signature refused") as caught:
        authenticate(report, frozenset({workshop.unborn}))
    assert "clock" in (caught.value.hint or "")


def test_literal_without_signature(workshop: Workshop) -> None:
    blob = workshop.home.run("--store", stdin=PAYLOAD)
    assert "signature expected but not found" in workshop.refuse(blob)


def test_encrypted_message(workshop: Workshop) -> None:
    blob = workshop.home.run(*SYMMETRIC, stdin=PAYLOAD)
    assert workshop.refuse(blob)


SYMMETRIC = (
    *("--symmetric", "--passphrase", "x", "--pinentry-mode", "loopback"),
    *("--s2k-count", "1024"),
)


def test_detached_signature_alone(workshop: Workshop) -> None:
    assert workshop.refuse(workshop.home.sign(PAYLOAD, workshop.leader, form="--detach-sign"))


def test_public_key_instead_of_a_message(workshop: Workshop) -> None:
    assert workshop.refuse(workshop.home.run("--export", workshop.leader))


@pytest.mark.parametrize("form", ["--clear-sign", "--armor"])
def test_text_forms_are_refused_before_gpg_runs(
    workshop: Workshop, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--armor",) if form == "--armor" else ()
    blob = workshop.home.sign(
        PAYLOAD, workshop.leader, *options, form="--sign" if options else form
    )
    monkeypatch.setattr(gpg_adapter, "open_gpg", None)
    assert "no binary OpenPGP message" in workshop.refuse(blob)


@pytest.mark.parametrize("blob", [b"", PAYLOAD, b"\n" + PAYLOAD])
def test_other_bytes_are_refused_before_gpg_runs(
    workshop: Workshop, blob: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpg_adapter, "open_gpg", None)
    assert "no binary OpenPGP message" in workshop.refuse(blob)


def test_object_above_the_bound_is_refused_before_gpg_runs(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpg_adapter, "open_gpg", None)
    assert str(MAX_ENVELOPE_BYTES) in workshop.refuse(b"\x90" * (MAX_ENVELOPE_BYTES + 1))


def fake_gpg(directory: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Let a shell's commands verify."""
    fake = directory / "gpg"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *--list-config*) echo cfg:version:2.2.40;; *) {does};; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(gpg_adapter, "gnupg_program", lambda _: str(fake))


def test_report_that_cannot_be_understood_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpg(tmp_path, monkeypatch, "cat >/dev/null; echo '[GNUPG:] GOODSIG' >&2")
    assert "cannot be understood" in workshop.refuse(b"\x90")
    fake_gpg(tmp_path, monkeypatch, "cat >/dev/null; echo 'GOODSIG' >&2")  # no report
    assert "no complete message" in workshop.refuse(b"\x90")


def test_gpg_that_does_not_work_is_no_fault_of_the_object(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script in ("#!/bin/sh\nexit 127\n", "no program"):
        (fake := tmp_path / "gpg").write_text(script)
        fake.chmod(0o755)
        monkeypatch.setattr(gpg_adapter, "gnupg_program", lambda _, path=fake: str(path))
        with pytest.raises(ConfigError, match=f"^cannot run {fake} in /proc: "):
            workshop.inspect(b"\x90")


def test_gpg_that_somebody_ends_is_no_fault_of_the_object(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HUP", "INT", "TERM", "KILL"):
        fake_gpg(tmp_path, monkeypatch, f"kill -{name} $$; sleep 9")
        with pytest.raises(ConfigError, match=f"^gpg was ended by SIG{name} before"):
            workshop.inspect(b"\x90")
    fake_gpg(tmp_path, monkeypatch, "kill -SEGV $$")
    assert "no complete message" in workshop.refuse(b"\x90")


def test_gpg_that_cannot_be_bounded_is_no_fault_of_the_object(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("resource.prlimit", forbidden)
    with pytest.raises(ConfigError, match=r"cannot run .*gpg on the object: .* not permitted"):
        workshop.inspect(b"\x90")


def test_a_lower_bound_of_one_kind_leaves_the_other(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = []

    def limit(_process: int, kind: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        if limits:
            if kind == resource.RLIMIT_CPU:
                raise ValueError
            bounded.append(kind)
        return 0, 0

    monkeypatch.setattr("resource.prlimit", limit)
    workshop.refuse(b"\x90")
    assert bounded == [resource.RLIMIT_DATA]


def test_no_gpg_outlives_a_deadline(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, end = tmp_path / "number", tmp_path / "end"
    fake_gpg(tmp_path, monkeypatch, f"echo $$ >'{number}'; sleep 3; echo >'{end}'")
    with pytest.raises(UnreachableError), deadline(0.5):
        workshop.inspect(b"\x90")
    assert not Path("/proc", number.read_text().strip()).exists()
    assert not end.exists()  # nobody waited for it


# The surroundings.


def test_verifying_needs_nothing_and_leaves_nothing(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = workshop.home.sign(PAYLOAD, workshop.leader)
    subprocess.run(["gpgconf", "--homedir", str(workshop.home.path), "--kill", "all"], check=True)
    shutil.copy(workshop.home.path / KEYRING_FILE, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    for name in ("HOME", "GNUPGHOME", "PATH", "LANG"):
        monkeypatch.delenv(name, raising=False)
    gpg_adapter.gnupg_program.cache_clear()
    before = contents(tmp_path)
    assert gpg_in(tmp_path, workshop.leader).inspect(Envelope(blob)).valid
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [KEYRING_FILE]
    assert not agents(tmp_path)


def agents(under: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "gpg-agent" in command and str(under) in command:
            found.append(command)
    return found


def test_documents_are_not_logged(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    workshop.inspect(workshop.gpg(workshop.leader).sign(PAYLOAD).blob)
    assert "environment" not in caplog.text
    assert not [record for record in caplog.records if record.levelno < logging.WARNING]


def test_configuration_in_the_secret_home_has_no_say(workshop: Workshop) -> None:
    options = workshop.home.path / "gpg.conf"
    options.write_text(f"default-key {workshop.stranger}\narmor\nlocal-user {workshop.rsa}\n")
    try:
        report = workshop.inspect(workshop.gpg(workshop.leader).sign(PAYLOAD).blob)
    finally:
        options.unlink()
    assert (report.primary_fingerprint, report.signatures) == (workshop.leader, 1)


def follower_directory(workshop: Workshop, tmp_path: Path) -> Path:
    directory = tmp_path / "keyring"
    directory.mkdir(mode=0o755)
    shutil.copy(workshop.home.path / KEYRING_FILE, directory)
    (directory / KEYRING_FILE).chmod(0o644)
    return directory


def refused_keyring(directory: Path, workshop: Workshop) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        gpg_in(directory, workshop.leader).inspect(Envelope(b"\x90"))
    return caught.value


def test_missing_keyring_is_said_and_not_made(workshop: Workshop, tmp_path: Path) -> None:
    error = refused_keyring(tmp_path, workshop)
    assert "does not exist" in error.message
    assert error.hint
    assert f"gpg --export {workshop.leader}" in error.hint
    assert list(tmp_path.iterdir()) == []


def test_armored_keyring_is_said(workshop: Workshop, tmp_path: Path) -> None:
    directory = follower_directory(workshop, tmp_path)
    armored = workshop.home.run("--armor", "--export", workshop.leader)
    (directory / KEYRING_FILE).write_bytes(armored)
    assert "not in gpg's binary form" in refused_keyring(directory, workshop).message


@pytest.mark.parametrize("tag", [b"\x94", b"\x95", b"\xc5"])
def test_a_secret_key_in_the_place_of_the_public_one_is_said(
    workshop: Workshop, tmp_path: Path, tag: bytes
) -> None:
    directory = follower_directory(workshop, tmp_path)
    secret = workshop.home.run("--export-secret-keys", workshop.leader)
    (directory / KEYRING_FILE).write_bytes(tag + secret[1:])
    error = refused_keyring(directory, workshop)
    assert "holds a secret key" in error.message
    assert error.hint
    assert "gpg --export " in error.hint


def test_empty_keyring_is_said(workshop: Workshop, tmp_path: Path) -> None:
    directory = follower_directory(workshop, tmp_path)
    (directory / KEYRING_FILE).write_bytes(b"")
    assert "not in gpg's binary form" in refused_keyring(directory, workshop).message


@pytest.mark.parametrize("name", [KEYRING_FILE, "."])
def test_keyring_that_others_may_write_is_refused(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    directory = follower_directory(workshop, tmp_path)
    (directory / name).chmod(0o777)
    error = refused_keyring(directory, workshop)
    assert "writable by others (mode 0777)" in error.message
    assert error.hint == f"chmod go-w {directory / name}"


@pytest.mark.parametrize("mode", [0o740, 0o701])
def test_secret_home_that_others_may_read_is_refused(workshop: Workshop, mode: int) -> None:
    workshop.home.path.chmod(mode)
    try:
        with pytest.raises(ConfigError, match="open to others"):
            workshop.gpg(workshop.leader).sign(PAYLOAD)
    finally:
        workshop.home.path.chmod(0o700)


def test_secret_home_with_a_long_path_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    home = tmp_path / ("x" * 80)
    with pytest.raises(ConfigError, match=r"path of \d+ characters"):
        gpg_in(home, workshop.leader).sign(PAYLOAD)


SPAWNING = "gnupg_spawn_agent_sentinel.lock"
"""Held by whoever starts an agent; its process that was killed may have another's number."""


def test_an_agent_that_cannot_start_is_no_missing_key() -> None:
    with gnupg_home() as home:
        key = home.generate("Leader")
        subprocess.run(["gpgconf", "--homedir", str(home.path), "--kill", "all"], check=True)
        (home.path / SPAWNING).mkdir()  # as little of a lock as a full disk has room for

        with pytest.raises(ConfigError, match="gpg-agent does not start") as caught:
            gpg_in(home.path, key).sign(PAYLOAD)

    assert "Is a directory" in caught.value.message


def test_an_agent_that_does_not_answer_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpg_adapter, "AGENT_SECONDS", 0.5)
    with gnupg_home() as home:
        key = home.generate("Leader")
        subprocess.run(["gpgconf", "--homedir", str(home.path), "--kill", "all"], check=True)
        (home.path / SPAWNING).write_text(f"{os.getpid():10}\n{os.uname().nodename}\n")

        with pytest.raises(ConfigError, match="gpg-agent does not answer") as caught:
            gpg_in(home.path, key).sign(PAYLOAD)

        (home.path / SPAWNING).unlink()
    assert f"{home.path}/*.lock" in (caught.value.hint or "")


def test_missing_gpg_is_said(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    gpg_adapter.gnupg_program.cache_clear()
    with pytest.raises(ConfigError, match="gpg is not installed"):
        workshop.inspect(b"\x90")


def test_gpg_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    gpg_adapter.gnupg_program.cache_clear()
    assert Path(gpg_adapter.gnupg_program("gpg")).is_absolute()


def test_the_specifications_commands_verify_a_ruleset(workshop: Workshop, tmp_path: Path) -> None:
    block = re.search(r"^gpg .*?(?=^```)", SPECIFICATION.read_text(), re.DOTALL | re.MULTILINE)
    assert block
    (tmp_path / "ruleset.gpg").write_bytes(workshop.gpg(workshop.leader).sign(PAYLOAD).blob)
    shutil.copy(workshop.home.path / KEYRING_FILE, tmp_path)
    done = subprocess.run(
        ["sh", "-ec", block[0]], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    assert (tmp_path / "ruleset.json").read_bytes() == PAYLOAD
    assert re.search(rf"VALIDSIG .*{workshop.leader}$", done.stderr, re.MULTILINE)
