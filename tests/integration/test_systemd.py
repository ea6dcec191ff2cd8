"""The units as systemd reads them, and the command line that they start.

`systemd-analyze` works on files here: no systemd need be running.
"""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from reyes.cli.leader import WORK_SECONDS
from reyes.cli.passes import longest_pass
from reyes.config import FollowerConfig, LeaderConfig
from reyes.errors import SourceError

PACKAGING = Path(__file__).parents[2] / "packaging" / "systemd"
PROGRAM = "/opt/reyes/bin/reyes"
LEADER, FOLLOWER = "reyes-leader.service", "reyes-follower.service"
RESIDENT = {
    "reyes-leader-resident.service": LEADER,
    "reyes-follower-resident.service": FOLLOWER,
}
BOOT = "reyes-boot.service"
SERVICES = (LEADER, FOLLOWER, *RESIDENT, BOOT)
MAX_EXPOSURE = {"leader": 16, "follower": 28, "boot": 28}
"""Tenths on systemd's scale of 0 to 10; the follower is root, with two capabilities, and may make
two kinds of namespaces."""
OTHERWISE = {
    *("Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "RemainAfterExit"),
    *("TimeoutStartSec", "TimeoutStopSec", "WatchdogSec", "SuccessExitStatus", "KillMode"),
    "Environment",
}
"""What a service has besides its sandbox."""


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
    limit = f"--threshold={MAX_EXPOSURE[service.stem.split('-')[1]]}"
    return analyze("security", "--offline=true", limit, service)


def settings(unit: str) -> list[tuple[str, str]]:
    text = (PACKAGING / unit).read_text(encoding="utf-8")
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


def setting(unit: str, name: str) -> str:
    values = [value for key, value in settings(unit) if key == name]
    assert len(values) == 1, f"{name} in {unit}: {values}"
    return values[0]


def sandbox(unit: str) -> list[tuple[str, str]]:
    text = (PACKAGING / unit).read_text(encoding="utf-8")
    section = text.partition("[Service]")[2].partition("[Install]")[0]
    found: list[tuple[str, str]] = re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE)
    return [(name, value) for name, value in found if name not in OTHERWISE]


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


COMMANDS = {
    value
    for service in SERVICES
    for name, value in settings(service)
    if name in ("ExecStart", "ExecReload")
}


@pytest.mark.parametrize("line", sorted(COMMANDS - {"/bin/kill -HUP $MAINPID"}))
def test_services_start_commands_that_exist(line: str) -> None:
    from reyes.cli import main

    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    context = main.make_context("reyes", list(arguments))
    name, command, options = main.resolve_command(context, arguments)
    assert command
    command.make_context(name, options, parent=context)


@pytest.mark.parametrize("service", [LEADER, FOLLOWER])
def test_a_service_that_ends_has_its_timer(service: str) -> None:
    assert (PACKAGING / service).with_suffix(".timer").is_file()


@pytest.mark.parametrize(("service", "model"), RESIDENT.items())
def test_a_service_that_stays_has_the_sandbox_of_one_that_ends(service: str, model: str) -> None:
    assert sandbox(service) == sandbox(model)


def test_early_boot_has_the_sandbox_of_the_follower() -> None:
    assert sandbox(BOOT) == sandbox(FOLLOWER)


@pytest.mark.parametrize(("service", "model"), RESIDENT.items())
def test_a_service_that_stays_excludes_the_timer(service: str, model: str) -> None:
    assert setting(service, "Conflicts") == model.replace(".service", ".timer")


@pytest.mark.parametrize("service", [FOLLOWER, BOOT, "reyes-follower-resident.service"])
def test_the_dead_mans_switch_outlives_the_follower(service: str) -> None:
    assert setting(service, "KillMode") == "process"


@pytest.mark.parametrize(
    ("service", "name"),
    [
        (FOLLOWER, "TimeoutStartSec"),
        ("reyes-follower-resident.service", "WatchdogSec"),
        ("reyes-follower-resident.service", "TimeoutStopSec"),
    ],
)
def test_the_follower_ends_itself_before_systemd_does(service: str, name: str) -> None:
    assert int(setting(service, name)) > longest_pass(FollowerConfig())


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("reyes-leader.service", "TimeoutStartSec"),
        ("reyes-leader-resident.service", "WatchdogSec"),
        ("reyes-leader-resident.service", "TimeoutStopSec"),
    ],
)
def test_the_leader_ends_itself_before_systemd_does(service: str, name: str) -> None:
    assert int(setting(service, name)) >= LeaderConfig(sources=()).deadline + WORK_SECONDS


def test_the_follower_keeps_its_state_where_it_may_write() -> None:
    directory = setting("reyes-follower.service", "StateDirectory")
    assert FollowerConfig().state_directory == f"/var/lib/{directory}"


def test_the_leaders_user_is_the_one_that_is_made() -> None:
    made = (PACKAGING / "reyes.sysusers").read_text(encoding="utf-8")
    assert re.search(rf"^u {setting('reyes-leader.service', 'User')} ", made, re.MULTILINE)


def test_a_host_without_a_ruleset_boots_without_an_alarm() -> None:
    assert setting(BOOT, "SuccessExitStatus") == str(SourceError.exit_code)


def test_a_host_that_has_a_wheel_alone_has_the_units_as_well() -> None:
    root = PACKAGING.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["data-files"].values()
    installed = {path for each in patterns for one in each for path in root.glob(one)}
    shipped = (*(root / "packaging").rglob("*"), *(root / "examples").rglob("*"))
    assert installed == {path for path in shipped if path.is_file()}
