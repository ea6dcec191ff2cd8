"""Questions at an operator's desk: explain, check-ruleset, check-config."""

import json
import os
import shutil
from collections.abc import Iterator
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from reyes.adapters.gpg import KEYRING_FILE
from tests.desk import Desk
from tests.gnupg_home import LONG_AGO, gnupg_home
from tests.worlds import allow, document, small_world, tcp

DB, WEB = "i-0000000b", "10.2.0.10"
SECRET_PARTS = shutil.ignore_patterns("private-keys-v1.d", "S.*")


def explained(desk: Desk, *arguments: str) -> Any:
    path = desk.file(desk.signed(document(desk.now)))
    return desk.run("explain", "--ruleset", path, *arguments)


def test_an_accepted_packet_ends_with_0_and_a_denied_one_with_1(desk: Desk) -> None:
    accepted = explained(desk, "--from", WEB, "--port", "5432", "--instance", DB)
    assert accepted.exit_code == 0, accepted.output
    assert accepted.stdout.startswith(
        f"accepted: tcp 5432 from {WEB} to 10.1.0.11 at eni-0000000b"
    )
    assert "sg-0000000b (db) rule 2: tcp 5432-5433" in accepted.stdout
    assert f"  matched by   {WEB} in sg-0000000e (web)\n" in accepted.stdout
    sender = f"""\
  sender is    {WEB} at eni-0000000e of i-0000000e
  sender in    vpc-0e0e0e0e, eu-west-1
  its group    sg-0000000e (web)
"""
    assert sender in accepted.stdout

    denied = explained(desk, "--from", WEB, "--port", "22", "--instance", DB)
    assert denied.exit_code == 1
    assert "near miss    none: no rule there is about tcp 22" in denied.stdout

    local = explained(desk, "--from", "10.1.0.10", "--port", "22", "--instance", DB)
    assert local.exit_code == 0
    assert local.stdout.startswith("not judged: ")


@pytest.mark.parametrize(
    "packet", [("--from", f"::ffff:{WEB}", "--port", "22"), ("--from", WEB, "--proto", "TCP")]
)
def test_a_packet_may_be_written_as_programs_write_it(desk: Desk, packet: tuple[str, ...]) -> None:
    result = explained(desk, *packet, "--port", "22", "--instance", DB)
    assert result.stdout.startswith(f"denied: tcp 22 from {WEB} to 10.1.0.11 at eni-0000000b")


def test_the_answer_comes_as_json_too(desk: Desk) -> None:
    result = explained(desk, "--from", WEB, "--port", "5432", "--instance", DB, "--json")
    found = json.loads(result.stdout)
    assert (found["decision"], found["granted"]["rule"]) == ("accepted", 2)
    assert found["granted"]["members"][0]["instance"] == "i-0000000e"


def test_without_a_packet_reach_and_uses_are_listed(desk: Desk) -> None:
    reach = explained(desk, "--instance", DB)
    assert reach.exit_code == 0
    assert "tcp 5432-5433  from sg-0000000a (web), 1 address" in reach.stdout

    uses = explained(desk, "--group", "web")
    assert uses.exit_code == 0
    assert "sg-0000000e (web) in vpc-0e0e0e0e, eu-west-1" in uses.stdout
    assert "let in by    sg-0000000b (db) rule 2: tcp 5432-5433 as sg-0000000a" in uses.stdout


@pytest.mark.parametrize("name", ["x), sg-0000000b (db", "\x1b[2Jx\ny"])
@pytest.mark.parametrize(
    "question",
    [
        ("--from", WEB, "--port", "5432", "--instance", DB),
        ("--from", WEB, "--port", "22", "--instance", DB),
        ("--instance", DB),
        ("--group", "sg-0000000e"),
    ],
)
def test_a_group_cannot_be_called_as_if_it_were_two(
    desk: Desk, name: str, question: tuple[str, ...]
) -> None:
    """EC2 takes brackets, commas and blanks in the names of groups."""
    world = small_world()
    regions = [
        replace(
            region,
            groups=tuple(replace(g, name=f"{name}{g.name}") for g in region.groups),
        )
        for region in world.regions
    ]
    content = replace(world, regions=tuple(regions))
    path = desk.file(desk.signed(document(desk.now, content)))
    said = desk.run("explain", "--ruleset", path, *question).stdout
    assert f"({name!r}".removesuffix("'") in said
    assert f"({name}" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say --from ADDRESS for a packet, or --instance, or --group"),
        (("--instance", "i-0000000b", "--port", "80"), 2, "--port, --icmp, --interface and"),
        (("--instance", "i-0000000b", "--port", "0"), 2, "--port, --icmp, --interface and"),
        (("--from", "10.2.0", "--port", "1", "--instance", DB), 2, "--from: "),
        (("--from", "fe80::1%eth0", "--port", "1", "--instance", DB), 2, "has a scope"),
        (("--from", WEB, "--to", "::1", "--port", "1", "--instance", DB), 2, "not of one family"),
        (("--from", WEB, "--port", "65536", "--instance", DB), 2, "--port"),
        (("--from", WEB, "--proto", "tcp", "--instance", DB), 2, "--port: tcp and udp need one"),
        (("--from", WEB, "--proto", "47", "--port", "1", "--instance", DB), 2, "only tcp and udp"),
        (("--from", WEB, "--proto", "foo", "--instance", DB), 2, "got 'foo'"),
        (("--from", WEB, "--proto", "0", "--instance", DB), 2, "from 1 to 255"),
        (("--from", WEB, "--proto", "icmpv6", "--instance", DB), 2, "does not exist in IPv4"),
        (("--from", WEB, "--proto", "icmp", "--icmp", "8/0/1", "--instance", DB), 2, "TYPE/CODE"),
        (("--from", WEB, "--port", "1", "--icmp", "8", "--instance", DB), 2, "only icmp"),
        (("--from", WEB, "--port", "1", "--instance", "i-99999999"), 23, "i-99999999"),
        (("--from", WEB, "--instance", DB), 2, "say --proto NAME, and --port for tcp and udp"),
        (("--from", WEB, "--port", "22", "--config", ""), 2, "expected a path, got nothing"),
        (("--group", "nobody"), 2, "no group 'nobody'"),
        (("--unverified", "--group", "web"), 2, "--unverified needs the file"),
        (("--group", "web", "--from", WEB, "--port", "1"), 2, "--group and --from exclude each"),
        (("--group", "web", "--instance", DB), 2, "--group and --instance exclude each other"),
        (("--instance", DB, "--interface", "wg0"), 2, "--interface and --ipsec need --from"),
        (("--group", "web", "--clear"), 2, "--interface and --ipsec need --from"),
    ],
)
def test_bad_questions_are_told_so(
    desk: Desk, arguments: tuple[str, ...], code: int, said: str
) -> None:
    path = desk.file(desk.signed(document(desk.now)))
    file = () if "--unverified" in arguments else ("--ruleset", path)
    result = desk.run("explain", *file, *arguments)
    assert (result.exit_code, said in result.output) == (code, True), result.output


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        ("10.2.0.10", "10.2.0.10 is of i-0000000e: ask with --instance i-0000000e"),
        ("10.1.0.12", "10.1.0.12 is of eni-0000000c, of no instance"),
    ],
)
def test_a_packet_that_another_host_gets_is_refused(
    desk: Desk, destination: str, said: str
) -> None:
    question = "--from", WEB, "--to", destination, "--port", "5432", "--instance", DB
    refused = explained(desk, *question)
    assert (refused.exit_code, refused.stdout) == (2, ""), refused.output
    assert said in refused.stderr


@pytest.mark.parametrize("destination", ["10.1.0.11", "10.1.16.7", "172.31.0.1"])
def test_a_packet_to_an_address_of_the_host_or_of_nobody_is_judged(
    desk: Desk, destination: str
) -> None:
    """Also where a VPC that overlaps holds the address as well."""
    small = small_world()
    regions = [
        replace(
            region,
            interfaces=tuple(
                replace(one, addresses=(*one.addresses, "10.1.0.11", "10.1.16.7"))
                if one.id == "eni-0000000e"
                else one
                for one in region.interfaces
            ),
        )
        for region in small.regions
    ]
    path = desk.file(desk.signed(document(desk.now, replace(small, regions=tuple(regions)))))
    question = "--from", WEB, "--to", destination, "--port", "5432", "--instance", DB
    accepted = desk.run("explain", "--ruleset", path, *question)
    assert accepted.exit_code == 0, accepted.output
    assert accepted.stdout.startswith(f"accepted: tcp 5432 from {WEB} to {destination} at")


def test_what_is_no_packet_is_told_before_a_ruleset_is_read(desk: Desk) -> None:
    junk = desk.file(b"{}")
    result = desk.run("explain", "--ruleset", junk, "--from", "10.2.0.300", "--port", "22")
    assert (result.exit_code, "--from: " in result.output) == (2, True)


def test_an_unverified_file_is_believed_only_when_told_so(desk: Desk) -> None:
    forged = desk.file(desk.signed(document(desk.now), genuine=False))
    refused = desk.run("explain", "--ruleset", forged, "--group", "web")
    assert (refused.exit_code, refused.stdout) == (21, "")

    believed = desk.run("explain", "--ruleset", forged, "--unverified", "--group", "web")
    assert believed.exit_code == 0
    assert "UNVERIFIED" in believed.stderr

    bare = desk.file(document(desk.now))
    assert desk.run("explain", "--ruleset", bare, "--unverified", "--group", "web").exit_code == 0
    junk = desk.file(b"{}")
    assert desk.run("explain", "--ruleset", junk, "--unverified", "--group", "web").exit_code == 21


def test_an_expired_ruleset_is_explained_with_a_note(desk: Desk) -> None:
    path = desk.file(desk.signed(document(desk.now - 90_000)))
    result = desk.run("explain", "--ruleset", path, "--group", "web")
    assert result.exit_code == 0
    assert "note: ruleset expired" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("check-ruleset",),
        ("explain", "--from", WEB, "--port", "22", "--instance", DB, "--ruleset"),
    ],
)
def test_a_bad_address_far_from_the_question_refuses_the_ruleset(
    desk: Desk, command: tuple[str, ...]
) -> None:
    content = small_world()
    regions = [
        replace(
            region,
            groups=tuple(replace(one, ingress=(allow(tcp(22), "10.9"),)) for one in region.groups),
            interfaces=tuple(
                replace(one, addresses=("10.9",), groups=()) for one in region.interfaces
            ),
        )
        if region.name == "eu-west-1"
        else region
        for region in content.regions
    ]
    path = desk.file(desk.signed(document(desk.now, replace(content, regions=tuple(regions)))))
    result = desk.run(*command, path)
    assert (result.exit_code, result.stdout) == (21, ""), result.exception
    assert "the ruleset holds a bad address: '10.9'" in result.stderr


def test_findings_are_told_with_their_weight(desk: Desk) -> None:
    path = desk.file(desk.signed(document(desk.now)))
    result = desk.run("check-ruleset", path)
    assert result.exit_code == 1
    assert "warning   reference to nobody: sg-0000000b (db)" in result.stdout
    assert "note      groups that count as one: 'web'" in result.stdout

    as_json = json.loads(desk.run("check-ruleset", "--json", path).stdout)
    assert {one["severity"] for one in as_json} == {"warning", "note"}


def test_a_configuration_is_checked_with_what_it_needs(desk: Desk) -> None:
    follower = desk.run("check-config", "--follower")
    assert "ok      the keyring holds" in follower.stdout
    leader = desk.run("check-config", "--leader")
    assert leader.exit_code == 78
    assert "problem the configuration has no leader section" in leader.stdout
    assert "signs, and followers trust it" in leader.stdout


@pytest.mark.parametrize(
    ("failsafe", "noted"),
    [
        ([], ["follower.failsafe is empty: if a ruleset shuts people out,"]),
        ([{"cidr": "10.9.0.0/24", "protocol": "tcp", "port": 22}], []),
        (
            [{"cidr": "::/0"}, {"cidr": "0.0.0.0/0", "protocol": "icmp"}],
            [
                "follower.failsafe lets all in from everywhere, ::/0",
                "follower.failsafe lets icmp in from everywhere, 0.0.0.0/0",
            ],
        ),
    ],
)
def test_a_failsafe_that_is_rarely_meant_is_noted(
    desk: Desk, failsafe: list[dict[str, object]], noted: list[str]
) -> None:
    desk.configure(failsafe=failsafe)
    lines = desk.run("check-config", "--follower").stdout.splitlines()
    desk.configure()
    start = "note    follower.failsafe "
    notes = [line.removeprefix("note    ") for line in lines if line.startswith(start)]
    assert len(notes) == len(noted)
    assert all(map(str.startswith, notes, noted))


@pytest.mark.parametrize(
    ("networks", "noted"),
    [
        (["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "2600:1f00::/56"], []),
        (["0.0.0.0/0"], ["0.0.0.0/0"]),
        (["10.0.0.0/7", "::/0"], ["10.0.0.0/7", "::/0"]),
    ],
)
def test_networks_of_strangers_that_are_judged_are_noted(
    desk: Desk, networks: list[str], noted: list[str]
) -> None:
    desk.configure(filtered_cidrs=networks)
    lines = desk.run("check-config", "--follower").stdout.splitlines()
    desk.configure()
    start = "note    follower.filtered_cidrs holds public addresses, "
    found = [line.removeprefix(start) for line in lines if line.startswith(start)]
    assert [line.split(": ")[0] for line in found] == noted


def test_an_interface_that_is_not_there_is_noted(desk: Desk) -> None:
    desk.configure(traffic="interface", interfaces=["lo", "l+", "wgg0", "tunn+"])
    lines = desk.run("check-config", "--follower").stdout.splitlines()
    desk.configure()
    start = "note    follower.interfaces names "
    found = [line.removeprefix(start) for line in lines if line.startswith(start)]
    assert [line.split(",")[0] for line in found] == ["wgg0", "tunn+"]


def test_places_that_cannot_be_written_to_are_told(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {
        str(tmp_path / "file"): "is not a directory",
        "/proc/reyes": "problem nothing can be written in /proc: ",
        "/proc/nowhere/reyes": "cannot use /proc/nowhere: No such file or directory",
    }
    for place, said in places.items():
        desk.configure(state_directory=place)
        assert said in desk.run("check-config", "--follower").stdout
    desk.configure(metrics_file="/proc/nowhere/reyes.prom", state_directory=str(tmp_path))
    result = desk.run("check-config", "--follower")
    desk.configure()
    assert "note    nothing can be written in /proc/nowhere: No such file" in result.stdout
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    "both", [("--leader", "--follower"), ("--follower", "--leader")], ids=" ".join
)
def test_a_machine_is_checked_for_one_role_at_a_time(desk: Desk, both: tuple[str, str]) -> None:
    result = desk.run("check-config", *both)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--leader and --follower exclude each other" in result.stderr


def test_trusted_keys_whose_signatures_are_refused_are_told(tmp_path: Path) -> None:
    with gnupg_home() as home:
        desk = Desk(home, tmp_path)
        old = home.generate("Old", *LONG_AGO, expire="1d")
        stolen = home.generate("Stolen")
        home.revoke(stolen)
        home.export(home.path / KEYRING_FILE, desk.leader, old, stolen)

        def found(*trusted: str) -> list[str]:
            desk.configure_signing(trusted_keys=trusted)
            lines = desk.run("check-config", "--follower").stdout.splitlines()
            return [line for line in lines if old in line or stolen in line]

        (only,) = found(old)
        assert only.startswith(
            f"problem no trusted key is of use: {old} has expired (is the clock"
        )
        (both,) = found(stolen, old)
        names = {old: f"{old} has expired", stolen: f"{stolen} was revoked"}
        said = ", ".join(names[key] for key in sorted(names))
        assert both.startswith(f"problem no trusted key is of use: {said} (")
        assert found(old, desk.leader)[1:] == [
            f"note    the trusted key {old} has expired: what it signs is refused"
        ]


def test_a_host_that_could_sign_is_told_so(desk: Desk, tmp_path: Path) -> None:
    desk.configure(state_directory=str(tmp_path), rehearsal=False)
    could = desk.run("check-config", "--follower")
    hosts = shutil.copytree(desk.keyring, tmp_path / "keyring", ignore=SECRET_PARTS)
    desk.configure_signing(keyring_directory=str(hosts))
    cannot = desk.run("check-config", "--follower")
    desk.configure_signing(keyring_directory=str(desk.keyring))
    desk.configure()
    assert could.exit_code == 78
    assert f"problem {desk.keyring} holds a secret key: whoever takes this host" in could.stdout
    assert "(hosts need the directory `follower` of `reyes keygen`)" in could.stdout
    assert cannot.exit_code == 0, cannot.stdout
    assert f"ok      {hosts} holds no secret key\n" in cannot.stdout


@pytest.fixture
def unshare(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An `unshare` that may make no namespace, on a host whose state directory is there."""
    path = tmp_path / "unshare"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    desk.configure(state_directory=str(tmp_path))
    yield path
    desk.configure()


NO_REHEARSAL = "problem no rehearsal: this process may not make network namespaces (set follower."


def test_a_host_that_cannot_rehearse_is_told_so(desk: Desk, unshare: Path) -> None:
    result = desk.run("check-config", "--follower")
    assert result.exit_code == 78
    assert NO_REHEARSAL in result.stdout
    unshare.write_text("#!/bin/sh\necho 'no shell' >&2; exit 127\n")
    result = desk.run("check-config", "--follower")
    assert result.exit_code == 78
    assert "problem the rehearsal failed: no shell\n" in result.stdout


def test_a_host_that_can_rehearse_is_told_so(desk: Desk, unshare: Path) -> None:
    unshare.write_text("#!/bin/sh\nexit 0\n")
    assert "ok      new rules can be rehearsed\n" in desk.run("check-config").stdout


@pytest.mark.usefixtures("unshare")
def test_rehearsals_are_no_matter_of_hosts_without_them(desk: Desk, tmp_path: Path) -> None:
    assert " rehears" not in desk.run("check-config", "--leader").stdout
    desk.configure(state_directory=str(tmp_path), rehearsal=False)
    assert " rehears" not in desk.run("check-config", "--follower").stdout


@pytest.mark.usefixtures("unshare")
def test_others_than_the_followers_user_are_told_nothing_of_namespaces(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    result = desk.run("check-config", "--follower")
    assert "is not writable (run the follower as root)" in result.stdout
    assert " rehears" not in result.stdout


@pytest.mark.parametrize(("command", "code"), [("check", 3), ("status", 78), ("follower", 78)])
def test_who_may_not_read_the_configuration_is_told_so_by_ourselves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(EACCES, os.strerror(EACCES), str(path))

    # As another user: to root, who may run this, nothing is unreadable.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", refuse)
    result = desk.run(command)
    assert result.exit_code == code, result.output
    assert "cannot read the configuration" in result.output
    assert "Permission denied" in result.output
    assert (command == "check") is not ("hint: run it as root" in result.output)
