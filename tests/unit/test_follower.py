"""One pass of a follower, with a store, a memory and a kernel that are in memory."""

import logging
from collections.abc import Collection
from contextlib import nullcontext

import pytest
from msgspec.structs import replace

import reyes
from reyes.acceptance import IMPLAUSIBLE_PATIENCE
from reyes.config import FollowerConfig
from reyes.cutover import UnhealthyError
from reyes.errors import (
    ConfigError,
    ExpiredError,
    HostUnknownError,
    ImplausibleError,
    KernelError,
    ReplayError,
    ReyesError,
    SignatureError,
    SourceError,
)
from reyes.net import Family
from reyes.netfilter.live import nothing_live
from reyes.netfilter.plan import RestoreTable, payload_text
from reyes.removal import remove
from reyes.ruleset import Content, Interface
from reyes.settling import MEMBERS_CHECK_SECONDS
from reyes.state import State
from tests.fakes.memory_kernel import MemoryKernel
from tests.leaders import FOREIGN_KEY, PaperSigner, signed
from tests.machine import HOST, NOW, Machine
from tests.unit.test_cutover import opened_to
from tests.worlds import document, interface, shrunk, small_world


def test_a_first_pass_puts_the_ruleset_in_force_and_remembers_it() -> None:
    machine = Machine()
    assert machine.run() == "applied"
    assert "reyes-ingress" in machine.kernel.tables[Family.V4]
    state = machine.notebook.state
    assert state.accepted is not None
    assert state.accepted.serial == NOW * 1000
    assert (state.etag, state.not_after) == ("1", NOW + 3600)
    assert state.applied is not None
    assert machine.notebook.blob == machine.shelf.blobs[0]


@pytest.mark.parametrize("content", [small_world(), None])
def test_a_pass_that_dies_between_keeping_and_remembering_leaves_what_repairs_go_by(
    content: Content | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    machine.run()
    machine.clock.time += 60
    machine.publish(NOW + 60, content or replace(small_world(), excluded_group_names=("db",)))
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, "save", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            machine.prepare()
    machine.kernel.restore(Family.V4, "*filter\n-D INPUT -j reyes-input\nCOMMIT\n")
    follower = machine.follower

    prepared = follower.prepare_repair(machine.host(), machine.kernel.read(), reconfigure=True)
    assert prepared is not None
    assert follower.commit(prepared, machine.guard) == ("repaired" if content else "applied")
    assert machine.kernel.read().tables[0].jump_in_place
    assert machine.run() == "unchanged"
    assert machine.notebook.state.accepted is not None
    assert machine.notebook.state.accepted.serial == (NOW + 60) * 1000


def raise_interrupt(_: State) -> None:
    raise KeyboardInterrupt


def test_what_is_accepted_is_kept_before_it_is_remembered_and_both_before_it_is_applied() -> None:
    machine = Machine()
    prepared = machine.prepare()
    assert machine.notebook.writes == ["keep", "save"]
    assert machine.notebook.state.applied is None
    assert machine.kernel.executed == []
    machine.follower.commit(prepared, machine.guard)
    assert machine.notebook.state.applied == prepared.fingerprint


def test_a_second_pass_asks_by_tag_and_changes_and_writes_nothing() -> None:
    machine = Machine()
    machine.run()
    machine.notebook.state = replace(machine.notebook.state, members_checked_at=NOW)
    machine.notebook.writes.clear()
    assert machine.run() == "unchanged"
    assert machine.shelf.asked == [None, "1"]
    assert machine.notebook.writes == []
    assert machine.kernel.executed[-1].steps == ()


def test_the_next_ruleset_is_applied() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time += 60
    machine.publish(NOW + 60, replace(small_world(), excluded_group_names=("db",)))
    assert machine.run() == "applied"
    assert machine.kernel.executed[-1].steps
    assert machine.notebook.state.etag == "2"


def test_a_ruleset_that_changed_nothing_here_is_remembered_all_the_same() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time += 60
    machine.publish(NOW + 60)
    assert machine.run() == "unchanged"
    assert machine.kernel.executed[-1].steps == ()
    assert machine.notebook.state.not_after == NOW + 3660


Refusal = tuple[bytes, type[ReyesError]]
FUTURE, PAST = NOW + 10_000, NOW - 10_000
REFUSALS: dict[str, Refusal] = {
    "unsigned": (document(NOW + 1), SignatureError),
    "of another signer": (signed(document(NOW + 1), FOREIGN_KEY), SignatureError),
    "of no signer": (b"", SignatureError),
    "no document": (signed(b"{}"), SignatureError),
    "expired": (
        signed(document(NOW, serial=NOW * 1000 + 1, not_after=NOW - 1, generated_at=NOW - 9)),
        ExpiredError,
    ),
    "replayed": (signed(document(NOW - 60)), ReplayError),
    "of equal serial": (signed(document(NOW, generator="leader-b/2.0.0")), ReplayError),
    "from the future": (signed(document(FUTURE)), ReplayError),
    "of another environment": (signed(document(NOW + 1, environment="staging")), ReplayError),
}


@pytest.mark.parametrize(("blob", "error"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_leaves_kernel_and_memory_as_they_were(
    blob: bytes, error: type[ReyesError]
) -> None:
    machine = Machine()
    machine.run()
    machine.shelf.blobs.append(blob)
    before = machine.untouched()
    with pytest.raises(error):
        machine.run()
    assert machine.untouched() == before


@pytest.mark.parametrize("name", sorted(REFUSALS.keys() - {"replayed", "of equal serial"}))
def test_what_is_refused_is_so_from_the_start(name: str) -> None:
    blob, error = REFUSALS[name]
    machine = Machine()
    machine.shelf.blobs[0] = blob
    before = machine.untouched()
    with pytest.raises(error):
        machine.run()
    assert machine.untouched() == before


def test_a_store_that_is_down_leaves_everything_as_it_was() -> None:
    machine = Machine()
    machine.run()
    machine.shelf.down = True
    before = machine.untouched()
    with pytest.raises(SourceError):
        machine.run()
    assert machine.untouched() == before


def test_a_store_that_stays_down_ends_in_expiry_but_the_rules_stay() -> None:
    machine = Machine()
    machine.run()
    machine.shelf.down = True
    machine.clock.time = NOW + 3601
    before = machine.untouched()
    with pytest.raises(ExpiredError) as caught:
        machine.run()
    assert caught.value.hint == "try later"
    assert machine.untouched() == before


def test_a_store_that_is_down_from_the_start_is_no_expiry() -> None:
    machine = Machine()
    machine.shelf.down = True
    with pytest.raises(SourceError):
        machine.run()


def test_an_unchanged_ruleset_expires() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time = NOW + 3601
    with pytest.raises(ExpiredError):
        machine.run()
    assert machine.shelf.asked == [None, "1"]


def test_a_store_that_says_unchanged_of_what_is_not_known_is_out_of_order() -> None:
    machine = Machine()
    machine.shelf.always_unchanged = True
    with pytest.raises(SourceError, match="unchanged"):
        machine.run()


DAMAGES: dict[str, bytes | None] = {
    "lost": None,
    "cut short": signed(document(NOW))[:100],
    "empty": b"",
    "another good one": signed(document(NOW - 60)),
}


@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_a_last_good_ruleset_that_is_damaged_is_fetched_anew_and_mended(
    damaged: bytes | None,
) -> None:
    machine = Machine()
    machine.run()
    machine.notebook.blob = damaged
    machine.run()
    assert machine.shelf.asked[-1] is None
    assert machine.notebook.blob == machine.shelf.blobs[0]
    machine.run()
    assert machine.shelf.asked[-1] == "1"


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
def test_nothing_older_is_accepted_than_what_is_remembered_or_kept(
    *, remembered: bool, kept: bool
) -> None:
    machine = Machine()
    machine.run()
    if not remembered:
        machine.notebook.state = State()
    if not kept:
        machine.notebook.blob = DAMAGES["cut short"]
    machine.publish(NOW - 60)
    with pytest.raises(ReplayError) if remembered or kept else nullcontext():
        machine.run()


def test_nothing_is_remembered_of_a_dry_run() -> None:
    machine = Machine()
    before = machine.untouched()
    verified = machine.accept(remember=False)
    host = machine.host()
    assert machine.follower.prepare(verified, host, machine.kernel.read()).plan.steps
    assert machine.untouched() == before
    machine.shelf.blobs[0] = signed(document(NOW, nothing_left()))
    with pytest.raises(ImplausibleError):
        machine.accept(remember=False)
    assert machine.untouched() == before


def nothing_left() -> Content:
    content = small_world()
    regions = tuple(replace(region, interfaces=()) for region in content.regions)
    return replace(content, regions=regions)


def crowded() -> Content:
    """The small world, with so many more instances that it looks like next to nothing beside."""
    content = small_world()
    *others, last = content.regions
    crowd = (
        Interface(id=f"eni-{n:08x}", vpc=last.vpcs[0].id, instance=f"i-{n:08x}", device=0)
        for n in range(0x1000, 0x1040)
    )
    interfaces = sorted((*last.interfaces, *crowd), key=lambda interface: interface.id)
    return replace(content, regions=(*others, replace(last, interfaces=tuple(interfaces))))


def test_a_world_that_vanished_is_believed_when_others_of_its_kind_follow() -> None:
    machine = Machine(crowded())
    machine.run()
    kernel = machine.untouched()[:3]
    for number in range(1, IMPLAUSIBLE_PATIENCE):
        machine.clock.time = NOW + number
        machine.publish(NOW + number, small_world())
        for _ in range(3):  # the same one again is not one more
            with pytest.raises(ImplausibleError):
                machine.accept()
        assert len(machine.notebook.state.implausible) == number
        assert machine.untouched()[:3] == kernel
    machine.clock.time = NOW + IMPLAUSIBLE_PATIENCE
    machine.publish(NOW + IMPLAUSIBLE_PATIENCE, small_world())
    machine.accept()
    assert machine.notebook.state.implausible == ()


def test_a_world_that_comes_back_ends_the_patience() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time = NOW + 10
    machine.publish(NOW + 1, shrunk(small_world()))
    with pytest.raises(ImplausibleError):
        machine.accept()
    machine.publish(NOW + 2)
    machine.accept()
    assert machine.notebook.state.implausible == ()


def test_force_believes_what_is_implausible_and_nothing_else() -> None:
    machine = Machine(crowded())
    machine.run()
    machine.clock.time = NOW + 10
    machine.publish(NOW + 1, small_world())
    machine.accept(force=True)
    machine.shelf.blobs.append(signed(document(NOW + 2), FOREIGN_KEY))
    with pytest.raises(SignatureError):
        machine.accept(force=True)
    machine.publish(NOW - 60)
    with pytest.raises(ReplayError):
        machine.accept(force=True)


def test_a_host_that_the_ruleset_does_not_know_keeps_what_it_has() -> None:
    machine = Machine()
    machine.run()
    advanced = replace(small_world(), excluded_group_names=("db",))
    machine.publish(NOW + 60, advanced)
    machine.clock.time += 60
    before = machine.untouched()
    with pytest.raises(HostUnknownError):
        machine.prepare("i-0000dead")
    assert machine.untouched() == before
    assert machine.run() == "applied"


def test_a_ruleset_without_the_networks_of_each_of_its_vpcs_leaves_a_host_what_it_has() -> None:
    machine = Machine()
    machine.run()
    content = small_world()
    second = interface("0000001b", "10.3.0.11", "", HOST, vpc="vpc-0b0b0b0b", device=1)
    regions = tuple(
        replace(region, interfaces=(*region.interfaces, second))
        if region.name == "us-west-2"
        else region
        for region in content.regions
    )
    machine.publish(NOW + 60, replace(content, regions=regions))
    machine.clock.time += 60
    before = machine.untouched()
    with pytest.raises(HostUnknownError, match=second.vpc):
        machine.run()
    assert machine.untouched() == before


def test_a_change_by_somebody_else_is_repaired_and_told() -> None:
    machine = Machine()
    machine.run()
    machine.kernel.restore(
        Family.V4, "*filter\n-D INPUT -j reyes-input\n-A reyes-drop -j ACCEPT\nCOMMIT\n"
    )
    assert machine.run() == "repaired"
    assert machine.run() == "unchanged"
    assert machine.kernel.read().tables[0].jump_in_place


def test_a_refusal_of_the_kernel_is_not_remembered_as_applied() -> None:
    machine = Machine()
    machine.kernel.refuses = lambda step: isinstance(step, RestoreTable)
    with pytest.raises(KernelError):
        machine.run()
    assert machine.notebook.state.applied is None
    assert machine.notebook.state.accepted is not None
    machine.kernel.refuses = lambda _: False
    assert machine.run() == "applied"
    assert machine.kernel.read().tables[0].jump_in_place


def test_members_are_read_back_once_in_a_while_and_drift_is_repaired() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    checked = machine.notebook.state.members_checked_at
    assert checked == NOW
    (name,) = (one for one in machine.kernel.sets if one.startswith("r4:web:"))
    right = dict(machine.kernel.sets[name].members)
    machine.kernel.sets[name].members = {"10.66.6.6": ""}
    assert machine.run() == "unchanged"
    assert machine.kernel.sets[name].members != right
    machine.clock.time = NOW + MEMBERS_CHECK_SECONDS
    assert machine.run() == "repaired"
    assert machine.kernel.sets[name].members == right
    assert machine.notebook.state.members_checked_at == NOW + MEMBERS_CHECK_SECONDS


def test_a_clock_that_was_set_back_does_not_put_the_check_off_for_years() -> None:
    machine = Machine()
    machine.run()
    machine.notebook.state = replace(
        machine.notebook.state, members_checked_at=NOW + 10 * MEMBERS_CHECK_SECONDS
    )
    machine.run()
    assert machine.notebook.state.members_checked_at == NOW


def test_a_set_that_somebody_left_in_our_place_gets_its_members() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    right = machine.kernel.ipset_save()
    remove(machine.notebook, [machine.kernel])
    machine.kernel.ipset(right.replace("10.2.0.10", "192.0.2.1"))
    assert machine.kernel.ipset_save() != right
    assert machine.run() == "applied"
    assert sorted(machine.kernel.ipset_save().split("\n")) == sorted(right.split("\n"))


def test_members_of_a_set_that_comes_back_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.run()
    machine.run()  # reads all members back for the first time

    def read_members(names: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        assert names is not None, "all"
        return {}

    monkeypatch.setattr(machine.kernel, "read_members", read_members)
    for minute, excluded in enumerate(("db", "nobody"), start=1):
        machine.clock.time += 60
        content = replace(small_world(), excluded_group_names=(excluded,))
        machine.publish(NOW + 60 * minute, content)
        assert machine.run() == "applied"


def test_removal_takes_everything_back_and_forgets_that_it_was_applied() -> None:
    machine = Machine()
    empty = [machine.kernel.save(family) for family in Family]
    machine.run()
    assert remove(machine.notebook, [machine.kernel]).found
    assert [machine.kernel.save(family) for family in Family] == empty
    assert machine.kernel.sets == {}
    assert machine.notebook.state.applied is None
    assert machine.notebook.state.accepted is not None
    assert not remove(machine.notebook, [machine.kernel]).found
    assert machine.run() == "applied"


def test_there_was_something_to_remove_whichever_kernel_held_it() -> None:
    machine = Machine()
    machine.run()
    assert remove(machine.notebook, [machine.kernel, MemoryKernel()]).found


@pytest.mark.parametrize("others", [0, 1])
def test_a_refused_removal_claims_no_more_than_was_removed(
    others: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine, kernels = Machine(), [MemoryKernel()]
    machine.run()
    kernels += [machine.kernel] * others
    kernels[0].tables = machine.kernel.tables
    kernels[0].refuses = lambda _: True
    with caplog.at_level(logging.WARNING), pytest.raises(KernelError):
        remove(machine.notebook, kernels)
    assert caplog.messages == ["all else of Reyes is removed"] * others


def test_exclusive_is_what_the_configuration_says() -> None:
    machine = Machine(filter_table="exclusive")
    machine.kernel.restore(Family.V4, "*filter\n-A INPUT -s 10.9.0.1 -j DROP\nCOMMIT\n")
    machine.run()
    assert machine.kernel.read().tables[0].foreign == ()


def test_a_table_that_becomes_exclusive_is_on_trial() -> None:
    machine = Machine()
    machine.kernel.restore(Family.V4, "*filter\n-A INPUT -s 10.9.0.1 -j ACCEPT\nCOMMIT\n")
    machine.run()
    before = machine.kernel.save(Family.V4)
    machine.config = replace(machine.config, follower=FollowerConfig(filter_table="exclusive"))
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError, match="trouble"):
        machine.run()
    assert machine.kernel.save(Family.V4) == before


def test_the_whole_payload_is_shown_even_where_nothing_is_to_be_done() -> None:
    machine = Machine()
    machine.run()
    prepared = machine.prepare()
    assert prepared.plan.steps == ()
    shown = payload_text(prepared.dataplane, prepared.live, "shared")
    assert shown.count("# ipset restore\ncreate r4:") == 1
    assert "# iptables-restore\n*filter\n:reyes-input" in shown
    assert "# ip6tables-restore\n*filter\n:reyes-input" in shown


def test_a_kernel_that_may_not_be_read_is_taken_for_an_empty_one() -> None:
    live = nothing_live([Family.V4])
    assert live.families == {Family.V4}
    assert live.sets == {}
    assert live.tables[0].foreign == ()


def test_the_fingerprint_is_of_what_is_in_force() -> None:
    machine = Machine()
    one = machine.prepare().fingerprint
    assert machine.prepare().fingerprint == one
    other = Machine(denied="reject").prepare().fingerprint
    assert other != one


def test_rules_in_force_are_no_failure_if_the_disk_is_full_by_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    prepared = machine.prepare()

    def full(_: object) -> None:
        raise ConfigError("cannot write state.json: No space left on device")

    monkeypatch.setattr(machine.notebook, "save", full)
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)

    assert machine.follower.commit(prepared, machine.guard) == "applied"
    assert machine.kernel.read().tables[0].jump_in_place
    assert "the rules are in force, but not remembered" in caplog.text


def settled(machine: Machine) -> bool:
    host = machine.host()
    fetched = machine.follower.acceptance.fetch()
    return machine.follower.settling.is_settled(fetched, host, machine.kernel.read())


def test_a_pass_with_nothing_new_is_told_by_the_kernel_alone() -> None:
    machine = Machine()
    assert not settled(machine)
    machine.run()
    machine.run()  # reads all members back for the first time
    machine.clock.time += 60
    asked = len(machine.shelf.asked)

    assert settled(machine)
    assert machine.shelf.asked[asked:] == ["1"]


def test_whatever_is_new_unsettles_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.run()

    machine.kernel.restore(Family.V4, "*filter\n-D INPUT -j reyes-input\nCOMMIT\n")
    assert not settled(machine)
    machine.run()
    assert settled(machine)

    machine.config = replace(machine.config, follower=FollowerConfig(denied="reject"))
    assert not settled(machine)
    assert machine.follower.settling.configuration_changed(machine.host())
    machine.run()
    assert settled(machine)
    assert not machine.follower.settling.configuration_changed(machine.host())

    machine.publish(NOW + 1)
    assert not settled(machine)
    machine.run()
    assert settled(machine)

    with monkeypatch.context() as patch:
        patch.setattr(reyes, "__version__", "2.0.0+1")  # may compile the same otherwise
        assert not settled(machine)

    machine.clock.time += MEMBERS_CHECK_SECONDS
    assert not settled(machine)


def test_a_member_more_or_less_unsettles_a_host() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    assert settled(machine)
    (name,) = (one for one in machine.kernel.sets if one.startswith("r4:web:"))
    machine.kernel.sets[name].members.clear()
    assert not settled(machine)
    assert machine.run() == "repaired"
    assert settled(machine)


def test_rules_of_others_unsettle_a_host_whose_table_is_all_ours() -> None:
    machine = Machine(filter_table="exclusive")
    machine.run()
    machine.run()
    assert settled(machine)
    machine.kernel.restore(Family.V4, "*filter\n-A INPUT -s 10.9.0.1 -j ACCEPT\nCOMMIT\n")
    assert not settled(machine)


def test_a_host_without_ipv6_settles_without_its_sets() -> None:
    networks = ("10.0.0.0/8", "2001:db8::/32")
    machine = Machine(opened_to("2001:db8:7::/48"), filtered_cidrs=networks)
    assert {entry.family for entry in machine.prepare().dataplane.sets} == set(Family)
    machine.kernel = MemoryKernel([Family.V4])
    machine.run()
    machine.run()
    assert settled(machine)


def test_a_ruleset_is_asked_anew_who_may_sign_it_and_where_it_belongs() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    before = machine.config
    assert settled(machine)

    machine.config = replace(
        before, signing=replace(before.signing, signing_key=FOREIGN_KEY, trusted_keys=())
    )
    assert not settled(machine)
    with pytest.raises(SignatureError):
        machine.run()

    machine.config = replace(before, environment="staging")
    assert not settled(machine)
    with pytest.raises(ReplayError):
        machine.run()


def test_a_host_without_sets_verifies_its_ruleset_anew_once_in_a_while() -> None:
    machine = Machine()
    web = "i-0000000a"
    settling, host = machine.follower.settling, machine.host(web)
    for outcome in ("applied", "unchanged"):
        assert machine.follower.commit(machine.prepare(web), machine.guard) == outcome
    assert machine.kernel.sets == {}
    assert settling.is_settled(None, host, machine.kernel.read())

    machine.clock.time += MEMBERS_CHECK_SECONDS
    assert not settling.is_settled(None, host, machine.kernel.read())
    assert machine.follower.commit(machine.prepare(web), machine.guard) == "unchanged"
    assert settling.is_settled(None, host, machine.kernel.read())


def test_a_host_is_settled_until_its_signing_key_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = PaperSigner.inspect
    monkeypatch.setattr(
        PaperSigner,
        "inspect",
        lambda *args: replace(inspect(*args), key_expires_at=NOW + 100),
    )
    machine = Machine()
    machine.run()
    machine.run()
    for seconds, calm in ((99, True), (100, False)):
        machine.clock.time = NOW + seconds
        assert settled(machine) is calm


def test_a_settled_host_still_expires_and_still_asks() -> None:
    machine = Machine()
    machine.run()
    machine.notebook.state = replace(machine.notebook.state, members_checked_at=NOW + 3601)
    machine.clock.time = NOW + 3601
    with pytest.raises(ExpiredError):
        settled(machine)
    machine.shelf.down = True
    with pytest.raises(ExpiredError, match="no other is to be had"):
        settled(machine)


def says_nothing_new(machine: Machine) -> bool:
    follower = machine.follower
    host = machine.host()
    as_left = follower.settling.is_as_left(host, machine.kernel.read())
    return follower.settling.says_nothing_new(machine.accept(), host) and as_left


def test_the_same_content_again_is_admitted_and_nothing_new() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    machine.publish(NOW + 1)

    assert says_nothing_new(machine)
    assert machine.notebook.state.accepted
    assert machine.notebook.state.accepted.serial == (NOW + 1) * 1000
    assert machine.notebook.state.not_after > NOW + 3600
    assert settled(machine)


def test_the_same_content_again_is_no_word_on_what_else_has_changed() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    before = machine.config

    machine.publish(NOW + 1)
    machine.config = replace(before, follower=FollowerConfig(denied="reject"))
    assert not says_nothing_new(machine)

    machine.config = before
    machine.publish(NOW + 2)
    machine.kernel.restore(Family.V4, "*filter\n-D INPUT -j reyes-input\nCOMMIT\n")
    assert not says_nothing_new(machine)


def test_another_content_is_something_new() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    machine.publish(NOW + 1, replace(small_world(), excluded_group_names=("db",)))
    assert not says_nothing_new(machine)


def test_a_key_of_another_end_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inspect, ends = PaperSigner.inspect, [NOW + 1000]
    monkeypatch.setattr(
        PaperSigner, "inspect", lambda *args: replace(inspect(*args), key_expires_at=ends[-1])
    )
    machine = Machine()
    machine.run()
    machine.run()
    machine.publish(NOW + 1)
    ends.append(NOW + 500)
    assert not says_nothing_new(machine)
    machine.run()
    assert says_nothing_new(machine)
    assert machine.notebook.calm
    assert machine.notebook.calm.until == NOW + 500


def test_good_rules_again_end_the_blame_of_others() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    machine.publish(NOW + 1, replace(small_world(), excluded_group_names=("db",)))
    machine.guard.finds = "the probe does not answer any more"
    with pytest.raises(UnhealthyError):
        machine.run()
    machine.publish(NOW + 2)
    assert not says_nothing_new(machine)
    machine.run()
    assert machine.notebook.state.unhealthy is None
    machine.publish(NOW + 3)
    assert says_nothing_new(machine)


def test_a_blame_that_a_killed_pass_did_not_end_unsettles_a_host() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    machine.notebook.state = replace(machine.notebook.state, unhealthy="other rules")
    assert not settled(machine)
    machine.run()
    assert settled(machine)
    assert machine.notebook.state.unhealthy is None


def test_a_host_that_remembers_nothing_is_not_as_it_was_left() -> None:
    machine = Machine()
    machine.run()
    machine.run()
    machine.notebook.state = State(members_checked_at=NOW)
    assert not says_nothing_new(machine)
    assert not settled(machine)
    machine.run()
    assert settled(machine)
    machine.notebook.calm = None
    assert not says_nothing_new(machine)
    assert not settled(machine)
    assert not machine.follower.settling.accepted_is_applied()
    assert not machine.follower.settling.configuration_changed(machine.host())
