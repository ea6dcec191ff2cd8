"""strongSwan on both VPN routers: IKEv2 with a shared secret."""

import os
import subprocess
import time
from pathlib import Path

from reyes.demo.namespaces import Namespace
from tests.lab.network import Network
from tests.lab.places import EAST_OUTSIDE, FAR_NETWORKS, FILES, WEST_NETWORKS, WEST_OUTSIDE, Place

CHARON = "/usr/lib/ipsec/charon"
_PATIENCE_SECONDS = 20

_DAEMON = """\
charon {{
  load = random nonce aes sha1 sha2 hmac kdf gmp kernel-netlink socket-default vici
  install_routes = no
  install_virtual_ip = no
  plugins {{ vici {{ socket = unix://{home}/vici }} }}
  filelog {{ log {{ path = {home}/log
    flush_line = yes }} }}
}}
swanctl {{ load = random }}
"""

_CONNECTION = """\
connections {{ routers {{
  version = 2
  mobike = no
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = aes128-sha256-modp2048
  local {{ auth = psk }}
  remote {{ auth = psk }}
  children {{
    networks {{
      local_ts = {inside}
      remote_ts = {beyond}
      esp_proposals = aes128gcm16
    }}
    gre {{
      mode = transport
      local_ts = dynamic[gre]
      remote_ts = dynamic[gre]
      esp_proposals = aes128gcm16
    }}
  }}
}} }}
secrets {{ ike {{ secret = "only for the lab" }} }}
"""


class Tunnel:
    """Two IKE daemons that know each other; nothing is encrypted before `up`."""

    def __init__(self, network: Network) -> None:
        west = _Daemon("west", network.west, WEST_OUTSIDE, EAST_OUTSIDE)
        east = _Daemon("east", network.east, EAST_OUTSIDE, WEST_OUTSIDE)
        self._daemons = (west, east)
        west.configure(WEST_NETWORKS, FAR_NETWORKS)
        east.configure(FAR_NETWORKS, WEST_NETWORKS)

    def up(self, child: str) -> None:
        """Negotiate `networks` (tunnel mode) or `gre` (transport mode)."""
        self._daemons[0].control("--initiate", "--child", child, "--timeout", "20")

    def down(self) -> None:
        """End all of it: the routers speak in clear again."""
        self._daemons[0].control("--terminate", "--ike", "routers", "--timeout", "20")

    def log(self) -> str:
        """Return the last words of both daemons."""
        return "".join(daemon.log() for daemon in self._daemons)


class _Daemon:
    def __init__(self, name: str, router: Namespace, own: Place, other: Place) -> None:
        self._name, self._own, self._other = name, own, other
        self._home = FILES / name
        self._home.mkdir()
        self._environment = {**os.environ, "SWANCTL_DIR": str(self._home)}
        self._environment["STRONGSWAN_CONF"] = str(self._home / "strongswan.conf")
        self._write("strongswan.conf", _DAEMON.format(home=self._home))
        # Each daemon has a /run of its own, for it is there that charon notes its process id.
        private = f"mount -t tmpfs run /run && exec {CHARON}"
        self._process = router.call(
            subprocess.Popen,
            ["unshare", "--mount", "sh", "-c", private],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def configure(self, inside: tuple[str, ...], beyond: tuple[str, ...]) -> None:
        text = _CONNECTION.format(
            local=self._own.v4,
            remote=self._other.v4,
            inside=",".join(inside),
            beyond=",".join(beyond),
        )
        self._write("swanctl.conf", text)
        self._wait()
        self.control("--load-all")

    def control(self, *arguments: str) -> None:
        done = subprocess.run(
            ["swanctl", *arguments, "--uri", f"unix://{self._home}/vici"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"swanctl {' '.join(arguments)}: {done.stdout}\n{self.log()}")

    def log(self) -> str:
        path = self._home / "log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return "".join(f"{self._name}: {line}\n" for line in lines[-20:])

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (self._home / "vici").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{CHARON} of {self._name} does not start\n{self.log()}")
            time.sleep(0.02)

    def _write(self, name: str, text: str) -> None:
        (Path(self._home) / name).write_text(text, encoding="utf-8")
