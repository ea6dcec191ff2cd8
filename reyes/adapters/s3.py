"""S3: where the signed ruleset lies.

ETags serve caching and compare-and-swap, never trust. A key that is missing shows as 403 to those
who may not list the bucket, so that followers treat 403 and 404 alike.
`read_timeout` bounds the wait for each byte, not for all: the deadline of a run is its caller's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import botocore.session
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, ResponseStreamingError

from reyes import __version__
from reyes.adapters import clock
from reyes.adapters.aws import OR_A_FILE, code_of, is_unreachable, text_of, usable_settings
from reyes.config import S3Config
from reyes.envelope import MAX_ENVELOPE_BYTES, Envelope
from reyes.errors import (
    ConfigError,
    ReyesError,
    SignatureError,
    SourceError,
    UnreachableError,
)
from reyes.text import duration_text
from reyes.trust import MAX_CLOCK_SKEW

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 15
MAX_LEADER_SKEW = MAX_CLOCK_SKEW // 2
"""Seconds that a leader's clock may be wrong: a host's may be as well."""

MAX_ANSWER_BYTES = 64 * 1024
"""Of an answer without the object no more is read: S3's errors have a kilobyte."""

_TAG = re.compile(r'"[!#-~]{1,126}"')
"""One short tag: `*` would stand for any object, and a long one is a request that S3 refuses."""

_NO_OBJECT = 300
"""From this status on an answer does not hold what was asked for."""
_REDIRECTS = frozenset({301, 302, 307, 308})
_RENEW = f"renew the credentials: give this host an instance role, {OR_A_FILE}"
_HINTS = {
    "NoSuchBucket": "mend s3.bucket, or create the bucket",
    "RequestTimeTooSkewed": "set this machine's clock: it is a quarter of an hour wrong, or more",
    "ExpiredToken": _RENEW,
    "InvalidAccessKeyId": _RENEW,
    "SignatureDoesNotMatch": f"the secret key is not that of the access key: {_RENEW}",
}
_LOST = frozenset({HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED})
"""Another object is being written at this moment, or is there."""


def make_s3_client(region: str) -> "S3Client":
    """Make a client that gives up in time; endpoint, credentials and tries are AWS settings.

    Raises:
        ConfigError: those settings cannot be used.
    """
    settings = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard"},
        user_agent_extra=f"reyes/{__version__}",
    )
    with usable_settings():
        # Not through boto3, whose resources and transfers are dear and serve nobody here.
        session = botocore.session.get_session()
        client: Any = session.create_client("s3", region_name=region, config=settings)
    http = client._endpoint.http_session  # noqa: SLF001 - botocore's events come after the body
    http.send = partial(_send, http.send)
    return cast("S3Client", client)


class S3Store:
    """One object of a bucket, and the archive beside it."""

    def __init__(self, config: S3Config) -> None:
        self._client = make_s3_client(config.region)
        self._bucket = config.bucket
        self._key = config.key

    def fetch(self, etag: str | None = None) -> Envelope | None:
        """Return the object, None if it is still the one that `etag` tags.

        Raises:
            SourceError: it is not there, may not be read, or S3 does not answer.
            SignatureError: it is larger than any ruleset.
        """
        condition: Any = {"IfNoneMatch": etag} if etag else {}
        with self._naming("GetObject", self._key):
            try:
                envelope = self._get(**condition)
            except ClientError as error:
                if _status(error) == HTTPStatus.NOT_MODIFIED:
                    return None
                raise
        if len(envelope.blob) > MAX_ENVELOPE_BYTES:
            raise SignatureError(
                f"{self._where(self._key)} has more than {MAX_ENVELOPE_BYTES} bytes",
                "find out who wrote that object",
            )
        return envelope

    def hang_up(self) -> None:
        """Close all connections: the next call has to make a new one."""
        self._client.close()

    def current(self) -> Envelope | None:
        """Return the object, None if there is none yet; one too large is cut after its bound.

        Raises:
            SourceError: it may not be read, or S3 does not answer.
            ConfigError: this machine's clock is not S3's.
        """
        with self._naming("GetObject", self._key):
            try:
                return self._get(checks_clock=True)
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    _check_clock(error.response["ResponseMetadata"])
                    return None
                raise

    def publish(self, envelope: Envelope, replacing: str | None) -> bool:
        """Put the object in the place of the one tagged `replacing`, or of none.

        False means that another object is there by now, or none any more: look again.
        """
        condition: Any = {"IfMatch": replacing} if replacing else {"IfNoneMatch": "*"}
        with self._naming("PutObject", self._key):
            try:
                self._put(self._key, envelope, **condition)
            except ClientError as error:
                if _status(error) in _LOST or code_of(error) == "NoSuchKey":
                    return False
                raise
        return True

    def archive(self, key: str, envelope: Envelope) -> None:
        """Keep a copy under a key of its own."""
        with self._naming("PutObject", key):
            self._put(key, envelope)

    def _get(self, *, checks_clock: bool = False, **condition: Any) -> Envelope:
        reply = self._client.get_object(Bucket=self._bucket, Key=self._key, **condition)
        if checks_clock:
            _check_clock(reply["ResponseMetadata"])
        tag = reply.get("ETag", "")
        return Envelope(blob=_read_bounded(reply), etag=tag if _TAG.fullmatch(tag) else None)

    def _put(self, key: str, envelope: Envelope, **condition: Any) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=envelope.blob,
            ContentType="application/octet-stream",
            **condition,
        )

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    @contextmanager
    def _naming(self, call: str, key: str) -> Iterator[None]:
        """Turn whatever finally goes wrong with a call into an error that names the object."""
        try:
            yield
        except ReyesError:
            raise
        except Exception as error:
            kind = UnreachableError if is_unreachable(error) else SourceError
            raise kind(
                f"{self._where(key)}: {call} failed: {text_of(error)}", _hint(call, error)
            ) from error


def _send(
    send: Callable[[AWSPreparedRequest], AWSResponse], request: AWSPreparedRequest
) -> AWSResponse:
    """Send a request, and read no more than the bound of an answer without the object."""
    wants_object, request.stream_output = request.stream_output, True  # else `send` reads it all
    answer = send(request)
    if not (wants_object and answer.status_code < _NO_OBJECT):
        try:
            with closing(answer.raw):
                body = answer.raw.read(MAX_ANSWER_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise ResponseStreamingError(error=error) from error
        answer.raw = urllib3.HTTPResponse(BytesIO(body), preload_content=False)
    return answer


def _check_clock(answer: Mapping[str, Any]) -> None:
    """Compare this machine's clock with the date of an answer, if it has one.

    What a leader with another time signs hosts would take for a rollback or for the future. S3
    itself bears a quarter of an hour.
    """
    try:
        date = parsedate_to_datetime(answer["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return
    ahead = int(clock.now() - date.timestamp())
    if abs(ahead) > MAX_LEADER_SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        raise ConfigError(
            f"this machine's clock is {duration_text(abs(ahead))} {side} S3's",
            "set it, and keep it right by chrony or systemd-timesyncd: hosts refuse what a leader"
            " with another time signs",
        )


def _read_bounded(reply: "GetObjectOutputTypeDef") -> bytes:
    """Read at most one byte more than any ruleset has, to the very end if it is shorter.

    Only a read that meets the end compares length and checksum.
    """
    parts, missing = [], MAX_ENVELOPE_BYTES + 1
    # As a context manager the body would give out the stream behind its own checks.
    with closing(reply["Body"]) as body:
        while missing and (part := body.read(missing)):
            parts.append(part)
            missing -= len(part)
    return b"".join(parts)


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _is_redirect(error: Exception) -> bool:
    """Tell whether S3 sent us elsewhere; most kinds of it botocore answers by asking for ever."""
    if isinstance(error, ClientError):
        return _status(error) in _REDIRECTS
    return isinstance(error, RecursionError)


def _hint(call: str, error: Exception) -> str:
    if isinstance(error, NoCredentialsError):
        return f"give this host an instance role that may use the bucket, {OR_A_FILE}"
    if _is_redirect(error):
        return "S3 redirects, http to https perhaps: let AWS_ENDPOINT_URL_S3 say where it leads"
    if not isinstance(error, ClientError):
        return "does this host reach S3? The next run tries again"
    if code_of(error) in _HINTS:
        return _HINTS[code_of(error)]
    if "kms:" in text_of(error):
        return "allow kms:Decrypt on the bucket's key, and leaders kms:GenerateDataKey"
    if _status(error) == HTTPStatus.FORBIDDEN and call == "GetObject":
        return "allow s3:GetObject, and s3:ListBucket so that a missing object shows as missing"
    if _status(error) == HTTPStatus.FORBIDDEN:
        return f"allow s3:{call} on this key"
    if _status(error) == HTTPStatus.NOT_FOUND:
        return "no leader has published yet, or s3.key is not theirs"
    return "the next run tries again"
