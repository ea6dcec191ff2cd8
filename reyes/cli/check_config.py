"""`reyes check-config`: all that can be told without touching AWS or the rules in force."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from reyes.adapters.backends import backend_in_use, refuse_mixed, refuse_split
from reyes.adapters.commands import COMMANDS, PREFIX
from reyes.adapters.files import check_private
from reyes.adapters.gpg import Gpg
from reyes.adapters.kernel import families
from reyes.adapters.programs import find_program
from reyes.adapters.rehearsal import check_possible
from reyes.cli.options import config_option, load_config
from reyes.config import Config, FollowerConfig, SigningConfig
from reyes.errors import ConfigError, KernelError
from reyes.leader import leader_config
from reyes.net import Family, parse_network

Check = Callable[[], str]

_PROBE_BYTES = 64 * 1024


@click.command(short_help="Check what this machine needs to run Reyes.")
@config_option
@click.option("--leader", is_flag=True, help="Check what a leader needs.")
@click.option("--follower", is_flag=True, help="Check what a follower needs.")
def command(config_path: Path, leader: bool, follower: bool) -> None:
    """Check the configuration, the keys, the rights and the commands of this machine.

    It tries as well whether a follower can rehearse new rules here, and notes what is allowed and
    rarely meant.
    Without --leader or --follower it checks for a leader if the file has a `leader:` section,
    else for a follower.
    """
    if leader and follower:
        raise click.UsageError(
            "--leader and --follower exclude each other: each has a keyring and a configuration of"
            " its own"
        )
    config = load_config(config_path)
    role = "leader" if leader or (config.leader and not follower) else "follower"
    click.echo(f"ok      {config_path} can be used")
    checks = _leader_checks(config) if role == "leader" else _follower_checks(config)
    problems = 0
    for check in checks:
        try:
            click.echo(f"ok      {check()}")
        except (ConfigError, KernelError) as error:
            problems += 1
            hint = f" ({error.hint})" if error.hint else ""
            click.echo(f"problem {error.message}{hint}")
    for note in _notes(config, role):
        click.echo(f"note    {note}")
    if problems:
        raise ConfigError(f"{problems} of the checks for a {role} failed")


def _leader_checks(config: Config) -> Iterator[Check]:
    yield lambda: f"leader.sources names {len(leader_config(config).sources)} sources"
    yield lambda: _can_sign(config)


def _follower_checks(config: Config) -> Iterator[Check]:
    state = Path(config.follower.state_directory)
    yield lambda: _keyring(config)
    yield lambda: _no_secret_key(Path(config.signing.keyring_directory))
    yield lambda: _state_directory(state)
    for name in COMMANDS:
        yield partial(_installed, name)
    for family in families():
        if all(find_program(f"{PREFIX[family]}-{end}") for end in ("save", "restore")):
            yield partial(_one_backend, family)
    # Who may not write there is not the user who runs the follower, and may lack his rights.
    if config.follower.rehearsal and _may_write(_existing(state)):
        yield _rehearsal


def _notes(config: Config, role: str) -> Iterator[str]:
    """Say what no pass minds, and is not what most people want."""
    section = config.leader if role == "leader" else config.follower
    if role == "follower":
        yield from _doubts(config.follower)
        with suppress(ConfigError):  # the check of the keyring says what is wrong with it
            refused = _refused_keys(config.signing, Gpg(config.signing).trusted_keys())
            if len(refused) < len(config.signing.pins):
                yield from (f"the trusted key {one}: what it signs is refused" for one in refused)
    if section and section.metrics_file:
        refusal = _refusal(Path(section.metrics_file).parent)
        if refusal:
            yield refusal


def _refusal(directory: Path) -> str | None:
    """Write something there, which a full disk refuses as well, and leave nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return f"nothing can be written in {directory}: {error.strerror}"
    return None


def _doubts(settings: FollowerConfig) -> Iterator[str]:
    """Say what is allowed, and rarely meant."""
    if not settings.failsafe:
        yield (
            "follower.failsafe is empty: if a ruleset shuts people out, no probe of this host's"
            " own can tell"
        )
    for cidr in settings.filtered_cidrs if settings.traffic == "vpc" else ():
        network = parse_network(cidr)
        # A VPC's IPv6 networks are public ones.
        if not network.prefixlen or (network.version == 4 and network.is_global):  # noqa: PLR2004 - IP's version
            yield (
                f"follower.filtered_cidrs holds public addresses, {cidr}: new connections from"
                " there are judged, yours from the internet perhaps"
            )
    if settings.traffic == "interface":
        yield from _unseen(settings.interfaces)
    for entry in settings.failsafe:
        if not parse_network(entry.cidr).prefixlen:
            yield f"follower.failsafe lets {entry.protocol} in from everywhere, {entry.cidr}"


def _unseen(interfaces: Sequence[str]) -> Iterator[str]:
    """Name what brings no packets to be judged now; like a link, that may change at any time."""
    present = [each for _, each in socket.if_nameindex()]
    for name in interfaces:
        named = [each for each in present if _is_called(each, name)]
        if not named:
            yield f"follower.interfaces names {name}, and no interface here is called so now"
        for each in named:
            link = Path("/sys/class/net", each, "master")
            master = link.readlink().name if link.is_symlink() else None
            if master and not any(_is_called(master, other) for other in interfaces):
                yield (
                    f"follower.interfaces names {name}, and what {each} receives arrives on"
                    f" {master}, of which it is a part: none of it is judged"
                )


def _is_called(interface: str, name: str) -> bool:
    return interface.startswith(name[:-1]) if name.endswith("+") else interface == name


def _can_sign(config: Config) -> str:
    """Sign something and verify it: the only proof that a key works."""
    gpg = Gpg(config.signing)
    report = gpg.inspect(gpg.sign(b"reyes check-config"))
    if not report.valid or report.primary_fingerprint not in config.signing.pins:
        raise ConfigError(
            f"followers with this configuration refuse what {config.signing.signing_key} signs",
            "signing.trusted_keys must name it, and trusted.gpg must hold it",
        )
    return f"{config.signing.signing_key} signs, and followers trust it"


def _keyring(config: Config) -> str:
    keys = Gpg(config.signing).trusted_keys()
    missing = config.signing.pins - keys.keys()
    if missing:
        raise ConfigError(
            f"the keyring does not hold {', '.join(sorted(missing))}",
            f"append the trusted.gpg that `reyes keygen` made to the one in"
            f" {config.signing.keyring_directory}: `cat` does it",
        )
    refused = _refused_keys(config.signing, keys)
    if len(refused) == len(config.signing.pins):
        raise ConfigError(
            f"no trusted key is of use: {', '.join(refused)}",
            "is the clock right? Else bring the key that leaders sign with, or export a prolonged"
            " one anew",
        )
    return f"the keyring holds {', '.join(sorted(config.signing.pins))}"


def _refused_keys(signing: SigningConfig, keys: Mapping[str, str | None]) -> list[str]:
    """Name the trusted keys whose signatures are refused, and say why."""
    return [f"{pin} {keys[pin]}" for pin in sorted(signing.pins) if keys.get(pin)]


def _no_secret_key(keyring: Path) -> str:
    """Refuse the leader's half on a host, also where the same machine is a leader."""
    if any((*keyring.glob("private-keys-v1.d/*"), *keyring.glob("secring.gpg"))):
        raise ConfigError(
            f"{keyring} holds a secret key: whoever takes this host could sign for the fleet",
            "hosts need the directory `follower` of `reyes keygen`",
        )
    return f"{keyring} holds no secret key"


def _state_directory(directory: Path) -> str:
    existing = _existing(directory)
    check_private(existing)
    if not existing.is_dir():
        raise ConfigError(f"{existing} is not a directory", "mend follower.state_directory")
    if not _may_write(existing):
        raise ConfigError(f"{existing} is not writable", "run the follower as root")
    refusal = _refusal(existing)
    if refusal:
        raise ConfigError(refusal, "until something can, no new ruleset comes in force")
    return f"the state directory {directory} can be used"


def _existing(directory: Path) -> Path:
    return directory if directory.exists() else directory.parent


def _may_write(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


def _installed(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise ConfigError(f"the command {name} is missing", "install ipset and iptables")
    return path


def _one_backend(family: Family) -> str:
    refuse_mixed(family)
    if os.geteuid() == 0:
        refuse_split(family)
    return f"{PREFIX[family]} reads and writes the same backend, {backend_in_use(family)}"


def _rehearsal() -> str:
    check_possible()
    return "new rules can be rehearsed"
