"""Files that survive crashes, and paths that others must not control."""

import os
from pathlib import Path

import pytest

from reyes.adapters.files import check_private, move_file, remove_leftovers, write_atomically
from reyes.errors import ConfigError


def test_file_is_written_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"one", 0o600)
    write_atomically(path, b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    path = tmp_path / "state.json"
    path.symlink_to(target)
    write_atomically(path, b"new", 0o600)
    assert not path.is_symlink()
    assert target.read_bytes() == b"untouched"


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_failure_leaves_what_was_there(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"good", 0o600)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ConfigError, match=r"cannot write .*state.json: No space left"):
        write_atomically(path, b"half", 0o600)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"good", 0o600)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"half", 0o600)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_behind_the_last_step_is_no_failure_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "state.json", Path.replace

    def replace_and_interrupt(temporary: Path, target: Path) -> None:
        replace(temporary, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"whole", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / f".state.json.{end}" for end in ("k1ll3d_x", "abcdefgh", "d"))
    for path in (old, young, other, tmp_path / "state.json"):
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, other, tmp_path / "state.json"]


def test_file_and_directory_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(tmp_path / "state.json", b"new", 0o600)
    assert synced[0].startswith(f"{tmp_path}/.state.json.")
    assert synced[1] == str(tmp_path)
    move_file(tmp_path / "state.json", tmp_path / "previous.json")
    assert synced[2:] == [str(tmp_path)]


def test_directory_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        write_atomically(tmp_path / "missing" / "state.json", b"", 0o600)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "above" / "directory" / "file"
    path.parent.mkdir(mode=0o755, parents=True)
    path.write_bytes(b"")
    path.chmod(0o644)
    return path


def test_private_paths_pass(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_private(private)
    check_private(private.parent)
    monkeypatch.chdir(private.parent)
    check_private(Path("file"))
    check_private(Path("../directory/file"))


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_private(path)
    return caught.value


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_others_may_write_is_refused(private: Path, mode: int, level: int) -> None:
    at_fault = [private, *private.parents][level]
    mode |= 0o111 if level else 0
    at_fault.chmod(mode)
    error = refused(private)
    assert f"{at_fault} is writable by others (mode {mode:04o})" in error.message
    assert error.hint == f"chmod go-w {at_fault}"


def test_sticky_directories_are_safe_only_above(private: Path) -> None:
    private.parent.chmod(0o1777)
    check_private(private)
    assert "mode 1777" in refused(private.parent).message


def test_missing_path_is_refused(private: Path) -> None:
    assert "No such file" in refused(private.parent / "missing").message


def test_ring_of_links_is_refused(private: Path) -> None:
    ring = private.parent / "ring"
    ring.symlink_to(ring)
    assert "cannot use" in refused(ring).message


def test_link_leads_to_checks_of_its_target(private: Path, tmp_path: Path) -> None:
    for link, target in (("absolute", private), ("relative", Path("above/directory/file"))):
        (tmp_path / link).symlink_to(target)
        check_private(tmp_path / link)
    private.parent.chmod(0o777)
    for link in ("absolute", "relative"):
        assert str(private.parent) in refused(tmp_path / link).message


def test_what_belongs_to_others_is_refused(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(private)
    lstat = Path.lstat

    for at_fault, path in ((private, private), (private.parent, private), (link, link)):

        def foreign(self: Path, at_fault: Path = at_fault) -> os.stat_result:
            facts = list(lstat(self))
            facts[4] = 12345 if self == at_fault else facts[4]
            return os.stat_result(facts)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "lstat", foreign)
            error = refused(path)
        assert f"{at_fault} belongs to user 12345" in error.message
        assert error.hint == (
            f"chown root {at_fault}, or run it as that user, as with the keyring of a leader"
        )
