"""Who this instance is, asked of the instance metadata service (IMDSv2 only)."""

import os
import re
from dataclasses import dataclass

import urllib3
from ec2_metadata import EC2Metadata

from reyes.errors import SourceError

_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")
_REGION = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class Identity:
    """An instance and its region."""

    instance_id: str
    region: str


def instance_identity() -> Identity:
    """Ask for this instance's identity document: two requests of at most 5 s and 1 s.

    `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another endpoint, as for the AWS tools. Redirects
    and retries are switched off: the service is one hop away or not there.

    Raises:
        SourceError: the service does not answer, or not with an identity.
    """
    metadata = EC2Metadata(urllib3.PoolManager(retries=False))
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if endpoint:
        metadata.service_url = f"{endpoint.rstrip('/')}/latest/"
        metadata.dynamic_url = f"{metadata.service_url}dynamic/"
    try:
        document = metadata.instance_identity_document
        identity = Identity(document["instanceId"], document["region"])
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError) as error:
        raise _unavailable(f"{error}" or type(error).__name__) from error
    if not (_matches(_INSTANCE_ID, identity.instance_id) and _matches(_REGION, identity.region)):
        raise _unavailable(f"it calls this host {identity.instance_id!r} in {identity.region!r}")
    return identity


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _unavailable(why: str) -> SourceError:
    return SourceError(
        f"the instance metadata service does not tell who this host is: {why}",
        "set follower.instance_id and follower.region where there is no such service",
    )
