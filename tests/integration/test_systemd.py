"""The units as systemd reads them, and the command line that they start.

`systemd-analyze` works on files here: no systemd need be running.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from reyes.config import FollowerConfig

PACKAGING = Path(__file__).parents[2] / "packaging" / "systemd"
PROGRAM = "/opt/reyes/bin/reyes"
SERVICES = ("reyes-leader.service", "reyes-follower.service")
MAX_EXPOSURE = {"reyes-leader.service": 16, "reyes-follower.service": 24}
"""Tenths on systemd's scale of 0 to 10; the follower is root, with two capabilities."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copy the units, with a program that is installed here."""
    existing = shutil.which("true")
    assert existing
    for source in PACKAGING.glob("reyes-*"):
        text = source.read_text(encoding="utf-8").replace(PROGRAM, existing)
        (tmp_path / source.name).write_text(text, encoding="utf-8")
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ("systemd-analyze", "--no-pager", *arguments)
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def verify(units: Path) -> subprocess.CompletedProcess[str]:
    # The distribution's own units are not on trial, and neither are its man pages.
    return analyze("verify", "--recursive-errors=no", "--man=no", *sorted(units.iterdir()))


def exposure_check(service: Path) -> subprocess.CompletedProcess[str]:
    limit = f"--threshold={MAX_EXPOSURE[service.name]}"
    return analyze("security", "--offline=true", limit, service)


def setting(unit: str, name: str) -> str:
    text = (PACKAGING / unit).read_text(encoding="utf-8")
    values: list[str] = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    assert len(values) == 1, f"{name} in {unit}: {values}"
    return values[0]


def test_systemd_understands_every_line(units: Path) -> None:
    result = verify(units)
    # An unknown setting is only a warning to systemd.
    assert (result.returncode, result.stdout) == (0, "")


def test_a_misspelt_setting_would_be_noticed(units: Path) -> None:
    service = units / "reyes-follower.service"
    text = service.read_text(encoding="utf-8")
    service.write_text(text.replace("ProtectSystem=", "ProtectSytem="), encoding="utf-8")
    assert "ProtectSytem" in verify(units).stdout


@pytest.mark.parametrize("service", SERVICES)
def test_services_stay_hardened(units: Path, service: str) -> None:
    result = exposure_check(units / service)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_regained_rights_would_be_noticed(units: Path, service: str) -> None:
    path = units / service
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub("CapabilityBoundingSet=.*", "", text), encoding="utf-8")
    assert exposure_check(path).returncode == 1


@pytest.mark.parametrize("service", SERVICES)
def test_services_start_commands_that_exist(service: str) -> None:
    from reyes.cli import main

    program, *arguments = shlex.split(setting(service, "ExecStart"))
    assert program == PROGRAM
    context = main.make_context("reyes", list(arguments))
    name, command, options = main.resolve_command(context, arguments)
    assert command
    command.make_context(name, options, parent=context)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_timer(service: str) -> None:
    assert (PACKAGING / service).with_suffix(".timer").is_file()


def test_the_follower_ends_itself_before_systemd_does() -> None:
    assert int(setting("reyes-follower.service", "TimeoutStartSec")) > FollowerConfig().deadline


def test_the_follower_keeps_its_state_where_it_may_write() -> None:
    directory = setting("reyes-follower.service", "StateDirectory")
    assert FollowerConfig().state_directory == f"/var/lib/{directory}"


def test_the_leaders_user_is_the_one_that_is_made() -> None:
    made = (PACKAGING / "reyes.sysusers").read_text(encoding="utf-8")
    assert re.search(rf"^u {setting('reyes-leader.service', 'User')} ", made, re.MULTILINE)
