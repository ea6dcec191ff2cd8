"""What can go wrong, one class per thing the operator must do.

    ReyesError
        ConfigError         78  mend the configuration, a permission or a file of this host
        SourceError         75  EC2, S3 or the metadata service does not answer: try later
        ExpiredError        20  find out why no fresh ruleset arrives
        SignatureError      21  find out who wrote that object: signature or content is refused
        ReplayError         22  find out who serves old, foreign or future rulesets
        HostUnknownError    23  wait for the next ruleset, or mend the leader's sources
        ImplausibleError    24  look at what vanished or is open; `--force` if it is right
        KernelError         25  read what the kernel refused

In all of them the rules in force stay in force.
Programming mistakes stay builtin exceptions and end in a traceback with exit code 1.
"""

from typing import ClassVar


class ReyesError(Exception):
    """A failure the operator can act on: one message, a hint and an exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(ReyesError):
    """The configuration, or a file or right that this host must have, is not usable."""

    exit_code = 78


class SourceError(ReyesError):
    """A service outside this host does not answer, or another run holds the lock."""

    exit_code = 75


class UnreachableError(SourceError):
    """Not even a refusal came back from a service, or none in time."""


class ExpiredError(ReyesError):
    """The ruleset's `not_after` has passed and no fresher one is there."""

    exit_code = 20


class SignatureError(ReyesError):
    """The object is not one good message of a trusted key, or says what no leader writes."""

    exit_code = 21


class ReplayError(ReyesError):
    """The ruleset is genuine but old, from the future, or made for another environment."""

    exit_code = 22


class HostUnknownError(ReyesError):
    """The ruleset does not know this instance, its VPC or its primary interface."""

    exit_code = 23


class ImplausibleError(ReyesError):
    """The ruleset lost more of the world, or opens more of it, than anybody can have meant."""

    exit_code = 24


class KernelError(ReyesError):
    """ipset or iptables refused, or the host's tables are not in a state to work on."""

    exit_code = 25


def exit_code_of(error: Exception) -> int:
    """Return what a command ends with that raises this (`reyes.cli`)."""
    if isinstance(error, OSError):
        return ConfigError.exit_code
    return error.exit_code if isinstance(error, ReyesError) else 1
