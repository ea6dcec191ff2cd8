"""Connection tracking as the configuration wants it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reyes.adapters.conntrack import forbid_loose, raise_conntrack_max
from reyes.cli.options import is_disabled
from reyes.config import FollowerConfig
from reyes.errors import KernelError

log = logging.getLogger(__name__)


@contextmanager
def tracking(settings: FollowerConfig) -> Iterator[None]:
    """Set connection tracking up behind a block whose rules load it, however that ends.

    A refusal is a warning, as it costs no rules.
    """
    try:
        yield
    finally:
        for set_up in () if is_disabled(settings) else (_raise_conntrack_max, _forbid_loose):
            try:
                set_up(settings)
            except KernelError as error:
                log.warning("%s (%s)", error.message, error.hint)


def cuts_off(settings: FollowerConfig) -> bool:
    """Tell whether a member that is removed loses his open connections."""
    return settings.enforce and settings.established == "strict"


def _raise_conntrack_max(settings: FollowerConfig) -> None:
    if settings.nf_conntrack_max is None:
        return
    before = raise_conntrack_max(settings.nf_conntrack_max)
    if before is not None:
        log.info("nf_conntrack_max raised from %d to %d", before, settings.nf_conntrack_max)


def _forbid_loose(settings: FollowerConfig) -> None:
    """Let no packet of the host make its own what a removed member has opened and ended."""
    if cuts_off(settings) and forbid_loose():
        log.info("nf_conntrack_tcp_loose set to 0, for established: strict")
