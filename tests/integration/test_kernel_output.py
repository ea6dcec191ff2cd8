"""What ipset and iptables print is read as it is, or refused: never half of it."""

from pathlib import Path

import pytest

from reyes.adapters.commands import COMMANDS, run
from reyes.adapters.kernel import Kernel
from reyes.adapters.programs import find_program
from reyes.errors import ConfigError, KernelError
from reyes.net import Family
from reyes.netfilter.live import JUMP, LiveKernel, LiveTable
from reyes.netfilter.plan import CommitPlan, CountSets, DestroySets, RestoreSets, RestoreTable

TABLE = b"*filter\n:INPUT ACCEPT [0:0]\n%sCOMMIT\n"
SET = "r4:web:0123456789abcdefghij"


class Commands:
    """A PATH whose ipset and iptables print given bytes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for prefix in ("iptables", "ip6tables"):
            self.say(f"{prefix}-restore", b"v1.8.9 (legacy)\n")
            for backend in ("", "-legacy", "-nft"):
                self.say(f"{prefix}{backend}-save", b"")
        self.say("ipset", b"")

    def say(self, command: str, output: bytes) -> None:
        said = self._directory / f"{command}.out"
        said.write_bytes(output)
        script = self._directory / command
        script.write_text(f"#!/bin/sh\nexec cat '{said}'\n")
        script.chmod(0o755)

    def hear(self, command: str) -> Path:
        """Let a command print what it printed before, and keep what it is fed with."""
        said, heard = (self._directory / f"{command}.{end}" for end in ("out", "in"))
        script = self._directory / command
        script.write_text(
            f"#!/bin/sh\ncase $1 in restore|-w) cat >>'{heard}';; *) cat '{said}';; esac\n"
        )
        return heard

    def refuse(self, command: str, words: str) -> None:
        (self._directory / command).write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return commands


def input_rules() -> tuple[str, ...]:
    table = next(table for table in Kernel().read().tables if table.family is Family.V4)
    return table.rules.get("INPUT", ())


@pytest.mark.parametrize("odd", [b"\r", b"\x0b", b"\x0c", b"\xe2\x80\xa8", b"\xc2\x85"])
def test_a_comment_of_others_stays_in_its_line(commands: Commands, odd: bytes) -> None:
    rule = b'-A INPUT -m comment --comment "a%sb" -j ACCEPT' % odd
    commands.say("iptables-save", TABLE % (rule + b"\n"))
    assert input_rules() == (rule.decode(),)


def test_a_comment_of_others_in_another_encoding_is_read(commands: Commands) -> None:
    commands.say("iptables-save", TABLE % b'-A INPUT -m comment --comment "\xff" -j ACCEPT\n')
    assert input_rules() == ('-A INPUT -m comment --comment "\ufffd" -j ACCEPT',)


def test_only_iptables_itself_says_that_a_table_is_incompatible(commands: Commands) -> None:
    rule = b'-A INPUT -m comment --comment "mode x is incompatible" -j ACCEPT'
    commands.say("iptables-save", TABLE % (rule + b"\n"))
    assert input_rules() == (rule.decode(),)
    rule = b'-A INPUT -m comment --comment "\n# Table filter is incompatible, use nft" -j ACCEPT'
    commands.say("iptables-save", TABLE % (rule + b"\n"))
    assert input_rules() == (rule.decode().replace("\n", "\t"),)
    commands.say("iptables-save", b"# Table `filter' is incompatible, use 'nft' tool.\n")
    with pytest.raises(KernelError, match="iptables-save cannot read the whole filter table"):
        Kernel().read()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!{directory}/absent\n", "No such file or directory"),
        ("#!{directory}/data\n", "Permission denied"),
        ("not a program\n", "Exec format error"),
    ],
)
@pytest.mark.usefixtures("commands")
def test_a_command_that_cannot_be_started_is_named(
    tmp_path: Path, script: str, reason: str
) -> None:
    (tmp_path / "data").touch(0o644)
    (tmp_path / "iptables-save").write_text(script.format(directory=tmp_path))
    with pytest.raises(ConfigError) as refused:
        Kernel().read()
    assert refused.value.message == f"cannot start {tmp_path}/iptables-save: {reason}"
    assert refused.value.hint


def test_what_was_refused_and_why_is_one_line_and_the_text_at_fault_follows(
    commands: Commands,
) -> None:
    words = "iptables-restore v1.8.9 (nf_tables): \nline 2: CHAIN_DEL failed (busy): chain x"
    commands.refuse("iptables-restore", words)
    with pytest.raises(KernelError) as refused:
        run(("iptables-restore",), "*filter\n-X x\n")
    first, *others = refused.value.message.splitlines()
    assert first == f"iptables-restore refused: {' '.join(words.split())}"
    assert others == ["      1 *filter", ">     2 -X x"]


@pytest.mark.parametrize("line", [b":INPUT\n", b"-A \n"])
def test_half_a_line_of_a_table_is_refused(commands: Commands, line: bytes) -> None:
    commands.say("iptables-save", TABLE % line)
    with pytest.raises(KernelError, match="iptables-save says what cannot be understood"):
        Kernel().read()


def test_a_count_that_is_no_number_is_refused(commands: Commands) -> None:
    commands.say("ipset", f"Name: {SET}\nReferences: many\n".encode())
    with pytest.raises(KernelError, match="ipset says what cannot be understood"):
        Kernel().read()


def test_a_member_that_is_no_network_is_refused(commands: Commands) -> None:
    commands.say("ipset", f"add {SET} 1.2.3.4:x\n".encode())
    with pytest.raises(KernelError, match="ipset says what cannot be understood"):
        Kernel().read_members()


def test_only_the_sets_that_are_asked_for_are_read_however_many(commands: Commands) -> None:
    names = [f"r4:web:{number:020}" for number in range(10)]
    commands.say("ipset", "".join(f"create {name} hash:net\n" for name in names).encode())
    assert Kernel().read_members(names[:9]) == dict.fromkeys(names[:9], ())
    assert Kernel().read_members() == dict.fromkeys(names, ())


@pytest.mark.parametrize("entries", [1, 3])
def test_a_set_that_holds_another_number_than_it_was_filled_with_ends_a_commit(
    commands: Commands, entries: int
) -> None:
    commands.say("ipset", f"Name: {SET}\nReferences: 0\nNumber of entries: 2\n".encode())
    Kernel().execute(CommitPlan((CountSets(((SET, 2),)),)))
    with pytest.raises(KernelError, match=f"holds 2 entries after it was filled with {entries}"):
        Kernel().execute(CommitPlan((CountSets(((SET, entries),)),)))


def test_a_set_that_is_gone_when_it_is_counted_ends_a_commit(commands: Commands) -> None:
    commands.refuse("ipset", "ipset v7.17: The set with the given name does not exist")
    with pytest.raises(KernelError, match="holds 0 entries after it was filled with 1"):
        Kernel().execute(CommitPlan((CountSets(((SET, 1),)),)))


def test_sets_that_cannot_be_counted_end_a_commit(commands: Commands) -> None:
    commands.refuse("ipset", "ipset v7.17: Kernel error received: Invalid argument")
    with pytest.raises(KernelError, match="Kernel error received: Invalid argument"):
        Kernel().execute(CommitPlan((CountSets(((SET, 1),)),)))


def test_the_sets_of_a_commit_that_fails_are_destroyed_again(commands: Commands) -> None:
    commands.say("ipset", f"Name: {SET}\nReferences: 0\nNumber of entries: 0\n".encode())
    heard = commands.hear("ipset")
    with pytest.raises(KernelError, match="holds 0 entries"):
        Kernel().execute(CommitPlan((RestoreSets("new\n", (SET,)), CountSets(((SET, 1),)))))
    assert heard.read_text() == f"new\ndestroy {SET}\n"


def test_sets_in_use_keep_no_others_from_going(commands: Commands) -> None:
    free = "r4:app:0123456789abcdefghij"
    sets = ((SET, 1), (free, 0), ("f2b", 0))
    lines = (f"Name: {name}\nReferences: {n}\nNumber of entries: 0\n" for name, n in sets)
    commands.say("ipset", "".join(lines).encode())
    heard = commands.hear("ipset")
    Kernel().execute(CommitPlan((DestroySets((SET, free, "r4:gone:0123456789abcdefghij")),)))
    assert heard.read_text() == f"destroy {free}\n"


def test_a_family_goes_back_although_the_command_of_the_other_is_gone(
    commands: Commands, tmp_path: Path
) -> None:
    rules = {"INPUT": (JUMP,)}
    before = LiveKernel(tuple(LiveTable(f, {"reyes-input": "-"}, rules) for f in Family))
    heard = commands.hear("ip6tables-restore")
    (tmp_path / "iptables-save").write_text("not a program\n")
    with pytest.raises(ConfigError, match="cannot start"):
        Kernel().revert(before, "shared")
    assert "-I INPUT 1 -j reyes-input" in heard.read_text()


def test_a_step_is_undone_although_the_command_of_another_is_gone(
    commands: Commands, tmp_path: Path
) -> None:
    rules = {"INPUT": (JUMP,)}
    before = {family: LiveTable(family, {"reyes-input": "-"}, rules) for family in Family}
    heard = commands.hear("ip6tables-restore")
    for command in ("iptables-save", "iptables-restore"):
        (tmp_path / command).write_text("not a program\n")
    steps = (
        RestoreTable(family, "new\n", before[family], flush=False) for family in reversed(Family)
    )
    with pytest.raises(ConfigError, match="cannot start"):
        Kernel().execute(CommitPlan(tuple(steps)))
    assert "-I INPUT 1 -j reyes-input" in heard.read_text()


def test_the_backend_is_that_of_the_program_that_a_command_stands_for_now(
    commands: Commands, tmp_path: Path
) -> None:
    commands.say("iptables-nft-save", TABLE % b"-A INPUT -j ACCEPT\n")
    commands.say("some-legacy", b"# v1.8.9 (legacy)\n")
    commands.say("some-nft", b"# v1.8.9 (nf_tables)\n")
    for program in ("some-legacy", "some-nft", "some-legacy"):
        for command in ("iptables-save", "iptables-restore"):
            (tmp_path / command).unlink()
            (tmp_path / command).symlink_to(program)
        if program == "some-nft":
            Kernel().read()
            continue
        with pytest.raises(KernelError, match="iptables uses legacy, but there are rules in nft"):
            Kernel().read()


@pytest.mark.parametrize(
    "words",
    [
        "Failed to initialize nft: Protocol not supported",
        "rule set generation id: Invalid argument",
    ],
)
def test_a_kernel_without_nft_holds_no_rules_there(commands: Commands, words: str) -> None:
    commands.refuse("iptables-nft-save", words)
    assert Kernel().read().tables
    commands.refuse("iptables-nft-save", "Out of memory")
    with pytest.raises(KernelError, match="Out of memory"):
        Kernel().read()


def test_a_backend_whose_commands_are_not_installed_holds_no_rules(
    monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    def find(name: str) -> str | None:
        return None if "-nft-" in name else find_program(name)

    commands.say("iptables-legacy-save", TABLE % b"-A INPUT -j ACCEPT\n")
    for module in ("backends", "commands"):
        monkeypatch.setattr(f"reyes.adapters.{module}.find_program", find)
    assert Kernel().read().tables


def test_packets_are_those_of_the_same_backend_as_the_rules(commands: Commands) -> None:
    commands.say("iptables-legacy-save", TABLE % b"[7:420] -A reyes-accept -j RETURN\n")
    assert Kernel("legacy").read_packets()[Family.V4].accepted == 7


@pytest.mark.parametrize("path", [None, "", ":", ".:/nowhere"])
def test_no_command_comes_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    for name in COMMANDS:
        (tmp_path / name).touch(mode=0o755)
        assert find_program(name) == f"/usr/sbin/{name}"
