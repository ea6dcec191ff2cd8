"""EC2: every source is read whole, or nothing is read.

Paginators loop on the token, never on the length: a page may be empty and not the last. The
largest page that EC2 takes is asked for, because calls without pages are throttled earlier and
fail where there is much to say.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import boto3
import botocore.session
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError
from msgspec import Struct

from reyes import __version__
from reyes.adapters.aws import OR_A_FILE, code_of, text_of, usable_settings
from reyes.adapters.ec2_model import CALLS, cut_model
from reyes.adapters.threads import side_by_side
from reyes.config import SourceConfig
from reyes.errors import ConfigError, ReyesError, SourceError
from reyes.inventory import Inventory, View, named_prefix_lists
from reyes.replies import PrefixListEntry

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

MAX_ATTEMPTS = 10
"""Tries of a call unless AWS_MAX_ATTEMPTS says otherwise: large accounts are throttled often."""

MAX_SOURCES = 32
"""Sources that are read at the same time."""

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
PAGE_SIZE = 1000
ENTRIES_PAGE_SIZE = 100
MAX_FILTER_VALUES = 200
"""So many values EC2 takes of one filter."""

_UNREADABLE = frozenset({"InvalidPrefixListID.NotFound", "InvalidPrefixListId.NotFound"})
"""What EC2 says of a prefix list that is gone or not shared with the account."""

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Somebody who wants to know how far a long read has come."""

    def __call__(self, source: str, call: str, items: int) -> None:
        """Take note of how many items a call has returned so far; called from many threads."""


def source_name(source: SourceConfig) -> str:
    """Name a source as messages do: by its region, and its role if it has one."""
    return f"{source.region} as {source.role_arn}" if source.role_arn else source.region


class Ec2Reader:
    """Reads all sources of a configuration side by side; each page is understood at once."""

    def __init__(
        self,
        sources: Sequence[SourceConfig],
        understand: Callable[[Inventory], View],
        progress: Progress,
    ) -> None:
        self._sources = sources
        self._understand = understand
        self._progress = progress

    @contextmanager
    def __call__(self) -> Iterator[Callable[[], list[View]]]:
        """Begin, and give what waits for all pages of all sources; the end of the block stops it.

        What is given returns views in the order of the configuration, or raises:
            SourceError: a call finally failed; it names source, call and error.
            ConfigError: a VPC that the configuration names is not there.
        """
        unanswered: set[str] = set()
        with usable_settings():
            clients = _Clients(unanswered)
        stop, gate = threading.Event(), threading.Semaphore(MAX_SOURCES)

        def read(source: SourceConfig) -> list[View]:
            with gate:
                if stop.is_set():
                    raise _StoppedError
                return _SourceReader(
                    source=source,
                    client=clients.ec2(source),
                    understand=self._understand,
                    progress=self._progress,
                    unanswered=unanswered,
                    stop=stop,
                ).read()

        try:
            reading = side_by_side([partial(read, source) for source in self._sources])
            yield lambda: list(chain.from_iterable(reading()))
        except BaseException as error:
            # Of a run whose time is over nothing else tells what took it.
            if unanswered and not isinstance(error, Exception):
                log.warning("EC2 has not answered: %s", ", ".join(sorted(unanswered.copy())))
            raise
        finally:
            stop.set()


class _Clients:
    """One session for all clients: each session would load EC2's model of 3 MB anew."""

    def __init__(self, unanswered: set[str]) -> None:
        self._unanswered = unanswered
        core = botocore.session.Session()
        cut_model(core)
        core.set_config_variable("sts_regional_endpoints", "regional")
        attempts = core.get_config_variable("max_attempts") or MAX_ATTEMPTS
        self._session = boto3.Session(botocore_session=core)
        self._lock = threading.Lock()
        self._settings = Config(
            retries={"mode": "adaptive", "total_max_attempts": attempts},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            user_agent_extra=f"reyes/{__version__}",
        )

    def ec2(self, source: SourceConfig) -> "EC2Client":
        """Make a client for a source, as its role if it has one."""
        with _naming(source, "AssumeRole", self._unanswered):
            client: EC2Client = self._client("ec2", source, **self._credentials(source))
        return client

    def _credentials(self, source: SourceConfig) -> dict[str, str]:
        if source.role_arn is None:
            return {}
        reply = self._client("sts", source).assume_role(
            RoleArn=source.role_arn, RoleSessionName="reyes-leader"
        )
        return {
            "aws_access_key_id": reply["Credentials"]["AccessKeyId"],
            "aws_secret_access_key": reply["Credentials"]["SecretAccessKey"],
            "aws_session_token": reply["Credentials"]["SessionToken"],
        }

    def _client(self, service: str, source: SourceConfig, **credentials: str) -> Any:
        # Clients may be shared between threads, the session that makes them may not.
        with self._lock:
            make: Any = self._session.client
            with usable_settings():
                return make(
                    service, region_name=source.region, config=self._settings, **credentials
                )


_INCLUDE_HIDDEN = "IncludeManagedResources"
_ENDED: "FilterTypeDef" = {"Name": "instance-state-name", "Values": ["terminated"]}


class _StoppedError(Exception):
    """Another source has failed: the rest of this one is of no use."""


class _SourceReader(Struct, frozen=True, kw_only=True):
    source: SourceConfig
    client: "EC2Client"
    understand: Callable[[Inventory], View]
    progress: Progress
    unanswered: set[str]
    stop: threading.Event

    def read(self) -> list[View]:
        """Read the rules and who is a member side by side: neither needs the other."""
        views = list(chain.from_iterable(side_by_side([self._rules, self._members])()))
        return [*views, *self._missing_groups(views)]

    def _rules(self) -> list[View]:
        vpcs = [self._view(vpcs=page) for page in self._describe("DescribeVpcs", self._of_vpcs)]
        self._check_vpcs({vpc.id for view in vpcs for vpc in view.vpcs})
        return [*vpcs, *self._groups(self._of_vpcs)]

    def _groups(self, only: "FilterTypeDef | None") -> list[View]:
        """Read groups, and the prefix lists that their rules name."""
        pages = self._describe("DescribeSecurityGroups", only)
        groups = [self._view(groups=page) for page in pages]
        named = named_prefix_lists(group for view in groups for group in view.groups)
        return [*groups, self._view(prefix_lists=self._prefix_lists(sorted(named)))]

    def _missing_groups(self, views: Sequence[View]) -> Iterator[View]:
        """Read the groups that interfaces carry and that have not been found.

        A group may be associated with further VPCs, and `vpc-id` finds it only in its first. One
        may also be made, and put in the place of another, while groups and interfaces are read.
        """
        read = {group.id for view in views for group in view.groups}
        carried = {group for v in views for each in v.interfaces for group in each.groups}
        missing = sorted(carried - read)
        for start in range(0, len(missing), MAX_FILTER_VALUES):
            values = missing[start : start + MAX_FILTER_VALUES]
            yield from self._groups({"Name": "group-id", "Values": values})

    def _members(self) -> list[View]:
        """Read interfaces, then the instances that have ended by then.

        Of instances nothing else counts, and their replies are the longest of all. They have no
        VPC any more, so that they are looked for in the whole region.
        """
        interfaces = [
            self._view(interfaces=page)
            for page in self._describe("DescribeNetworkInterfaces", self._of_vpcs)
        ]
        ended = [
            self._view(instances=[i for r in page for i in r.get("Instances") or ()])
            for page in self._describe("DescribeInstances", _ENDED)
        ]
        return [*interfaces, *ended]

    def _view(self, **replies: Any) -> View:
        try:
            return self.understand(Inventory(region=self.source.region, **replies))
        except SourceError as error:
            message = f"{source_name(self.source)}: {error.message}"
            raise SourceError(message, error.hint) from error

    def _check_vpcs(self, found: set[str]) -> None:
        missing = sorted(set(self.source.vpcs or ()) - found)
        if missing:
            raise ConfigError(
                f"{source_name(self.source)} has no VPC {', '.join(missing)}",
                "mend leader.sources: is it the right region and account?",
            )

    def _prefix_lists(self, identifiers: Sequence[str]) -> dict[str, list[PrefixListEntry]]:
        """Read the lists that can be read; followers report the others where a rule names them."""
        call = "GetManagedPrefixListEntries"
        readable: dict[str, list[PrefixListEntry]] = {}
        for identifier in identifiers:
            with _naming(self.source, call, self.unanswered):
                try:
                    pages = list(self._pages(call, ENTRIES_PAGE_SIZE, PrefixListId=identifier))
                except ClientError as error:
                    if code_of(error) not in _UNREADABLE:
                        raise
                    where = source_name(self.source)
                    log.warning("%s: prefix list %s is gone or not shared", where, identifier)
                else:
                    readable[identifier] = [entry for page in pages for entry in page]
        return readable

    @property
    def _of_vpcs(self) -> "FilterTypeDef | None":
        if not self.source.vpcs:
            return None
        return {"Name": "vpc-id", "Values": list(self.source.vpcs)}

    def _describe(self, call: str, only: "FilterTypeDef | None") -> Iterator[list[Any]]:
        """Read all of a kind that a filter finds; without one all there are."""
        arguments: dict[str, Any] = {"Filters": [only]} if only else {}
        # An account may hide what AWS runs for it, such as the nodes of a cluster.
        if _INCLUDE_HIDDEN in self._inputs(call):
            arguments[_INCLUDE_HIDDEN] = True
        with _naming(self.source, call, self.unanswered):
            yield from self._pages(call, PAGE_SIZE, **arguments)

    def _inputs(self, call: str) -> Collection[str]:
        """Return the parameters that botocore knows of a call."""
        shape = self.client.meta.service_model.operation_model(call).input_shape
        return shape.members if shape else ()

    def _pages(self, call: str, page_size: int, **arguments: Any) -> Iterator[list[Any]]:
        client: Any = self.client
        pages = client.get_paginator(xform_name(call)).paginate(
            **arguments, PaginationConfig={"PageSize": page_size}
        )
        count = 0
        for page in pages:
            if self.stop.is_set():
                raise _StoppedError
            items = _items(page, CALLS[call].member)
            count += len(items)
            self.progress(source_name(self.source), call, count)
            yield items


def _items(page: dict[str, Any], member: str) -> list[Any]:
    """Return what a page holds; ValueError if another server wrote it, which would be no items."""
    if member not in page and "RequestId" not in page["ResponseMetadata"]:
        raise ValueError("the reply is none of EC2's: is there a proxy, or AWS_ENDPOINT_URL?")
    return page.get(member) or []


@contextmanager
def _naming(source: SourceConfig, call: str, unanswered: set[str]) -> Iterator[None]:
    """Turn whatever finally goes wrong with a call into an error that names source and call."""
    name = f"{source_name(source)}: {call}"
    unanswered.add(name)
    try:
        yield
    except (ReyesError, _StoppedError):
        raise
    except Exception as error:
        raise SourceError(
            f"{name} failed: {text_of(error)}", _hint(source, call, error)
        ) from error
    finally:
        unanswered.discard(name)


def _hint(source: SourceConfig, call: str, error: Exception) -> str:
    match code_of(error):
        case "UnauthorizedOperation" | "AccessDenied" if call == "AssumeRole":
            return f"allow the leader to assume {source.role_arn}, on both sides"
        case "UnauthorizedOperation" | "AccessDenied":
            return f"allow {source.role_arn or 'the leader'} the action ec2:{call}"
        case "AuthFailure" | "OptInRequired" | "InvalidClientTokenId":
            return f"are the credentials valid, and is {source.region} enabled in the account?"
        case "RequestLimitExceeded":
            return "EC2 throttles the account: run leaders less often, or raise AWS_MAX_ATTEMPTS"
        case _ if isinstance(error, NoCredentialsError):
            return f"give the leader an instance role, {OR_A_FILE}"
        case _:
            return "nothing is published; the next run tries again"
