"""gpg, through python-gnupg: sign with one key, and report what a message is signed with.

Facts only: whether a report is good enough is decided in `trust`.
"""

import functools
import logging
import os
import resource
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from reyes.adapters.files import check_private
from reyes.adapters.programs import find_program
from reyes.config import SigningConfig
from reyes.envelope import MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, Envelope, SignatureReport
from reyes.errors import ConfigError, SignatureError
from reyes.text import one_line

KEYRING_FILE = "trusted.gpg"
"""The public keys, as `gpg --export` writes them, in the keyring directory of either side."""

MAX_HOME_LENGTH = 80
"""Characters of a GNUPGHOME: its agent's sockets have at most 107, with their names."""

AGENT_SECONDS = 30
"""Longer than gpg itself waits for an agent that it has started."""

SIGN_OPTIONS = ("--no-options", "--disable-dirmngr", "--pinentry-mode", "error")
"""A key with a passphrase fails at once, instead of asking nobody."""

VERIFY_OPTIONS = (
    "--no-options",
    "--no-autostart",
    "--disable-dirmngr",
    "--no-auto-key-retrieve",
    "--no-auto-key-locate",
    "--no-auto-check-trustdb",
    "--lock-never",
    "--trust-model",  # the pin in `trust` is the decision, not the web of trust
    "always",
    "--weak-digest",
    "SHA1",
    "--log-file",  # python-gnupg reads its status lines from stderr: keep all other text out
    "/dev/null",
)
"""Verify with nothing but the keyring: no configuration, no agent, no network, no file written."""

_STATUS = b"[GNUPG:] "
"""What a status line begins with."""

_SIGNING_HINTS = {
    "pinentry": "the key must have no passphrase",
    "time conflict": "is the clock right? The key was made later than now",
}
"""By what gpg says. From 2.4 on it takes a key from the future for one that can sign."""

_SECRET_KEY = 5
"""The tag of the packet that each exported secret key begins with."""

_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""What no object makes gpg end by below the hard limits of this process: somebody does, or the
kernel for want of memory."""

EMPTY_HOME = Path("/proc")
"""A GNUPGHOME without keys and configuration, where not even root can write."""

VERIFY_SECONDS = 10
"""CPU time for one object: gpg skips packets that it does not know, and prints nothing of them.

The largest text and object take 0.3 s, and several times as much where a virtual CPU is throttled.
"""

VERIFY_BYTES = 256 * 2**20
"""Memory for one object: gpg keeps all signatures that it meets. The largest text takes 11 MB."""


class Gpg:
    """The keys of one keyring directory."""

    def __init__(self, config: SigningConfig) -> None:
        self._directory = Path(config.keyring_directory)
        self._signing_key = config.signing_key.upper()

    def sign(self, payload: bytes) -> Envelope:
        """Sign with the configured key, or with a signing subkey of it that gpg chooses.

        gpg-agent stays for the next run: where nobody reaps orphans, one that is ended each
        time leaves a zombie each time.

        Raises:
            ConfigError: the key is not there or cannot sign, or gpg-agent does not run.
            SignatureError: gpg signed with another one.
        """
        home = self._secret_home()
        _start_agent(home)
        gpg = open_gpg(home, SIGN_OPTIONS)
        usable = self._secret_fingerprints(gpg)
        # python-gnupg's own `keyid` falls back to any other key.
        result = gpg.sign(
            payload, clearsign=False, binary=True, extra_args=["--local-user", self._signing_key]
        )
        if not result or result.returncode != 0:
            reason = _last_message(result)
            hints = (hint for said, hint in _SIGNING_HINTS.items() if said in reason)
            raise ConfigError(
                f"gpg cannot sign with {self._signing_key}: {reason}", next(hints, None)
            )
        if result.fingerprint not in usable:
            raise SignatureError(
                f"gpg signed with {result.fingerprint}, which is not of {self._signing_key}"
            )
        return Envelope(blob=result.data)

    def inspect(self, envelope: Envelope) -> SignatureReport:
        """Verify a message with the public keyring, and report what gpg found.

        Raises:
            ConfigError: the keyring cannot be used.
            SignatureError: the blob is no binary OpenPGP message, or larger than any leader's, or
                more work than any leader's.
        """
        _check_blob(envelope.blob)
        gpg = open_gpg(EMPTY_HOME, VERIFY_OPTIONS, self._public_keyring())
        done = _verify(gpg, envelope.blob)
        result = _parse_status(gpg, done.stderr)
        return SignatureReport(
            payload=done.stdout,
            valid=result.valid,
            returncode=done.returncode,
            status=_status_text(result),
            key_status=result.key_status,
            problems=len(result.problems),
            # python-gnupg takes copies of a signature for one.
            signatures=done.stderr.count(_STATUS + b"NEWSIG"),
            primary_fingerprint=result.pubkey_fingerprint,
            key_expires_at=_key_expiry(gpg, result),
        )

    def trusted_keys(self) -> dict[str, str | None]:
        """Return the public primary keys by fingerprint, each with why it signs nothing, if so.

        Raises:
            ConfigError: the keyring is unusable.
        """
        keys = open_gpg(EMPTY_HOME, VERIFY_OPTIONS, self._public_keyring()).list_keys()
        # Of a key's copies gpg takes the first.
        return {key["fingerprint"]: _defect(key) for key in reversed(keys)}

    def _secret_home(self) -> Path:
        home = self._directory
        check_home(home)
        self._check_readable()
        check_private(home)
        if home.stat().st_mode & 0o077:
            raise ConfigError(
                f"{home} is open to others, and is the place of a secret key", f"chmod 700 {home}"
            )
        return home

    def _secret_fingerprints(self, gpg: Any) -> frozenset[str]:
        """Return the primary's and its subkeys' fingerprints if the key can sign."""
        where = f"{self._signing_key} in {self._directory}"
        keys = gpg.list_keys(secret=True, keys=[self._signing_key])
        key = next((k for k in keys if k["fingerprint"] == self._signing_key), None)
        if key is None:
            raise ConfigError(
                f"there is no secret key {where}",
                "signing.signing_key is the primary key's fingerprint; `reyes keygen` makes a key",
            )
        defect = _defect(key)
        if defect:
            raise ConfigError(
                f"the key {where} {defect}",
                "is the clock right? Else import the prolonged key here, or make a new one",
            )
        return frozenset({self._signing_key, *(subkey[2] for subkey in key["subkeys"])})

    def _public_keyring(self) -> Path:
        keyring = self._directory / KEYRING_FILE
        make = f"gpg --export {self._signing_key} > {keyring}"
        self._check_readable()
        if not keyring.is_file():  # gpg would make an empty one
            raise ConfigError(f"the keyring {keyring} does not exist", make)
        check_private(keyring)
        try:
            with keyring.open("rb") as file:
                first = file.read(1)
        except OSError as error:
            raise ConfigError(f"cannot read the keyring {keyring}: {error.strerror}") from error
        if not _is_binary(first):
            raise ConfigError(f"the keyring {keyring} is not in gpg's binary form", make)
        if _is_secret_key(first):
            raise ConfigError(f"the keyring {keyring} holds a secret key, not a public one", make)
        return keyring

    def _check_readable(self) -> None:
        """Refuse a directory of which gpg would say that it holds no key."""
        try:
            (self._directory / KEYRING_FILE).stat()
        except PermissionError as error:
            raise ConfigError(
                f"the keyring directory {self._directory} is not readable for this user",
                "run it as the owner of that directory",
            ) from error
        except OSError:
            return  # whoever needs that file says what is wrong with it


@functools.cache
def gnupg_program(name: str) -> str:
    """Return the absolute path of one of GnuPG's programs."""
    found = find_program(name)
    if found is None:
        raise ConfigError(f"{name} is not installed", "install the package gnupg")
    return found


def check_home(home: Path) -> None:
    """Refuse a GNUPGHOME whose agent could not make its sockets."""
    if len(str(home)) > MAX_HOME_LENGTH:
        raise ConfigError(
            f"the keyring directory {home} has a path of {len(str(home))} characters",
            f"gpg-agent's sockets need a path of at most {MAX_HOME_LENGTH}",
        )


def _defect(key: Any) -> str | None:
    """Say why a listed key does not sign, if so."""
    if "S" in key["cap"]:  # a capital one: some part of the key can sign at this time
        return None
    return {"e": "has expired", "r": "was revoked"}.get(key["trust"], "cannot sign")


def _start_agent(home: Path) -> None:
    """Start gpg-agent, unless it runs; ConfigError if it does not answer.

    Without one gpg says that there is no secret key, and it waits for ever for one that hangs.
    """
    argv = [gnupg_program("gpg-connect-agent"), "--homedir", str(home), "/bye"]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, check=False, timeout=AGENT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"gpg-agent does not answer in {home}",
            f"end it, and remove {home}/*.lock, which a killed process may have left behind",
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace")
        raise ConfigError(
            f"gpg-agent does not start in {home}: {one_line(said)}",
            "the directory must be writable for this user and have space; a packaged unit names"
            " it in ReadWritePaths=",
        )


def open_gpg(home: Path, options: tuple[str, ...], keyring: Path | None = None) -> Any:
    """Return a python-gnupg object, untyped as the library is."""
    import gnupg  # noqa: PLC0415 - most runs verify nothing

    # At debug level it logs whole documents.
    logging.getLogger("gnupg").setLevel(logging.WARNING)
    program = gnupg_program("gpg")
    try:
        return gnupg.GPG(
            gpgbinary=program,
            gnupghome=str(home),
            keyring=str(keyring) if keyring else None,
            options=list(options),
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot run {program} in {home}: {error}") from error


def _check_blob(blob: bytes) -> None:
    if len(blob) > MAX_ENVELOPE_BYTES:
        raise SignatureError(f"the object has {len(blob)} bytes, more than {MAX_ENVELOPE_BYTES}")
    # Clear-signed and armored messages may carry text that nobody signed.
    if not _is_binary(blob[:1]):
        raise SignatureError("the object is no binary OpenPGP message")


def _is_binary(first: bytes) -> bool:
    """Tell whether an OpenPGP packet can begin with this byte (RFC 4880, 4.2)."""
    return bool(first) and bool(first[0] & 0x80)


def _is_secret_key(first: bytes) -> bool:
    """Tell whether a packet with this first byte is a secret key (RFC 4880, 4.2 and 4.3)."""
    is_new = first[0] & 0x40
    return (first[0] & 0x3F if is_new else first[0] >> 2 & 0x0F) == _SECRET_KEY


def _verify(gpg: Any, blob: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run gpg on a blob; python-gnupg would leave it behind when a deadline passes."""
    options = ("--max-output", str(MAX_PAYLOAD_BYTES), "--output", "-", "--verify")
    argv = gpg.make_args(options, passphrase=False)
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=gpg.env) as process:
            try:
                _limit_resources(process.pid)
                printed, said = process.communicate(blob)
            finally:
                process.kill()
    except OSError as error:
        raise ConfigError(f"cannot run {argv[0]} on the object: {error.strerror}") from error
    if process.returncode == -signal.SIGXCPU:
        raise SignatureError(
            f"gpg did not come to an end with the object within {VERIFY_SECONDS} s",
            "find out who wrote that object",
        )
    if -process.returncode in _FROM_OUTSIDE:
        by = signal.Signals(-process.returncode).name
        raise ConfigError(
            f"gpg was ended by {by} before it had an answer",
            "see whether this host has enough memory, and who ends processes here",
        )
    return subprocess.CompletedProcess(argv, process.returncode, printed, said)


def _limit_resources(process: int) -> None:
    """Let the kernel end a process that uses too much CPU time, and give it no more memory."""
    most_of = {resource.RLIMIT_CPU: VERIFY_SECONDS, resource.RLIMIT_DATA: VERIFY_BYTES}
    for kind, most in most_of.items():
        _, hard = resource.prlimit(process, kind)
        with suppress(ValueError):  # a lower bound is in force
            resource.prlimit(process, kind, (most, hard))


def _parse_status(gpg: Any, said: bytes) -> Any:
    """Return python-gnupg's result for what gpg said; only a line feed ends a status line."""
    result = gpg.result_map["verify"](gpg)
    try:
        for line in said.split(b"\n"):
            if line.startswith(_STATUS):
                keyword, _, value = line.removeprefix(_STATUS).decode("latin-1").partition(" ")
                result.handle_status(keyword, value)
    except (ValueError, LookupError) as error:
        raise SignatureError("gpg's report on the object cannot be understood") from error
    return result


def _status_text(result: Any) -> str:
    if result.status == "no public key":
        return f"no public key for {result.key_id}"
    return str(result.status or "no complete message")


def _key_expiry(gpg: Any, result: Any) -> int | None:
    """Return when the primary or the signing subkey expires, whichever is first."""
    if not result.pubkey_fingerprint:
        return None
    parts = [
        part
        for key in gpg.list_keys(keys=[result.pubkey_fingerprint])
        for part in (key, *key.get("subkey_info", {}).values())
        if part["fingerprint"] in (result.pubkey_fingerprint, result.fingerprint)
    ]
    return min((int(part["expires"]) for part in parts if part["expires"]), default=None)


def _last_message(result: Any) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("gpg: ")]
    return lines[-1].rpartition(": ")[2].lower() if lines else f"exit code {result.returncode}"
