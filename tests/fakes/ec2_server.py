"""An EC2 and an STS on loopback that say what a test wants, page by page.

Replies are written in the wire's own names (`groupId`, not `GroupId`), because what is under test
begins at the wire: a list is a list of <item>s, an empty page is an empty list.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

Item = dict[str, Any]

ITEM_LISTS = {
    "DescribeVpcs": "vpcSet",
    "DescribeSecurityGroups": "securityGroupInfo",
    "DescribeNetworkInterfaces": "networkInterfaceSet",
    "DescribeInstances": "reservationSet",
    "GetManagedPrefixListEntries": "entrySet",
}


@dataclass(frozen=True)
class Failure:
    """An error reply in the place of a page."""

    code: str
    status: int = 400


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; `account` is the access key that signed it."""

    region: str
    account: str
    token: str
    action: str
    parameters: dict[str, str]
    user_agent: str


@dataclass
class Ec2Server:
    """Pages by region and action (and prefix list or filter), failures that come before them."""

    pages: dict[tuple[str, ...], list[list[Item] | Failure]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[Failure]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    silent: str | None = None
    """A region that does not answer until this is another one."""

    def say(self, region: str, action: str, *pages: list[Item] | Failure) -> None:
        """Answer an action in a region with these pages; `Action/list or filter` is possible."""
        self.pages[(region, *action.split("/"))] = list(pages)

    def fail(self, region: str, action: str, *failures: Failure) -> None:
        """Answer the next requests for an action with these failures."""
        self.failures[region, action] = list(failures)

    def asked_for(self, action: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.action == action]

    def reply(self, asked: Asked) -> tuple[int, str]:
        """Return status and body for one request."""
        self.asked.append(asked)
        while asked.region == self.silent:
            time.sleep(0.05)
        pending = self.failures.get((asked.region, asked.action))
        if pending:
            return _failure(pending.pop(0))
        if asked.action == "AssumeRole":
            return 200, _assumed_role(asked.parameters["RoleArn"])
        key = (asked.region, asked.action)
        subject = asked.parameters.get("PrefixListId", asked.parameters.get("Filter.1.Name", ""))
        pages = self.pages.get((*key, subject)) or self.pages.get(key, [[]])
        number = int(asked.parameters.get("NextToken", "0"))
        page = pages[number]
        if isinstance(page, Failure):
            return _failure(page)
        token = {"nextToken": str(number + 1)} if number + 1 < len(pages) else {}
        body = {ITEM_LISTS[asked.action]: page, **token}
        return 200, f"<{asked.action}Response>{_xml(body)}</{asked.action}Response>"


@contextmanager
def ec2_server() -> Iterator[Ec2Server]:
    """Serve on a free port of loopback."""
    ec2 = Ec2Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for head and body: two would wait for a delayed ACK

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            parameters = {name: values[0] for name, values in parse_qs(text).items()}
            # The scope reads key, date, region, service.
            scope = self.headers["Authorization"].partition("Credential=")[2].split("/")
            asked = Asked(
                region=scope[2],
                account=scope[0],
                token=self.headers.get("X-Amz-Security-Token", ""),
                action=parameters["Action"],
                parameters=parameters,
                user_agent=self.headers["User-Agent"],
            )
            status, body = ec2.reply(asked)
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    ec2.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield ec2
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _xml(value: Any) -> str:
    match value:
        case dict():
            return "".join(f"<{name}>{_xml(inner)}</{name}>" for name, inner in value.items())
        case list():
            return "".join(f"<item>{_xml(inner)}</item>" for inner in value)
        case _:
            return escape(str(value))


def _failure(failure: Failure) -> tuple[int, str]:
    error = _xml({"Code": failure.code, "Message": f"simulated {failure.code}"})
    return failure.status, (
        f"<Response><Errors><Error>{error}</Error></Errors>"
        "<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    )


def _assumed_role(arn: str) -> str:
    """Grant a role; its account number becomes the access key, so that tests can see who asks."""
    credentials = {
        "AccessKeyId": arn.split(":")[4],
        "SecretAccessKey": "secret",
        "SessionToken": "token",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
        f"{_xml({'Credentials': credentials})}</AssumeRoleResult></AssumeRoleResponse>"
    )
