"""Sets as values, and the text that `ipset restore` is fed."""

from itertools import permutations

import pytest

from reyes.net import Family
from reyes.netfilter import names
from reyes.netfilter.entries import with_reach
from reyes.netfilter.ipset import create_text, ip_set, repair_text
from tests.fakes.memory_kernel import MemoryKernel


def test_the_text_of_a_set() -> None:
    entry = ip_set(Family.V4, "web", ["10.2.0.11", "10.2.0.10", "10.2.16.0/28"])
    assert create_text([entry]) == (
        f"create {entry.name} hash:net family inet hashsize 64 maxelem 3\n"
        f"add {entry.name} 10.2.0.10\n"
        f"add {entry.name} 10.2.0.11\n"
        f"add {entry.name} 10.2.16.0/28\n"
    )


def test_the_other_family() -> None:
    entry = ip_set(Family.V6, "web", ["fd00::10"])
    assert create_text([entry]) == (
        f"create {entry.name} hash:net family inet6 hashsize 64 maxelem 1\n"
        f"add {entry.name} fd00::10\n"
    )


def test_an_empty_set_has_room_for_one_since_the_kernel_takes_no_zero() -> None:
    assert create_text([ip_set(Family.V4, "web", [])]).endswith("maxelem 1\n")


@pytest.mark.parametrize(
    ("family", "everywhere", "halves"),
    [
        (Family.V4, "0.0.0.0/0", ("0.0.0.0/1", "128.0.0.0/1")),
        (Family.V6, "::/0", ("8000::/1", "::/1")),
    ],
)
def test_everywhere_is_split_in_two(
    family: Family, everywhere: str, halves: tuple[str, ...]
) -> None:
    assert ip_set(family, "all", [everywhere]).members == halves


@pytest.mark.parametrize(
    ("members", "size"), [(1, 64), (256, 128), (1000, 256), (10_000, 4096), (70_000, 32_768)]
)
def test_the_hash_has_room_and_the_set_none_to_spare(members: int, size: int) -> None:
    many = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(members)]
    head = create_text([ip_set(Family.V4, "web", many)]).splitlines()[0]
    assert head.endswith(f" hashsize {size} maxelem {members}")


def test_neither_order_nor_repetition_matters() -> None:
    members = ["10.0.0.10", "10.0.0.9", "10.0.0.0/24"]
    assert len({ip_set(Family.V4, "w", order) for order in permutations(members)}) == 1
    assert ip_set(Family.V4, "w", members * 2) == ip_set(Family.V4, "w", members)


def test_a_repair_gives_a_set_in_use_its_members_back_and_leaves_nothing_behind() -> None:
    entry = ip_set(Family.V4, "web", ["10.2.0.10", "10.2.0.11"])
    kernel = MemoryKernel()
    kernel.ipset(create_text([entry]).replace("10.2.0.11", "10.66.6.6"))
    kernel.restore(
        Family.V4, f"*filter\n-A INPUT -m set --match-set {entry.name} src -j DROP\nCOMMIT\n"
    )
    kernel.ipset(repair_text([entry], ()))
    assert kernel.read_members() == {entry.name: entry.members}


def test_a_set_of_services_is_repaired_by_one_of_its_type() -> None:
    entry = ip_set(Family.V4, "services", ["10.2.0.10,47:0", "10.2.0.11,1:8/0"])
    kernel = MemoryKernel()
    kernel.ipset(create_text([entry]).replace("10.2.0.11", "10.66.6.6"))
    kernel.ipset(repair_text([entry], ()))
    assert kernel.read_members() == {entry.name: entry.members}
    assert names.set_type(names.spare_name(entry.name)) == "hash:net,port"


def test_a_set_of_ports_is_repaired_by_one_of_its_kind() -> None:
    entry = ip_set(Family.V4, "ports", [with_reach("10.2.0.10", 80, 90)])
    kernel = MemoryKernel()
    kernel.ipset(create_text([entry]).replace("packets 80", "packets 1"))
    kernel.ipset(repair_text([entry], ()))
    assert kernel.read_members() == {entry.name: entry.members}


def test_the_stand_in_of_a_repair_is_ours_and_one_a_set() -> None:
    entries = [ip_set(Family.V4, "web", [f"10.0.0.{i}"]) for i in range(3)]
    lines = repair_text(entries, ()).splitlines()
    created = [line.split()[1] for line in lines if line.startswith("create")]
    assert len(set(created)) == 3
    assert all(names.owns_set(name) for name in created)
    assert not {entry.name for entry in entries} & set(created)


def test_a_stand_in_that_was_left_behind_is_destroyed_first() -> None:
    entry = ip_set(Family.V4, "web", ["10.2.0.10"])
    text = repair_text([entry], ())
    spare = text.split()[1]
    assert repair_text([entry], {spare}) == f"destroy {spare}\n{text}"
