"""Where the programs are that Reyes runs."""

import os
import shutil

_ALWAYS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
"""What cron's PATH lacks in part."""


def find_program(name: str) -> str | None:
    """Return the absolute path of a program.

    Entries of PATH that are not absolute do not count: an empty one is the working directory.
    """
    entries = filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep))
    return shutil.which(name, path=os.pathsep.join((*entries, *_ALWAYS)))
