"""The desk of an operator who has a configuration, a ruleset and questions."""

import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from reyes.adapters.gpg import KEYRING_FILE
from reyes.cli import main
from tests.gnupg_home import GnupgHome

KEY = "production/ruleset.gpg"


class Desk:
    """An operator's configuration and a leader's key."""

    def __init__(self, home: GnupgHome, directory: Path) -> None:
        self.now = int(time.time())
        self.directory = directory
        self.keyring = home.path
        self._home = home
        self.leader = home.generate("Leader")
        self._stranger = home.generate("Stranger")
        home.export(home.path / KEYRING_FILE, self.leader, self._stranger)
        config: dict[str, Any] = {
            "environment": "production",
            "s3": {"bucket": "acme-reyes", "key": KEY, "region": "us-west-2"},
            "signing": {"keyring_directory": str(home.path), "signing_key": self.leader},
        }
        self._config = config
        self.configure()

    def configure(self, **follower: object) -> None:
        config = {**self._config, "follower": follower}
        (self.directory / "config.yaml").write_text(json.dumps(config))

    def configure_signing(self, **signing: object) -> None:
        self._config["signing"].update(signing)
        self.configure()

    def signed(self, payload: bytes, *, genuine: bool = True) -> bytes:
        return self._home.sign(payload, self.leader if genuine else self._stranger)

    def run(self, command: str, *arguments: str) -> Result:
        config = str(self.directory / "config.yaml")
        return CliRunner().invoke(main, [command, "--config", config, *arguments])

    def show(self, *arguments: str) -> Result:
        return self.run("show", *arguments)

    def file(self, blob: bytes) -> str:
        path = self.directory / "ruleset.gpg"
        path.write_bytes(blob)
        return str(path)

    def show_file(self, blob: bytes, *arguments: str) -> Result:
        return self.show(*arguments, self.file(blob))
