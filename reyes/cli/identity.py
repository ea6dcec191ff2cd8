"""Who the host is that a command is about: configuration first, then the metadata service."""

import logging
from pathlib import Path

from reyes.adapters.state import StateDirectory
from reyes.config import Config
from reyes.errors import ConfigError, SourceError
from reyes.host import Host, configured_host
from reyes.state import Identity
from reyes.world import Memory

log = logging.getLogger(__name__)


def known_host(config: Config, memory: Memory) -> Host:
    """Say who this host is; a metadata service that is silent now has told it before.

    Raises:
        SourceError: it is silent, and nothing is remembered.
    """
    follower = config.follower
    if follower.instance_id is not None:
        return configured_host(follower, follower.instance_id, follower.region)
    from reyes.adapters.metadata import instance_and_region

    try:
        instance_id, region = instance_and_region()
    except SourceError as error:
        identity = memory.load().identity
        if identity is None:
            raise
        host = remembered_host(config, identity)
        log.warning("%s: taken as %s, as before", error.message, host.instance_id)
        return host
    return configured_host(follower, instance_id, follower.region or region)


def asked_host(config: Config, instance_id: str | None = None) -> Host:
    """Describe another instance as if it had this host's configuration, or this host.

    Raises:
        SourceError: as `known_host`.
        ConfigError: nor may this user read what is remembered.
    """
    follower = config.follower
    if instance_id is not None and instance_id != follower.instance_id:
        return configured_host(follower, instance_id, None)
    return known_host(config, StateDirectory(Path(follower.state_directory)).as_read_only())


def remembered_host(config: Config, identity: Identity | None) -> Host:
    """Describe this host before its network is up.

    Raises:
        ConfigError: nothing is remembered, it was remembered on another machine, or this one
            cannot tell which it is.
    """
    follower = config.follower
    if follower.instance_id is not None:
        return configured_host(follower, follower.instance_id, follower.region)
    # Two machines without an id are not the same one.
    if identity is None or not identity.machine or identity.machine != machine_id():
        raise ConfigError(
            "who this host is cannot be told before the network is up",
            "it is remembered from the first pass on; follower.instance_id says it at once",
        )
    return configured_host(follower, identity.instance_id, identity.region)


def machine_id() -> str:
    """Return what tells this machine from another that was made from its image; empty if nothing.

    /etc/machine-id, the second source, does so only if the image was cleared of it: a copy of the
    image has a copy of the file.
    """
    for path in ("/sys/class/dmi/id/product_uuid", "/etc/machine-id"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            return text
    return ""
