"""Connection tracking as the configuration wants it."""

import logging

from reyes.adapters.conntrack import forbid_loose, raise_conntrack_max
from reyes.config import FollowerConfig
from reyes.errors import KernelError

log = logging.getLogger(__name__)


def set_up_tracking(settings: FollowerConfig) -> None:
    """Set connection tracking up; a refusal is a warning, as it costs no rules.

    To be called behind a commit, whose rules load it.
    """
    for set_up in (_raise_conntrack_max, _forbid_loose):
        try:
            set_up(settings)
        except KernelError as error:
            log.warning("%s (%s)", error.message, error.hint)


def _raise_conntrack_max(settings: FollowerConfig) -> None:
    if settings.nf_conntrack_max is None:
        return
    before = raise_conntrack_max(settings.nf_conntrack_max)
    if before is not None:
        log.info("nf_conntrack_max raised from %d to %d", before, settings.nf_conntrack_max)


def _forbid_loose(settings: FollowerConfig) -> None:
    """Let no packet of the host make its own what a removed member has opened and ended."""
    if settings.established == "strict" and forbid_loose():
        log.info("nf_conntrack_tcp_loose set to 0, for established: strict")
