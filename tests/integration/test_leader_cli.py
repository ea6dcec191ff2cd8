"""`reyes leader` from its command line to S3: moto's S3, real gpg, an EC2 of our own."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import boto3
import pytest
import yaml
from click.testing import CliRunner, Result

import reyes
from reyes.adapters.keyring import make_keyrings
from reyes.cli import main
from reyes.envelope import Envelope
from reyes.errors import SignatureError
from reyes.ruleset import Ruleset
from reyes.trust import authenticate
from tests.fakes.ec2_server import Ec2Server, Failure, Item, ec2_server
from tests.fakes.proxy import Answer, proxy_to
from tests.gnupg_home import gpg_in

OWNER = "123456789012"
BUCKET = "acme-reyes"
KEY = "production/ruleset.gpg"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="OWN",
        aws_secret_access_key="secret",
    )
    server.stop()


@pytest.fixture(scope="module")
def keyrings() -> Iterator[tuple[Path, str]]:
    """The directory of both keyrings, short enough for gpg-agent's sockets, and the key."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="reyes-") as directory:
        path = Path(directory)
        fingerprint = make_keyrings(path, "Reyes leader", "0")
        yield path, fingerprint
        subprocess.run(["gpgconf", "--homedir", path / "leader", "--kill", "all"], check=True)


@pytest.fixture
def ec2() -> Iterator[Ec2Server]:
    with ec2_server() as server:
        yield server


class Leader:
    """A leader's host: its configuration, its command line, and the bucket it publishes to."""

    def __init__(self, directory: Path, keyrings: tuple[Path, str], s3: Any) -> None:
        self.config = directory / "config.yaml"
        self.keyrings, self.fingerprint = keyrings
        self.s3 = s3
        self.configure()

    def configure(self, **leader: Any) -> None:
        """Write the configuration, with some of the leader's options changed."""
        sources = [{"region": "us-west-2"}, {"region": "eu-west-1"}]
        document = {
            "environment": "production",
            "s3": {"bucket": BUCKET, "key": KEY, "region": "us-east-1"},
            "signing": {
                "keyring_directory": str(self.keyrings / "leader"),
                "signing_key": self.fingerprint,
            },
            "leader": {"sources": sources, **leader},
        }
        self.config.write_text(yaml.safe_dump(document))

    def run(self, *arguments: str) -> Result:
        command = ["leader", "--config", str(self.config), *arguments]
        return CliRunner().invoke(main, command, catch_exceptions=False)

    def published(self) -> bytes | None:
        keys = {item["Key"] for item in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())}
        if KEY not in keys:
            assert not keys
            return None
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].read()
        return body

    def read_as_follower(self, blob: bytes) -> Ruleset:
        gpg = gpg_in(self.keyrings / "follower", self.fingerprint)
        return authenticate(gpg.inspect(Envelope(blob)), frozenset({self.fingerprint})).ruleset


@pytest.fixture
def leader(
    tmp_path: Path,
    keyrings: tuple[Path, str],
    s3: Any,
    ec2: Ec2Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Leader]:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url,
        "AWS_ENDPOINT_URL": ec2.url,
        "AWS_ACCESS_KEY_ID": "OWN",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3.create_bucket(Bucket=BUCKET)
    yield Leader(tmp_path, keyrings, s3)
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])


def interface(number: int) -> Item:
    return {
        "networkInterfaceId": f"eni-{number:08x}",
        "vpcId": "vpc-0a1b2c3d",
        "privateIpAddress": f"10.1.0.{number}",
        "groupSet": [{"groupId": "sg-0000000a"}],
        "attachment": {"instanceId": f"i-{number:08x}", "deviceIndex": 0},
    }


def fill(ec2: Ec2Server, instances: int) -> None:
    """One group with so many instances in the first region, nothing in the second."""
    group = {
        "groupId": "sg-0000000a",
        "groupName": "web",
        "ownerId": OWNER,
        "vpcId": "vpc-0a1b2c3d",
        "ipPermissions": [
            {
                "ipProtocol": "tcp",
                "fromPort": 443,
                "toPort": 443,
                "ipRanges": [{"cidrIp": "10.0.0.0/8"}],
            }
        ],
    }
    ec2.say("us-west-2", "DescribeSecurityGroups", [group])
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(n) for n in range(instances)])


def test_what_is_published_is_what_followers_accept(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 3)

    result = leader.run()

    assert result.exit_code == 0
    assert result.stderr == "INFO nothing is published yet\nINFO findings: none\n"
    blob = leader.published()
    assert blob
    ruleset = leader.read_as_follower(blob)
    header = ruleset.header
    assert header.environment == "production"
    assert header.generator == f"{os.uname().nodename} reyes/{reyes.__version__}"
    assert (header.counts.sources, header.counts.instances) == (2, 3)
    assert [region.name for region in ruleset.content.regions] == ["eu-west-1", "us-west-2"]
    title, *lines = result.stdout.splitlines()
    assert title.startswith(
        f"published ruleset {header.serial} at s3://{BUCKET}/{KEY}, valid until "
    )
    assert "   instances 3" in lines
    assert lines[-2:] == [
        "there is no ruleset to compare with:",
        "+ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d: rules 1, members 3",
    ]


def test_each_published_ruleset_is_archived(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 1)
    leader.run()

    blob = leader.published()
    assert blob
    (archived,) = leader.s3.list_objects_v2(Bucket=BUCKET, Prefix="archive/")["Contents"]
    serial = leader.read_as_follower(blob).header.serial
    assert archived["Key"].endswith(f"/{serial}-{KEY}")
    assert archived["Size"] == len(blob)


def test_all_is_told_of_what_is_published_and_not_archived(
    leader: Leader, ec2: Ec2Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ec2, 3)
    metrics, output = tmp_path / "reyes.prom", tmp_path / "ruleset.gpg"
    leader.configure(metrics_file=str(metrics))
    with proxy_to(leader.s3.meta.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        proxy.play("PUT", "forward", Answer(403, b"<Error><Code>AccessDenied</Code></Error>"))

        result = leader.run("--output", str(output))

    assert result.exit_code == 75
    assert result.stdout.startswith("published ruleset ")
    assert "INFO findings: none\n" in result.stderr
    assert "reyes: the ruleset is published, but not archived: s3://" in result.stderr
    assert output.read_bytes() == leader.published()
    serial = leader.read_as_follower(output.read_bytes()).header.serial
    lines = (line.rsplit(" ", 1) for line in metrics.read_text().splitlines())
    numbers = {name: float(value) for name, value in lines if not name.startswith("#")}
    assert numbers["reyes_leader_last_exit_code"] == 75
    assert numbers['reyes_leader_ruleset_serial{environment="production"}'] == serial
    assert "reyes_leader_last_success_timestamp_seconds" not in numbers


def test_json_tells_the_same_to_machines(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 3)
    first = json.loads(leader.run("--json").stdout)
    fill(ec2, 4)

    second = json.loads(leader.run("--json").stdout)

    assert (first["status"], first["previous_serial"]) == ("published", None)
    assert second["previous_serial"] == first["serial"] < second["serial"]
    assert second["previous_counts"] == first["counts"]
    assert second["object"] == f"s3://{BUCKET}/{KEY}"
    (change,) = second["difference"]["groups"]
    assert (change["change"], change["members_added"]) == ("changed", ["10.1.0.3"])


def test_a_dry_run_publishes_nothing_and_writes_the_signed_file(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 3)
    leader.run()
    before = leader.published()
    fill(ec2, 4)
    output = tmp_path / "ruleset.gpg"

    result = leader.run("--dry-run", "--output", str(output))

    assert (result.exit_code, result.stderr) == (0, "INFO findings: none\n")
    assert result.stdout.startswith("dry run: ruleset ")
    assert result.stdout.splitlines()[-2:] == [
        "~ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d",
        "  + member 10.1.0.3",
    ]
    assert leader.published() == before
    assert leader.read_as_follower(output.read_bytes()).header.counts.instances == 4
    assert output.stat().st_mode & 0o777 == 0o644


def test_nothing_changed_is_said(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 3)
    leader.run()

    result = leader.run("--dry-run")

    assert "nothing changed since ruleset " in result.stdout.splitlines()[-1]


def test_a_region_that_fails_on_its_second_page_publishes_nothing(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 3)
    leader.run()
    before = leader.published()
    ec2.say(
        "us-west-2", "DescribeNetworkInterfaces", [interface(0)], Failure("InternalError", 500)
    )
    output = tmp_path / "ruleset.gpg"

    result = leader.run("--force", "--output", str(output))

    assert result.exit_code == 75
    assert result.stdout == ""
    assert result.stderr == (
        "reyes: us-west-2: DescribeNetworkInterfaces failed: InternalError:"
        " simulated InternalError\n"
        "hint: nothing is published; the next run tries again\n"
    )
    assert leader.published() == before
    assert not output.exists()


def test_a_world_that_shrinks_needs_force(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 10)
    leader.run()
    before = leader.published()
    fill(ec2, 5)

    refused = leader.run()
    assert refused.exit_code == 24
    assert "instances fell from 10 to 5 (50%, max_shrink is 30%)" in refused.stderr
    assert leader.published() == before

    assert leader.run("--force").exit_code == 0
    assert leader.published() != before


def test_a_vandalised_object_is_told_and_replaced(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 1)
    leader.s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"-----BEGIN PGP MESSAGE-----\n")

    result = leader.run()

    assert result.exit_code == 0
    assert result.stderr == (
        "ERROR the published object is not genuine and will be replaced:"
        " the object is no binary OpenPGP message\n"
        "INFO findings: none\n"
    )
    blob = leader.published()
    assert blob
    assert leader.read_as_follower(blob).header.counts.instances == 1


def test_a_key_that_followers_do_not_trust_publishes_nothing(
    leader: Leader, ec2: Ec2Server
) -> None:
    fill(ec2, 1)
    text = yaml.safe_load(leader.config.read_text())
    text["signing"]["trusted_keys"] = ["F" * 40]
    leader.config.write_text(yaml.safe_dump(text))

    result = leader.run()

    assert result.exit_code == SignatureError.exit_code
    assert "followers would refuse this ruleset, it is not published" in result.stderr
    assert leader.published() is None


def test_excluded_groups_and_matching_tags_reach_the_document(
    leader: Leader, ec2: Ec2Server
) -> None:
    fill(ec2, 1)
    leader.configure(excluded_group_names=["web"], group_matching="tag:role", validity=600)

    leader.run()

    blob = leader.published()
    assert blob
    ruleset = leader.read_as_follower(blob)
    assert ruleset.header.not_after - ruleset.header.generated_at == 600
    assert ruleset.content.group_matching == "tag:role"
    assert ruleset.content.regions[1].groups[0].ingress == ()


def test_long_reads_leave_log_lines(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 0)
    pages = [[interface(0)], [interface(1)], [interface(2)]]
    ec2.say("us-west-2", "DescribeNetworkInterfaces", *pages)

    result = leader.run("--dry-run")

    assert result.stderr.splitlines() == [
        "INFO nothing is published yet",
        "INFO us-west-2: DescribeNetworkInterfaces: 2 items so far",
        "INFO us-west-2: DescribeNetworkInterfaces: 3 items so far",
        "INFO findings: none",
    ]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_published(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 0)

    result = leader.run("--output", str(tmp_path / "nowhere" / "ruleset.gpg"))

    assert result.exit_code == 78
    assert "nowhere must be a writable directory" in result.stderr
    assert ec2.asked == []


def test_a_file_that_fails_after_all_hides_no_publication(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 1)
    output = tmp_path / ("x" * 250)  # the name that it is first written under is too long

    result = leader.run("--output", str(output))

    assert result.exit_code == 78
    assert result.stdout.startswith("published ruleset ")
    assert leader.published()


def test_a_report_that_nobody_hears_makes_no_publication_a_failure(
    leader: Leader, ec2: Ec2Server
) -> None:
    fill(ec2, 1)
    command = [sys.executable, "-m", "reyes", "leader", "--config", str(leader.config)]

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, b"INFO findings: none")
    assert leader.published()


def test_a_device_is_not_replaced_by_a_file(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    result = leader.run("--output", str(pipe))

    assert result.exit_code == 78
    assert f"{pipe} is no regular file" in result.stderr
    assert pipe.is_fifo()
    assert ec2.asked == []


def test_a_configuration_without_leader_is_refused(leader: Leader, ec2: Ec2Server) -> None:
    text = yaml.safe_load(leader.config.read_text())
    del text["leader"]
    leader.config.write_text(yaml.safe_dump(text))

    result = leader.run()

    assert result.exit_code == 78
    assert "the configuration has no leader section" in result.stderr
    assert ec2.asked == []


def open_wide(ec2: Ec2Server, groups: int = 1) -> None:
    """Groups that let in all of a tunnel, and name a group that nobody knows."""
    group = {
        "groupName": "web",
        "ownerId": OWNER,
        "vpcId": "vpc-0a1b2c3d",
        "ipPermissions": [
            {
                "ipProtocol": "-1",
                "ipRanges": [{"cidrIp": "10.0.0.0/8"}],
                "groups": [{"groupId": "sg-0000000f", "userId": OWNER}],
            }
        ],
    }
    named = [{**group, "groupId": f"sg-0000000{number}"} for number in "abcde"[:groups]]
    ec2.say("us-west-2", "DescribeSecurityGroups", named)


def test_what_is_doubtful_is_counted_in_the_log(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 1)
    open_wide(ec2)

    result = leader.run("--force")

    assert result.stderr.splitlines()[-1] == (
        "INFO findings: 1 critical, 1 warning; see reyes check-ruleset"
    )


def test_a_typo_in_the_excluded_names_is_not_published_unless_forced(
    leader: Leader, ec2: Ec2Server
) -> None:
    fill(ec2, 1)
    open_wide(ec2)
    leader.configure(excluded_group_names=["wed"])

    refused = leader.run()

    assert (refused.exit_code, leader.published()) == (24, None)
    assert "open to whole networks, and nothing is published yet" in refused.stderr
    assert ": sg-0000000a (web) in us-west-2, rule 1\n" in refused.stderr

    result = leader.run("--force")

    (error,) = (line for line in result.stderr.splitlines() if line.startswith("ERROR "))
    assert "open to whole networks: sg-0000000a (web) in us-west-2, rule 1: " in error
    assert "name it in excluded_group_names" in error
    assert (result.exit_code, leader.published() is None) == (0, False)
    assert leader.run().exit_code == 0

    leader.configure(excluded_group_names=["web"])
    assert "ERROR" not in leader.run("--dry-run").stderr


def test_of_many_critical_findings_the_first_three_are_named(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 1)
    open_wide(ec2, groups=5)

    assert " sg-0000000c (web) in us-west-2, rule 1 and 2 more\n" in leader.run().stderr

    output = str(tmp_path / "ruleset.gpg")
    lines = leader.run("--dry-run", "--force", "--output", output).stderr.splitlines()

    named = [line.partition(" (")[0] for line in lines if line.startswith("ERROR ")]
    assert [line.rpartition(" ")[2] for line in named] == [f"sg-0000000{n}" for n in "abc"]
    assert lines[-1].startswith("INFO findings: 5 critical, ")
    command = ["check-ruleset", "--config", str(leader.config), output]
    assert CliRunner().invoke(main, command).output.count("critical  open to whole") == 5


def test_metrics_tell_of_each_pass(leader: Leader, ec2: Ec2Server, tmp_path: Path) -> None:
    fill(ec2, 3)
    open_wide(ec2)
    metrics = tmp_path / "reyes.prom"
    leader.configure(metrics_file=str(metrics))

    leader.run("--dry-run", "--force")
    assert not metrics.exists()
    leader.run("--force")

    text = metrics.read_text()
    assert "reyes_leader_last_exit_code 0.0" in text
    assert 'reyes_leader_counted{kind="instances"} 3.0' in text
    assert 'reyes_leader_findings{severity="critical"} 1.0' in text
    ec2.say("us-west-2", "DescribeNetworkInterfaces", Failure("InternalError", 500))
    assert leader.run().exit_code == 75
    text = metrics.read_text()
    assert "reyes_leader_last_exit_code 75.0" in text
    assert 'reyes_leader_counted{kind="instances"} 3.0' in text
    assert "reyes_leader_last_success_timestamp_seconds" in text


def test_metrics_tell_the_exit_code_of_what_the_system_refuses(
    leader: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    metrics = tmp_path / "reyes.prom"
    leader.configure(metrics_file=str(metrics))
    monkeypatch.setattr("reyes.adapters.ec2.Ec2Reader.__init__", refused)
    assert leader.run().exit_code == 78
    assert "reyes_leader_last_exit_code 78.0" in metrics.read_text()


def test_metrics_that_cannot_be_written_fail_no_pass(
    leader: Leader, ec2: Ec2Server, tmp_path: Path
) -> None:
    fill(ec2, 1)
    leader.configure(metrics_file=str(tmp_path / "nowhere" / "reyes.prom"))

    result = leader.run()

    assert result.exit_code == 0
    assert "WARNING the metrics of this pass are not written: cannot write" in result.stderr
    assert leader.published()


def test_a_resident_leader_publishes_again_and_again(leader: Leader, ec2: Ec2Server) -> None:
    fill(ec2, 1)
    command = ["leader", "--config", str(leader.config), "--interval", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "reyes", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = Timer(60, process.kill)
        deadline.start()
        assert process.stdout
        titles = (line for line in process.stdout if line.startswith("published ruleset"))
        first, second = next(titles), next(titles)
        process.terminate()
        process.stdout.read()
    deadline.cancel()
    assert process.returncode == 0
    assert first != second


def test_a_resident_leader_does_not_start_without_its_section(leader: Leader) -> None:
    text = yaml.safe_load(leader.config.read_text())
    del text["leader"]
    leader.config.write_text(yaml.safe_dump(text))

    result = leader.run("--interval", "1")

    assert result.exit_code == 78
    assert "the configuration has no leader section" in result.stderr
