"""Who the host is that a command is about: configuration first, then the metadata service."""

from reyes.config import Config
from reyes.host import Host, configured_host


def this_host(config: Config, instance_id: str | None = None) -> Host:
    """Describe this host, or another instance as if it had this host's configuration.

    Raises:
        SourceError: neither the configuration nor the metadata service tells who this host is.
    """
    follower = config.follower
    if instance_id is not None and instance_id != follower.instance_id:
        return configured_host(follower, instance_id, None)
    if follower.instance_id is not None:
        return configured_host(follower, follower.instance_id, follower.region)
    from reyes.adapters.metadata import instance_identity

    identity = instance_identity()
    return configured_host(follower, identity.instance_id, follower.region or identity.region)
