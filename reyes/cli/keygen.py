"""`reyes keygen`: the signing key, and a keyring directory for each side."""

import signal
from pathlib import Path

import click

from reyes.cli.options import FilePath


@click.command("keygen", short_help="Make a signing key, and a keyring for each side.")
@click.option(
    "--directory",
    type=FilePath(file_okay=False, path_type=Path),
    required=True,
    help="Where to make the directories leader and follower.",
)
@click.option("--name", default="Reyes leader", show_default=True, help="The key's user id.")
@click.option(
    "--expire",
    default="0",
    show_default=True,
    help="When the key expires, as gpg has it: 0 for never, 2y, 2030-01-31."
    " On that day every follower refuses what it signed.",
)
def command(directory: Path, name: str, expire: str) -> None:
    """Make an ed25519 signing key without passphrase, and the two keyring directories."""
    if not expire.strip():
        raise click.UsageError("--expire: expected 0, 2y or a date, got nothing")
    from reyes.adapters.keyring import make_keyrings

    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)  # no half of a secret key is left behind
    fingerprint = make_keyrings(directory, name, expire)
    directory = directory.absolute()
    click.echo(
        f"""\
made the key {fingerprint}

{directory}/leader/openpgp-revocs.d
  revokes the key: move it away now, and keep it offline
{directory}/leader
  secret and public key: goes to every leader as signing.keyring_directory
{directory}/follower
  public key only: goes to every follower as signing.keyring_directory

Whoever reads the leader directory can sign rulesets: keep it at mode 0700,
and move it over channels that you would trust with a root password.

config.yaml, on both sides:

signing:
  keyring_directory: /etc/reyes/keyring
  signing_key: "{fingerprint}"
""",
        nl=False,
    )
