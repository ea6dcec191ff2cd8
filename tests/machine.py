"""A host with all that its follower meets: a store, a memory and a kernel, all in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from reyes.config import Config, FollowerConfig
from reyes.envelope import Envelope
from reyes.errors import ConfigError, KernelError, SourceError
from reyes.follower import Follower, Outcome
from reyes.host import Host, configured_host
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.settled import Settled
from reyes.prepared import Prepared
from reyes.rollback import roll_back
from reyes.ruleset import Content
from reyes.state import KeptGeneration, State
from reyes.trust import VerifiedRuleset
from tests.fakes.memory_kernel import MemoryKernel
from tests.leaders import PaperSigner, configuration, signed
from tests.worlds import document

NOW = 1_795_000_000
HOST = "i-0000000b"


@dataclass
class Shelf:
    """A store with one object; its tag is the number of the object."""

    blobs: list[bytes] = field(default_factory=list)
    down: bool = False
    always_unchanged: bool = False
    asked: list[str | None] = field(default_factory=list)

    def fetch(self, etag: str | None = None) -> Envelope | None:
        self.asked.append(etag)
        if self.down:
            raise SourceError("s3 does not answer", "try later")
        current = str(len(self.blobs))
        unchanged = self.always_unchanged or etag == current
        return None if unchanged else Envelope(self.blobs[-1], current)


@dataclass
class Notebook:
    """What a follower remembers, and how often it wrote."""

    state: State = field(default_factory=State)
    blob: bytes | None = None
    previous: Generation | None = None
    trial: Generation | None = None
    held: Generation | None = None
    calm: Settled | None = None
    writes: list[str] = field(default_factory=list)

    def load(self) -> State:
        return self.state

    def save(self, state: State) -> None:
        self.writes.append("save")
        self.state = state

    def last_good(self) -> bytes | None:
        return self.blob

    def keep(self, blob: bytes) -> None:
        self.writes.append("keep")
        self.blob = blob

    def settled(self) -> Settled | None:
        return self.calm

    def keep_settled(self, settled: Settled) -> None:
        self.calm = settled

    def generation(self, which: KeptGeneration) -> Generation | None:
        return {"previous": self.previous, "trial": self.trial, "held": self.held}[which]

    def keep_generation(self, which: KeptGeneration, generation: Generation) -> None:
        self.writes.append(f"keep {which}")
        setattr(self, which, generation)

    def end_trial(self, *, proved: bool) -> None:
        if proved:
            self.previous = self.trial
        self.trial = None


@dataclass
class Sentinel:
    """A guard that does what it is told to, and remembers when it was asked for what."""

    refuses: bool = False
    forbids: bool = False
    finds: str | None = None
    blameless: bool = False
    asked: list[str] = field(default_factory=list)
    go_back: Callable[[], None] | None = None

    def rehearse(self, _: Dataplane, __: LiveKernel) -> None:
        self.asked.append("rehearse")
        if self.refuses:
            raise KernelError("refused in the rehearsal")
        if self.forbids:
            raise ConfigError("namespaces are forbidden")

    @contextmanager
    def armed(self, go_back: Callable[[], None]) -> Iterator[None]:
        self.asked.append("arm")
        self.go_back = go_back
        try:
            yield
        finally:
            self.asked.append("disarm")

    def trouble(self) -> str | None:
        self.asked.append("confirm")
        return self.finds

    def is_well(self) -> bool:
        return not self.blameless


@dataclass
class Clock:
    time: float = NOW

    def __call__(self) -> float:
        return self.time


class Machine:
    """A host with all that its follower meets."""

    def __init__(self, content: Content | None = None, **follower: Any) -> None:
        self.shelf = Shelf([signed(document(NOW, content))])
        self.notebook = Notebook()
        self.kernel = MemoryKernel()
        self.clock = Clock()
        self.guard = Sentinel()
        self.config: Config = replace(configuration(), follower=FollowerConfig(**follower))

    @property
    def follower(self) -> Follower:
        return Follower(
            config=self.config,
            source=self.shelf,
            verifier=PaperSigner(),
            memory=self.notebook,
            kernel=self.kernel,
            now=self.clock,
        )

    def publish(self, at: int, content: Content | None = None, **changes: Any) -> None:
        self.shelf.blobs.append(signed(document(at, content, **changes)))

    def host(self, instance: str = HOST) -> Host:
        return configured_host(self.config.follower, instance, "us-west-2")

    def accept(self, instance: str = HOST, **how: bool) -> VerifiedRuleset:
        follower = self.follower
        return follower.acceptance.accept(follower.acceptance.fetch(), self.host(instance), **how)

    def prepare(self, instance: str = HOST) -> Prepared:
        verified = self.accept(instance)
        return self.follower.prepare(verified, self.host(instance), self.kernel.read())

    def run(self, *, force: bool = False) -> Outcome:
        """A whole pass."""
        self.follower.return_from_trial(self.host())
        return self.follower.commit(self.prepare(), self.guard, force=force)

    def roll_back(self, until: int = 0, **how: Any) -> None:
        filter_table = self.config.follower.filter_table
        roll_back(self.notebook, self.kernel, self.guard, filter_table, until, **how)

    def untouched(self) -> tuple[Any, ...]:
        """All that a refused ruleset must leave as it is."""
        kernel = self.kernel
        return (
            [kernel.save(family) for family in kernel.tables],
            kernel.ipset_save(),
            len(kernel.executed),
            self.notebook.state,
            self.notebook.blob,
            self.notebook.previous,
            self.notebook.trial,
            list(self.notebook.writes),
        )
