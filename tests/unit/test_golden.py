"""Documents and the payloads that they come to, file by file.

A case is a directory of tests/golden: document.json and config.yaml go in, ipset.txt, iptables.txt
and ip6tables.txt come out for an empty kernel, why.md says in a line what it is for. The tables of
test_compiler.py judge; these files show what a change does to whole payloads.

To make one anew: write `content` of document.json and config.yaml, run `pytest --update-golden`,
and read the difference.
"""

import json
from pathlib import Path

import msgspec
import pytest

from reyes.config import parse_config
from reyes.host import configured_host
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.plan import FilterTable, plan_commit, table_text
from reyes.policy import resolve
from reyes.ruleset import Content, decode
from tests.fakes.memory_kernel import MemoryKernel
from tests.worlds import document, verified

NOW = 1_795_000_000
GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())
OUTSIDE = """
environment: production
s3: {bucket: acme-reyes, key: production/ruleset.gpg, region: us-west-2}
signing: {keyring_directory: /etc/reyes/keyring, signing_key: 0123456789ABCDEF0123456789ABCDEF01234567}
"""  # noqa: E501 - as people write it


def canonical_text(case: Path) -> bytes:
    """The document as it is signed: docs/ruleset-format.md says how to get there from any JSON."""
    pretty = json.loads((case / "document.json").read_text(encoding="utf-8"))
    return json.dumps(pretty, separators=(",", ":"), ensure_ascii=False).encode()


def compiled(case: Path) -> tuple[Dataplane, FilterTable]:
    text = OUTSIDE + (case / "config.yaml").read_text(encoding="utf-8")
    config = parse_config(text, str(case)).follower
    assert config.instance_id
    host = configured_host(config, config.instance_id, config.region)
    content = decode(canonical_text(case)).content
    return compile_policy(resolve(verified(content), host)), config.filter_table


def payloads(dataplane: Dataplane, mode: FilterTable) -> dict[str, str]:
    four, six = (
        table_text(table, live, mode)
        for table, live in zip(dataplane.tables, MemoryKernel().read().tables, strict=True)
    )
    return {"ipset.txt": create_text(dataplane.sets), "iptables.txt": four, "ip6tables.txt": six}


def update(case: Path) -> None:
    """Give the content a true header, and write down what it comes to."""
    raw = json.loads(canonical_text(case))
    text = document(NOW, msgspec.convert(raw["content"], Content, strict=True))
    pretty = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    (case / "document.json").write_text(pretty + "\n", encoding="utf-8")
    for name, written in payloads(*compiled(case)).items():
        (case / name).write_text(written, encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_a_document_comes_to_its_payloads(case: str, pytestconfig: pytest.Config) -> None:
    path = GOLDEN / case
    if pytestconfig.getoption("--update-golden"):
        update(path)
    written = {
        name: (path / name).read_text(encoding="utf-8")
        for name in ("ipset.txt", "iptables.txt", "ip6tables.txt")
    }
    assert payloads(*compiled(path)) == written


@pytest.mark.parametrize("case", CASES)
def test_a_case_says_why_it_is_there_and_works_in_a_kernel(case: str) -> None:
    path = GOLDEN / case
    assert len((path / "why.md").read_text(encoding="utf-8").splitlines()) == 1
    kernel = MemoryKernel()
    kernel.ipset((path / "ipset.txt").read_text(encoding="utf-8"))
    dataplane, mode = compiled(path)
    for family, name in ((Family.V4, "iptables.txt"), (Family.V6, "ip6tables.txt")):
        text = (path / name).read_text(encoding="utf-8")
        kernel.restore(family, text, flush=mode == "exclusive")
    assert plan_commit(dataplane, kernel.read(), mode).steps == ()
