"""A GNUPGHOME of the tests' own, with keys of every kind."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reyes.adapters.gpg import Gpg
from reyes.config import SigningConfig

LONG_AGO = ("--faked-system-time", "20200101T000000!")
FAR_AHEAD = ("--faked-system-time", "20900101T000000!")


class GnupgHome:
    """Runs gpg with a home that is short enough for its agent's sockets."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", str(self.path), "--batch", "--quiet", "--yes", *arguments],
            input=stdin,
            capture_output=True,
            check=True,
        ).stdout

    def generate(
        self,
        name: str,
        *options: str,
        algorithm: str = "ed25519",
        usage: str = "sign",
        expire: str = "0",
        passphrase: str = "",
    ) -> str:
        """Make a key and return its fingerprint."""
        status = self.run(
            *("--status-fd", "1", "--pinentry-mode", "loopback", "--passphrase", passphrase),
            *(*options, "--quick-generate-key", "--", name, algorithm, usage, expire),
        )
        return status.decode().partition("KEY_CREATED P ")[2][:40]

    def add_subkey(self, fingerprint: str) -> str:
        """Give a key a signing subkey for 30 days and return the subkey's fingerprint."""
        self.run("--passphrase", "", "--quick-add-key", fingerprint, "ed25519", "sign", "30d")
        return self.fingerprints(fingerprint)[-1]

    def fingerprints(self, key: str) -> list[str]:
        """The fingerprints of a primary and its subkeys, in this order."""
        listing = self.run("--with-colons", "--with-subkey-fingerprint", "--list-keys", key)
        lines = listing.decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr:")]

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that gpg made with it."""
        certificate = self.path / "openpgp-revocs.d" / f"{fingerprint}.rev"
        self.run("--import", stdin=certificate.read_bytes().replace(b":---", b"---"))

    def sign(self, payload: bytes, key: str, *options: str, form: str = "--sign") -> bytes:
        return self.run("--local-user", key, *options, form, stdin=payload)

    def export(self, path: Path, *keys: str) -> None:
        path.write_bytes(self.run("--export", *keys))


@contextmanager
def gnupg_home() -> Iterator[GnupgHome]:
    """A fresh home in a short path; its agent ends with it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="reyes-") as path:
        try:
            yield GnupgHome(Path(path))
        finally:
            subprocess.run(["gpgconf", "--homedir", path, "--kill", "all"], check=True)


def gpg_in(keyring_directory: Path, signing_key: str) -> Gpg:
    """The adapter for the keys of a directory."""
    return Gpg(SigningConfig(keyring_directory=str(keyring_directory), signing_key=signing_key))
