"""`reyes show` verifies before it shows, and says first what is wrong."""

from collections.abc import Callable

import pytest

from tests.desk import Desk
from tests.worlds import document

KEY = "production/ruleset.gpg"


def test_good_ruleset_is_shown(desk: Desk) -> None:
    result = desk.show_file(desk.signed(document(desk.now)))
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"ruleset {desk.now}000 for production" in result.stdout
    assert "group db (sg-0000000b)" in result.stdout


def test_one_instance_is_shown(desk: Desk) -> None:
    blob = desk.signed(document(desk.now))
    result = desk.show_file(blob, "--instance", "i-0000000e")
    assert result.exit_code == 0
    assert "eni-0000000e" in result.stdout
    assert "us-west-2" not in result.stdout


def test_json_is_the_signed_document(desk: Desk) -> None:
    payload = document(desk.now)
    result = desk.show_file(desk.signed(payload), "--json")
    assert result.exit_code == 0
    assert result.stdout.encode() == payload + b"\n"


def test_json_of_one_instance_is_refused(desk: Desk) -> None:
    blob = desk.signed(document(desk.now))
    result = desk.show_file(blob, "--json", "--instance", "i-0000000e")
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("payload", "code", "problem"),
    [
        (lambda now: document(now - 7200), 20, "ruleset expired"),
        (lambda now: document(now, environment="staging"), 22, "environment 'staging'"),
        (lambda now: document(now + 3600), 22, "from the future"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",), ("--instance", "i-0000000e")])
def test_expired_or_foreign_ruleset_is_shown_with_its_problem(
    desk: Desk, payload: Callable[[int], bytes], code: int, problem: str, form: tuple[str, ...]
) -> None:
    result = desk.show_file(desk.signed(payload(desk.now)), *form)
    assert result.exit_code == code
    assert problem in result.stderr
    assert "hint: " in result.stderr
    assert "10.2.0.10" in result.stdout
    assert result.output.index(problem) < result.output.index("10.2.0.10")


def test_ruleset_that_nobody_trusted_signed_is_not_shown(desk: Desk) -> None:
    result = desk.show_file(desk.signed(document(desk.now), genuine=False))
    assert (result.exit_code, result.stdout) == (21, "")
    assert "not trusted here" in result.stderr


def test_unknown_instance_has_its_own_exit_code(desk: Desk) -> None:
    blob = desk.signed(document(desk.now))
    assert desk.show_file(blob, "--instance", "i-00000001").exit_code == 23


def test_missing_file_is_a_usage_error(desk: Desk) -> None:
    assert desk.show(str(desk.directory / "missing.gpg")).exit_code == 2


def test_object_on_s3_is_shown_when_no_file_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        assert desk.show().exit_code == 75
        client = boto3.client("s3", region_name="us-west-2")
        client.create_bucket(
            Bucket="acme-reyes", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        blob = desk.signed(document(desk.now))
        client.put_object(Bucket="acme-reyes", Key=KEY, Body=blob)
        result = desk.show()
    assert result.exit_code == 0
    assert f"ruleset {desk.now}000 for production" in result.stdout
