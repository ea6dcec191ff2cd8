"""A resident follower that counts passes: soak_process CONFIG PASSES[,PASSES...] [BLOB...].

Prints a line of JSON when so many passes are done, and ends after the last. With blobs each pass
first publishes the next of them.
"""

import os
import resource
import signal
import sys
import urllib.request
from itertools import cycle
from pathlib import Path

import msgspec

from reyes.cli.logs import configure_logs
from reyes.cli.options import load_config
from reyes.cli.passes import FollowerPass
from reyes.cli.resident import ResidentPass, run_resident
from reyes.cli.wiring import Options
from reyes.config import Config
from reyes.errors import ReyesError

OPTIONS = Options(
    dry_run=False,
    interactive=False,
    force=False,
    log_accept=False,
    log_drop=False,
    splay=0,
    ruleset=None,
    confirm=None,
)


class Mark(msgspec.Struct, frozen=True):
    """CPU milliseconds so far, own and of children, and kilobytes in memory."""

    passes: int
    own: float
    children: float
    memory: int


def mark(passes: int) -> Mark:
    """Look at this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    own, children = (
        1000 * (usage.ru_utime + usage.ru_stime)
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return Mark(passes, own, children, pages * resource.getpagesize() // 1024)


def publish(config: Config, blob: Path) -> None:
    """Put an object where the follower gets it from."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{config.s3.bucket}/{config.s3.key}"
    request = urllib.request.Request(url, data=blob.read_bytes(), method="PUT")
    urllib.request.urlopen(request).close()


def main(config_path: str, numbers: str, *blobs: str) -> None:
    config = load_config(Path(config_path))
    one_pass = FollowerPass(config, OPTIONS)
    marks = [int(number) for number in numbers.split(",")]
    turns = cycle(map(Path, blobs))
    done = 0

    def count_pass() -> None:
        nonlocal done
        if blobs:
            publish(config, next(turns))
        try:
            one_pass()
        except ReyesError as error:
            raise RuntimeError(error.message) from error  # which ends it
        done += 1
        if done in marks:
            sys.stdout.write(msgspec.json.encode(mark(done)).decode() + "\n")
        if done == marks[-1]:
            os.kill(os.getpid(), signal.SIGTERM)

    configure_logs(verbose=False)
    run_resident(lambda: ResidentPass(count_pass, 0), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
