"""A systemd of its own, which starts the units as that of an installed host does.

It is the first process of its namespaces, in a cgroup of its own, on a copy-on-write view of this
machine's files: what it writes outlives `Booted.reboot`, and is lost at the end. Its network is
that of a `FollowerHost`.

Of the system's own units it starts those of `basic.target`. /opt/reyes has the package, the
libraries and the interpreter of these tests. Of the kernel's tunables only /proc/sys/net can be
written, and nothing is done that is done for a machine as a whole.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

from reyes.demo.namespaces import Closing
from tests.bench.aws_server import AwsServer
from tests.kernel.followers import PATIENCE, FollowerHost, Keys, wait_for

CONFIG, LEADER_CONFIG = "/etc/reyes/config.yaml", "/etc/reyes/leader.yaml"

_REPOSITORY = Path(__file__).parents[2]
_PACKAGING = _REPOSITORY / "packaging" / "systemd"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEFT_OUT = (
    *("systemd-sysctl.service", "systemd-modules-load.service", "systemd-udevd.service"),
    "modprobe@.service",
)
_IS_BOOTED = ("systemctl", "is-system-running", "--wait")
_LIBRARIES = {
    "python": sys.base_prefix,
    "packages": sysconfig.get_path("purelib"),
    "reyes": str(_REPOSITORY / "reyes"),
}
"""What is mounted in /opt/reyes. The units' sandbox hides home directories, where these may be."""

_PROGRAM = f"""#!/bin/sh
export PYTHONPATH=/opt/reyes:/opt/reyes/packages LD_LIBRARY_PATH=/opt/reyes/python/lib
exec /opt/reyes/python/bin/python{sysconfig.get_python_version()} -m reyes "$@"
"""

# $1 is the directory of it all; then come a source and a name in /opt/reyes each. A line of input
# boots anew, and the end of it ends all.
_MACHINE = """
set -e
cd "$1"
mount -t tmpfs -o mode=0755 tmpfs mounted
cp -a files mounted/upper
mkdir mounted/work mounted/root
mount -t overlay -o lowerdir=/,upperdir=mounted/upper,workdir=mounted/work overlay mounted/root
mount --bind mounted/upper/etc/systemd/system mounted/root/etc/systemd/system
shift
while [ $# -gt 0 ]; do
    mount -o bind,ro "$1" "mounted/root/opt/reyes/$2"
    shift 2
done
mount -t cgroup2 cgroup2 cgroups
own=cgroups$(sed -n s/^0:://p /proc/self/cgroup)/reyes-$$
mkdir "$own"
set +e
while :; do
    (
        echo 0 >"$own/cgroup.procs"
        exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -ec "$BOOT"
    ) &
    read -r _ || break
    wait
done
kill -KILL $!
wait
until find "$own" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.01; done
"""

_BOOT = """
read -r first _ </proc/self/stat
cd mounted/root
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t proc proc proc
mkdir run/net
mount --bind proc/sys/net run/net
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind run/net proc/sys/net
umount run/net
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
echo "$first" >../../first
pivot_root . mnt
umount -l mnt
exec env -i container=test /lib/systemd/systemd --unit=basic.target --log-target=journal
"""


class Booted(Closing):
    """The system of a host on which the units are installed, and none is enabled yet."""

    def __init__(self, host: FollowerHost, keys: Keys, store: AwsServer) -> None:
        self._host = host
        self._first = host.directory / "first"
        files = host.directory / "files"
        for name in ("mounted", "cgroups"):
            (host.directory / name).mkdir()
        _write_programs(files, host)
        _write_units(files / "etc/systemd/system", store)
        _write_configurations(files / "etc/reyes", host, keys)
        pairs = [word for name, source in _LIBRARIES.items() for word in (source, name)]
        argv = ["unshare", "--mount", "sh", "-c", _MACHINE, "sh", str(host.directory), *pairs]
        self._process = host.wire.host.call(
            lambda: Popen(
                argv,
                env={"PATH": _PATH, "BOOT": _BOOT},
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        try:
            self._wait_until_booted()
        except AssertionError:
            self.close()
            raise
        self.run("chown", "--recursive", "reyes:", "/etc/reyes/keyring")

    def run(self, *argv: str, text: str | None = None) -> CompletedProcess[str]:
        """Run a command on this system."""
        enter = ["nsenter", "--all", "--root", "--wd", "--target", self._first.read_text().strip()]
        return subprocess.run(
            [*enter, *argv],
            check=False,
            env={"PATH": _PATH},
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def systemctl(self, *arguments: str) -> None:
        """Give systemd an order; AssertionError with the journal if it fails."""
        done = self.run("systemctl", *arguments)
        assert done.returncode == 0, done.stdout + self.journal()

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat").stdout

    def configure(self, **follower: Any) -> None:
        """Change settings of the follower."""
        known = json.loads(self.run("cat", CONFIG).stdout)
        known["follower"] |= follower
        self.run("tee", CONFIG, text=json.dumps(known))

    def reboot(self) -> None:
        """Shut all down and boot anew, with none of the kernel's rules and sets of before."""
        process = Path("/proc", self._first.read_text().strip())
        self.run("systemctl", "reboot")
        wait_for(lambda: not process.exists(), "the system is down")
        self._first.unlink()
        self._host.reboot()
        print(file=self._process.stdin, flush=True)
        self._wait_until_booted()

    def close(self) -> None:
        """End all that runs; the mounts go with it."""
        self._process.communicate(timeout=PATIENCE)

    def _wait_until_booted(self) -> None:
        def is_booted() -> bool:
            known = ("running\n", "degraded\n")
            return self._first.exists() and self.run(*_IS_BOOTED).stdout in known

        wait_for(is_booted, "the system has booted")


def _write_programs(files: Path, host: FollowerHost) -> None:
    """Write the program of the units, and the commands of the host's backend."""
    shutil.copytree(host.directory / "bin", files / "usr/local/sbin")
    for name in (*_LIBRARIES, "bin"):
        (files / "opt/reyes" / name).mkdir(parents=True)
    program = files / "opt/reyes/bin/reyes"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (files / "usr/lib/sysusers.d").mkdir(parents=True)
    shutil.copy(_PACKAGING / "reyes.sysusers", files / "usr/lib/sysusers.d/reyes.conf")


def _write_units(directory: Path, store: AwsServer) -> None:
    """Install the units, each with a drop-in that leads to the store."""
    shutil.copytree(_PACKAGING, directory)
    environment = " ".join(f"{name}={value}" for name, value in store.environment().items())
    for service in list(directory.glob("*.service")):
        drop_in = directory / f"{service.name}.d" / "store.conf"
        drop_in.parent.mkdir()
        of_leader = f" REYES_CONFIG={LEADER_CONFIG}" if "leader" in service.name else ""
        drop_in.write_text(f"[Service]\nEnvironment={environment}{of_leader}\n")
    for unit in _LEFT_OUT:
        (directory / unit).symlink_to("/dev/null")


def _write_configurations(directory: Path, host: FollowerHost, keys: Keys) -> None:
    """Configure a follower as the host's, and a leader that reads what the store has of EC2."""
    shutil.copytree(keys.keyring, directory / "follower-keyring")
    shutil.copytree(keys.secret, directory / "keyring", ignore=shutil.ignore_patterns("S.*"))
    for each in (directory, directory / "follower-keyring"):
        each.chmod(0o755)
    known = json.loads((host.directory / "config.yaml").read_text())
    follower = known.pop("follower")
    del follower["state_directory"], follower["disable_file"]
    signing = known.pop("signing")
    sources = [{"region": region} for region in ("us-west-2", "eu-west-1")]
    leader = {"sources": sources, "group_matching": "name"}
    for path, name, section, keyring in (
        (CONFIG, "follower", follower, "follower-keyring"),
        (LEADER_CONFIG, "leader", leader, "keyring"),
    ):
        own = {**signing, "keyring_directory": f"/etc/reyes/{keyring}"}
        text = json.dumps({**known, "signing": own, name: section})
        (directory / Path(path).name).write_text(text)
