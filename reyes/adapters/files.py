"""Files that must survive a crash, and files that nobody else may change."""

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from reyes.errors import ConfigError

_TEMPORARY = re.compile(r"^\..+\.(json|gpg)\.[a-z0-9_]{8}\Z")
_WRITING_SECONDS = 3600
"""Nobody writes a file for so long."""


def write_atomically(path: Path, data: bytes, mode: int, *, durable: bool = True) -> None:
    """Put `data` at `path`, whole, or leave what is there; ConfigError if it fails.

    Unless it is `durable` it need not outlive a crash of the machine, which saves two waits for
    the disk.
    """
    try:
        _replace(path, data, mode, durable=durable)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            "the directory must exist, be writable for this user and have space",
        ) from error


def move_file(path: Path, place: Path) -> None:
    """Put a file in the place of another one of its directory; ConfigError if that may not be."""
    try:
        path.replace(place)
        _sync_directory(place.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {place}: {error.strerror}") from error


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; ConfigError if that may not be."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot remove {path}: {error.strerror}") from error


def remove_leftovers(directory: Path) -> None:
    """Remove what writers that were killed have left beside their files, if it may be removed."""
    long_ago = time.time() - _WRITING_SECONDS
    for path in directory.glob(".*"):
        with suppress(OSError):
            if _TEMPORARY.search(path.name) and path.lstat().st_mtime < long_ago:
                path.unlink()


def check_private(path: Path) -> None:
    """Refuse a path that somebody besides root and this user could change or replace.

    ConfigError names the component at fault: the path itself, a directory above it, or a link
    on the way. Others may read it.
    """
    try:
        # Who owns / rules this host; inside a user namespace that is not uid 0.
        owners = {0, os.geteuid(), Path("/").stat().st_uid}
        for part, info in _components(path.absolute()):
            _check_component(path, part, info, owners)
    except OSError as error:
        raise ConfigError(f"cannot use {path}: {error.strerror}") from error


def make_private_directory(path: Path) -> bool:
    """Make a directory if it is missing, where nobody else could change or replace it.

    Return whether it was missing. One that is refused (ConfigError, as `check_private`) is not
    left behind.
    """
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        check_private(path)
        return False
    try:
        check_private(path)
    except ConfigError:
        path.rmdir()
        raise
    return True


def _replace(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # an interrupt may come when it is in its place
        raise
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _components(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield whatever the kernel passes on its way to `path`, links and their targets alike."""
    path.stat()  # raises on a missing file and on a ring of links
    for part in [*reversed(path.parents), path]:
        info = part.lstat()
        yield part, info
        if stat.S_ISLNK(info.st_mode):
            yield from _components(part.parent / part.readlink())


def _check_component(path: Path, part: Path, info: os.stat_result, owners: set[int]) -> None:
    if info.st_uid not in owners:
        raise ConfigError(
            f"cannot trust {path}: {part} belongs to user {info.st_uid}",
            f"chown root {part}, or run it as that user, as with the keyring of a leader",
        )
    others_write = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    sticky_directory = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX and part != path
    if others_write and not stat.S_ISLNK(info.st_mode) and not sticky_directory:
        raise ConfigError(
            f"cannot trust {path}: {part} is writable by others"
            f" (mode {stat.S_IMODE(info.st_mode):04o})",
            f"chmod go-w {part}",
        )
