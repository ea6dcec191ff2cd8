"""Who this instance is, asked of the instance metadata service (IMDSv2 only)."""

import os
from http import HTTPStatus
from io import BytesIO
from typing import Any

import msgspec
import urllib3
from ec2_metadata import EC2Metadata

from reyes.errors import SourceError
from reyes.ruleset import InstanceId, RegionName
from reyes.text import one_line

MAX_REPLY_BYTES = 64 * 1024
"""An identity document has half a kilobyte, a token 56 bytes."""


class _BoundedPool(urllib3.PoolManager):
    """Connections to a service that is one hop away or not there: one try, no redirect, bounded.

    Nothing bounds a service that sends a byte now and then: that is the deadline of a run.
    """

    def urlopen(
        self, method: str, url: str, *arguments: Any, **settings: Any
    ) -> urllib3.BaseHTTPResponse:
        settings["preload_content"] = False
        reply = super().urlopen(method, url, *arguments, **settings)
        try:
            body = reply.read(MAX_REPLY_BYTES + 1)
        finally:
            reply.close()
        if len(body) > MAX_REPLY_BYTES:
            raise urllib3.exceptions.HTTPError(f"more than {MAX_REPLY_BYTES} bytes from {url}")
        if reply.status != HTTPStatus.OK:  # ec2_metadata would take a redirect's own body
            raise urllib3.exceptions.HTTPError(f"HTTP {reply.status}: {url}")
        return urllib3.HTTPResponse(BytesIO(body), status=reply.status)


def instance_and_region() -> tuple[str, str]:
    """Ask for this instance's identity document: two requests of at most 5 s and 1 s.

    `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another endpoint, as for the AWS tools.

    Raises:
        SourceError: the service does not answer, or not with an identity.
    """
    metadata = EC2Metadata(_BoundedPool(retries=False))
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if endpoint:
        metadata.service_url = f"{endpoint.rstrip('/')}/latest/"
        metadata.dynamic_url = f"{metadata.service_url}dynamic/"
    try:
        document = metadata.instance_identity_document
        instance_id, region = document["instanceId"], document["region"]
    except (
        *(urllib3.exceptions.HTTPError, OSError),
        *(ValueError, KeyError, TypeError, RecursionError),  # no such document
    ) as error:
        # All of a time-out would name the connection by its address in memory.
        why = f"{error.args[-1]}" if error.args else ""
        raise _unavailable(one_line(why or type(error).__name__)) from error
    try:
        return msgspec.convert((instance_id, region), tuple[InstanceId, RegionName])
    except msgspec.ValidationError as error:
        claim = one_line(f"{instance_id!r} in {region!r}")
        raise _unavailable(f"it calls this host {claim}") from error


def _unavailable(why: str) -> SourceError:
    return SourceError(
        f"the instance metadata service does not tell who this host is: {why}",
        "set follower.instance_id and follower.region where there is no such service",
    )
