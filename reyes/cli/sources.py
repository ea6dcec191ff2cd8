"""Where signed rulesets come from: the object on S3, or a file."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reyes.adapters.threads import side_by_side
from reyes.config import Config
from reyes.envelope import MAX_ENVELOPE_BYTES, Envelope
from reyes.errors import ConfigError, SourceError, UnreachableError

if TYPE_CHECKING:
    from reyes.adapters.s3 import S3Store

log = logging.getLogger(__name__)


class StoreSource:
    """The object on S3; the client is made when it is needed, as its import costs most.

    All is done in a thread: nothing interrupts a look for a name, but a deadline goes on without.
    """

    def __init__(self, config: Config) -> None:
        self._config = config.s3
        self._store: S3Store | None = None

    def fetch(self, etag: str | None = None) -> Envelope | None:
        """Return the object, or None if it still is the one of this tag."""
        try:
            (envelope,) = side_by_side([partial(self._fetch, etag)])()
        except BaseException as error:
            if not isinstance(error, Exception):  # a deadline or an interrupt
                log.warning(
                    "S3 has not answered: s3://%s/%s", self._config.bucket, self._config.key
                )
            raise
        return envelope

    def fetch_anew(self, etag: str | None) -> Envelope | None:
        """Do so through a new connection: one that is open outlives rules that allow no other."""
        if self._store:
            self._store.hang_up()
        return self.fetch(etag)

    def _fetch(self, etag: str | None) -> Envelope | None:
        from reyes.adapters.s3 import S3Store

        store = self._store = self._store or S3Store(self._config)
        try:
            return store.fetch(etag)
        except SourceError as error:
            # A client keeps the credentials that it was made with: the next one reads them anew.
            if not isinstance(error, UnreachableError):
                self._store = None
            raise


class FileSource:
    """A local signed file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, etag: str | None = None) -> Envelope:  # noqa: ARG002 - a file has no tag
        """Return the file's bytes, one more than allowed at most."""
        try:
            with self._path.open("rb") as file:
                return Envelope(file.read(MAX_ENVELOPE_BYTES + 1))
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error
