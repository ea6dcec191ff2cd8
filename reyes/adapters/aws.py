"""What all AWS clients share: settings that may be wrong, and words for what goes wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from reyes.errors import ConfigError
from reyes.text import one_line

OR_A_FILE = (
    "or name a file in AWS_CONFIG_FILE (for the packaged units with Environment= in a drop-in:"
    " ProtectHome=yes hides ~/.aws from them)"
)
"""What to do about credentials where there is no instance role, as the end of a hint."""


@contextmanager
def usable_settings() -> Iterator[None]:
    """Turn what is wrong with AWS's own settings into a ConfigError, where clients are made."""
    try:
        yield
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"the AWS settings of this host cannot be used: {error}",
            "look at AWS_PROFILE, AWS_CONFIG_FILE, AWS_ENDPOINT_URL and the files of ~/.aws,"
            " which the packaged units do not see",
        ) from error


def code_of(error: Exception) -> str:
    """Return AWS's code of an error, or the HTTP status alone; empty if AWS did not answer."""
    if not isinstance(error, ClientError):
        return ""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return error.response.get("Error", {}).get("Code") or str(status)


def text_of(error: Exception) -> str:
    """Return on one line what an error says, or the exception that botocore tripped with."""
    if isinstance(error, ClientError):
        message = error.response.get("Error", {}).get("Message", "no message")
        return one_line(f"{code_of(error)}: {message}")
    return one_line(str(error) if isinstance(error, BotoCoreError) else repr(error))


def is_unreachable(error: Exception) -> bool:
    """Tell whether there was no connection: any answer of AWS's proves that there is one."""
    return isinstance(error, HTTPClientError | NoConnectionError)
