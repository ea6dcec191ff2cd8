"""Make the signing key and the two directories that hold it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from reyes.adapters.files import make_private_directory, write_atomically
from reyes.adapters.gpg import KEYRING_FILE, check_home, gnupg_program
from reyes.errors import ConfigError

PARTS = (("follower", 0o755), ("leader", 0o700))
"""The directories and their modes; the secret one appears last."""


def make_keyrings(directory: Path, name: str, expire: str) -> str:
    """Make `leader` and `follower` in `directory`, or nothing; return the key's fingerprint.

    `expire` is gpg's: 0 for never, or such as 2y.
    """
    directory = directory.absolute()
    for part, _ in PARTS:
        if os.path.lexists(directory / part):
            raise ConfigError(
                f"{directory / part} exists already, and no key is overwritten",
                "name another directory with --directory",
            )
    try:
        is_new = make_private_directory(directory)
        staging = Path(tempfile.mkdtemp(dir=directory, prefix=".new-"))
    except OSError as error:
        raise ConfigError(f"cannot write in {directory}: {error.strerror}") from error
    try:
        fingerprint = _fill(staging, name, expire)
        _move(staging, directory)
    finally:
        shutil.rmtree(staging)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
    return fingerprint


def _fill(staging: Path, name: str, expire: str) -> str:
    for part, mode in PARTS:
        (staging / part).mkdir()
        (staging / part).chmod(mode)
    home = staging / "leader"
    check_home(home)
    try:
        fingerprint = _generate(home, name, expire)
        public = _run("gpg", home, "--export", fingerprint)
    finally:
        _run("gpgconf", home, "--kill", "all")
        # The agent removes its sockets some time after; they must not move with the home.
        for socket in home.glob("S.*"):
            socket.unlink(missing_ok=True)
    for part, _ in PARTS:
        write_atomically(staging / part / KEYRING_FILE, public, 0o644)
    return fingerprint


def _generate(home: Path, name: str, expire: str) -> str:
    made = "[GNUPG:] KEY_CREATED P "
    try:
        status = _run(
            "gpg",
            home,
            *("--no-options", "--batch", "--status-fd", "1", "--passphrase", ""),
            *("--quick-generate-key", "--", name, "ed25519", "sign", expire),
        )
    except ConfigError as error:
        error.hint = f"gpg was given --name {name!r} and --expire {expire!r}"
        raise
    return next(
        line.removeprefix(made) for line in status.decode().splitlines() if line.startswith(made)
    )


def _run(program: str, home: Path, *arguments: str) -> bytes:
    done = subprocess.run(
        [gnupg_program(program), "--homedir", str(home), *arguments],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("gpg: ") if lines else f"{program} failed"
        raise ConfigError(f"cannot make the key: {reason}")
    return done.stdout


def _move(staging: Path, directory: Path) -> None:
    moved: list[Path] = []
    try:
        for part, _ in PARTS:
            (staging / part).rename(directory / part)
            moved.append(directory / part)
    except BaseException as error:
        for path in moved:
            shutil.rmtree(path)
        if isinstance(error, OSError):
            raise ConfigError(f"cannot write in {directory}: {error.strerror}") from error
        raise
