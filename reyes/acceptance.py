"""How a host gets a ruleset: fetched, verified, admitted, and remembered.

Admit, then remember: of what is refused nothing is written but that it looked implausible.
"""

import logging
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from reyes.config import Config
from reyes.envelope import Envelope
from reyes.errors import ConfigError, ExpiredError, ImplausibleError, SignatureError, SourceError
from reyes.host import Host
from reyes.policy import check_known
from reyes.state import State
from reyes.trust import (
    Accepted,
    Genuine,
    VerifiedRuleset,
    admit,
    authenticate,
    readmit,
)
from reyes.world import Memory, RulesetSource, Verifier

IMPLAUSIBLE_PATIENCE = 3
"""So many different rulesets that look implausible are a world that has changed."""

log = logging.getLogger(__name__)


class Acceptance(Struct, frozen=True, kw_only=True):
    """The steps from a store to a ruleset that this host accepts."""

    config: Config
    source: RulesetSource
    verifier: Verifier
    memory: Memory
    now: Callable[[], float]

    def fetch(self) -> Envelope | None:
        """Fetch the ruleset's object; None if it still is the one that is kept here.

        Raises:
            SourceError: the source does not answer.
            ExpiredError: nor is what is kept valid any more.
        """
        state = self.memory.load()
        return self._fetch(state, state.etag if self.memory.last_good() else None)

    def accept(
        self, fetched: Envelope | None, host: Host, *, force: bool = False, remember: bool = True
    ) -> VerifiedRuleset:
        """Admit what `fetch` has returned, and remember it as the highest that was accepted.

        One that does not know this host is not: the one before is what repairs go by, and the
        next boot.

        Raises:
            SourceError: what is kept is not good any more, and the source does not answer.
            ExpiredError, SignatureError, ReplayError, ImplausibleError: as in `trust`.
            HostUnknownError: the ruleset does not know this host.
        """
        state = self.memory.load()
        kept = self.memory.last_good()
        envelope, genuine = self._newest(fetched, state, kept)
        header = genuine.ruleset.header
        implausible = tuple(sorted({*state.implausible, header.serial}))
        try:
            verified = admit(
                genuine,
                environment=self.config.environment,
                now=int(self.now()),
                accepted=state.accepted or self._accepted_by(kept),
                force=force or len(implausible) >= IMPLAUSIBLE_PATIENCE,
            )
        except ImplausibleError:
            if remember:
                self.memory.save(replace(state, implausible=implausible))
            raise
        check_known(verified.ruleset.content, host)
        after = replace(
            state,
            accepted=genuine.accepted,
            content_sha256=genuine.ruleset.content_sha256,
            etag=envelope.etag,
            not_after=header.not_after,
            implausible=(),
        )
        if remember and envelope.blob != kept:
            self.memory.keep(envelope.blob)
        if remember and after != state:
            self.memory.save(after)
        return verified

    def last_good(self) -> VerifiedRuleset:
        """Return the ruleset that was kept last, verified anew, even if it has expired.

        Raises:
            SourceError: none is kept.
            ConfigError: it is not remembered what was accepted.
            SignatureError, ReplayError: what is kept is not what was accepted.
        """
        blob = self.memory.last_good()
        if blob is None:
            raise SourceError(
                "no ruleset is kept", "the first run that reaches the store keeps its ruleset"
            )
        try:
            genuine = self._authenticate(Envelope(blob))
        except SignatureError as error:
            raise SignatureError(
                f"the ruleset that is kept here is not good any more: {error.message}",
                "`reyes follower --force` fetches it anew, if the store answers; is this host's"
                " clock right, and who changed last-good.gpg in follower.state_directory",
            ) from error
        accepted = self.memory.load().accepted
        if accepted is None:
            # The same file would tell whether the kept one is blamed, or held against.
            raise ConfigError(
                "it is not remembered here which ruleset was accepted last",
                "the next run that reaches the store remembers it",
            )
        return readmit(genuine, self.config.environment, accepted)

    def _newest(
        self, fetched: Envelope | None, state: State, kept: bytes | None
    ) -> tuple[Envelope, Genuine]:
        if fetched is None and kept is not None:
            genuine = self._genuine(kept)
            if genuine and state.accepted and genuine.digest == state.accepted.digest:
                return Envelope(kept, state.etag), genuine
            log.warning("the last good ruleset is not good any more: fetching it anew")
            fetched = self._fetch(state, None)
        if fetched is None:
            raise SourceError("the store says `unchanged`, and was told of no version")
        return fetched, self._authenticate(fetched)

    def _accepted_by(self, kept: bytes | None) -> Accepted | None:
        """Go by what is kept where nothing else tells what was accepted: the state was lost."""
        genuine = self._genuine(kept)
        return genuine.accepted if genuine else None

    def _genuine(self, kept: bytes | None) -> Genuine | None:
        """Return what is kept, if it still is a ruleset that a trusted key signed."""
        try:
            return self._authenticate(Envelope(kept)) if kept else None
        except SignatureError:
            return None

    def _fetch(self, state: State, etag: str | None) -> Envelope | None:
        try:
            return self.source.fetch(etag)
        except SourceError as error:
            if state.not_after and state.not_after < self.now():
                raise ExpiredError(
                    f"the last good ruleset has expired, and no other is to be had: {error}",
                    error.hint,
                ) from error
            raise

    def _authenticate(self, envelope: Envelope) -> Genuine:
        return authenticate(self.verifier.inspect(envelope), self.config.signing.pins)
