"""What all AWS clients share: settings that may be wrong, and words for what goes wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from reyes.errors import ConfigError

CALL_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""What a call can finally fail with; botocore retries before it raises."""


@contextmanager
def usable_settings() -> Iterator[None]:
    """Turn what is wrong with AWS's own settings into a ConfigError, where clients are made."""
    try:
        yield
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"the AWS settings of this host cannot be used: {error}",
            "look at AWS_PROFILE, AWS_CONFIG_FILE, AWS_ENDPOINT_URL and the files of ~/.aws",
        ) from error


def code_of(error: Exception) -> str:
    """Return AWS's code of an error, empty if AWS did not answer."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""


def text_of(error: Exception) -> str:
    """Return what an error says."""
    if isinstance(error, ClientError):
        return f"{code_of(error)}: {error.response['Error'].get('Message', 'no message')}"
    return str(error)


def is_unreachable(error: Exception) -> bool:
    """Tell whether there was no connection: any answer of AWS's proves that there is one."""
    return isinstance(error, HTTPClientError | NoConnectionError)
