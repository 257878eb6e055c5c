"""Plans about resets, from facts alone: what is changed, what is refused, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.model.dkms import Dkms, Source
from pve_passthrough.model.facts import Facts, Firmware, Gap, Kernel, Modules, Pve
from pve_passthrough.model.own import MODULES_LOAD, UDEV_RULES
from pve_passthrough.model.pci import Address, Capabilities, Device
from pve_passthrough.model.plan import Plan
from pve_passthrough.model.vm import HostPci, Vm
from pve_passthrough.planning import edit_udev
from pve_passthrough.planning.resets import (
    UNSIGNED,
    choose_method,
    default_method,
    install_vendor_reset,
    keep_powered,
    module_hazards,
    outlook,
)

PORT, CARD, SOUND, LONE = Address(0, 0, 1, 0), Address(0, 1, 0, 0), Address(0, 1, 0, 1), Address(0, 4, 0, 0)
TREE = Source("/usr/src/vendor-reset-0.1.1", "vendor-reset", "0.1.1", "added", True)
READY = Dkms(True, True, (TREE,), "/var/lib/dkms/mok.pub", None)


def function(address: Address, ids: str, klass: int, *methods: str, **more: Any) -> Device:
    vendor, product = (int(part, 16) for part in ids.split(":"))
    known: dict[str, Any] = {"parent": PORT, "capabilities": Capabilities(express=0), "d3cold_allowed": True}
    return Device(
        address, vendor, product, klass, name=f"device {ids}", driver="", resettable=bool(methods),
        reset_methods=methods or None, **(known | more),
    )  # fmt: skip


def machine(*devices: Device, files: Mapping[str, str | None] | None = None, **changes: Any) -> Facts:
    texts: dict[str, str | None] = {UDEV_RULES: None, MODULES_LOAD: None, "/etc/udev/rules.d/": "directory"}
    good = Facts(
        host="test", devices=devices, guests=(), kernel=Kernel("6.14.8-2-pve", "quiet", "boot"),
        firmware=Firmware(uefi=True, secure_boot=False), modules=Modules(frozenset({"vfio_pci"})),
        pve=Pve(True, "9.2.11", "9.2.6", "pve"), files=texts | dict(files or {}),
    )  # fmt: skip
    return replace(good, **changes)


GEFORCE = function(CARD, "10de:2684", 0x030000, "flr", "bus")
GEFORCE_SOUND = function(SOUND, "10de:22ba", 0x040300)
POLARIS = function(CARD, "1002:67df", 0x030000, "bus")
NIC = function(LONE, "8086:15f3", 0x020000, "flr", "bus", capabilities=Capabilities(express=0, flr=True, pm_reset=True))
WHOLE = machine(GEFORCE, GEFORCE_SOUND, NIC)


def choose(facts: Facts, device: Device, *methods: str) -> Plan:
    return choose_method(facts, device, methods, now="20261121-140501", machine="m")


def refused(facts: Facts, device: Device, *methods: str) -> Failure:
    with pytest.raises(Failure) as caught:
        choose(facts, device, *methods)
    return caught.value


def cells(plan: Plan) -> dict[str, tuple[str | None, str | None]]:
    return {str(change.cell): (change.before, change.after) for change in plan.changes}


# -- methods ---------------------------------------------------------------------------------


def test_a_choice_is_a_rule_and_the_attribute_and_needs_no_reboot() -> None:
    plan = choose(WHOLE, NIC, "bus", "flr")
    found = cells(plan)
    assert found[f"pci:{LONE}/reset_method"] == ("flr bus", "bus flr")
    assert edit_udev.settings_of(found[f"file:{UDEV_RULES}"][1]) == {(LONE, "reset_method"): "bus flr"}
    assert (plan.refreshes, plan.reboot, plan.devices) == (("udev",), False, {str(LONE): "8086:15f3"})


def test_what_is_so_already_and_lasts_is_no_change() -> None:
    text = edit_udev.edit(None, LONE, NIC.id, "reset_method", "flr bus")
    assert choose(machine(NIC, files={UDEV_RULES: text}), NIC, "flr", "bus").changes == ()


def test_a_missing_rules_directory_is_made_and_goes_with_the_file() -> None:
    plan = choose(machine(NIC, files={"/etc/udev/rules.d/": None}), NIC, "bus")
    assert str(plan.changes[0].cell) == "dir:/etc/udev/rules.d"


def test_a_method_that_is_off_but_possible_can_be_chosen() -> None:
    assert cells(choose(WHOLE, NIC, "pm"))[f"pci:{LONE}/reset_method"] == ("flr bus", "pm")


def test_bus_is_refused_with_the_neighbours_name() -> None:
    failure = refused(WHOLE, GEFORCE, "bus")
    assert failure.code is Exit.REFUSED
    assert str(SOUND) in failure.problem.context[0]


def test_bus_is_refused_on_a_root_bus() -> None:
    inside = function(Address(0, 0, 2, 0), "8086:4680", 0x030000, "flr", parent=None)
    assert "root bus" in refused(machine(inside, NIC), inside, "bus").problem.context[0]


def test_the_way_back_never_writes_what_the_kernel_would_refuse() -> None:
    """`flr bus` of a card with sound cannot be written back: the kernel takes `bus` no more."""
    plan = choose(machine(replace(GEFORCE, capabilities=Capabilities(pm_reset=True)), GEFORCE_SOUND), replace(
        GEFORCE, capabilities=Capabilities(pm_reset=True)), "pm")  # fmt: skip
    assert cells(plan.inverse())[f"pci:{CARD}/reset_method"] == ("pm", "flr")


@pytest.mark.parametrize(
    ("methods", "ref"),
    [(("warm",), "reset.no-method"), ((), "reset.no-method"), (("flr", "flr"), "reset.no-method"),
     (("flr", "default"), "reset.no-method"), (("acpi",), "reset.method-unsupported"),
     (("device_specific",), "reset.method-unsupported")],
)  # fmt: skip
def test_words_that_are_no_choice_are_refused(methods: tuple[str, ...], ref: str) -> None:
    assert refused(WHOLE, NIC, *methods).problem.ref == ref


def test_a_method_that_the_kernel_never_offers_is_refused_with_its_reason() -> None:
    matisse = function(LONE, "1022:149c", 0x0C0330, "pm", capabilities=Capabilities(flr=True))
    failure = refused(machine(matisse), matisse, "flr")
    assert "quirk_no_flr" in failure.problem.context[0]


def test_without_a_readable_configuration_space_only_the_list_counts() -> None:
    blind = replace(NIC, capabilities=None)
    assert "nobody can say" in refused(machine(blind), blind, "pm").problem.context[0]
    assert choose(machine(blind), blind, "bus").changes


@pytest.mark.parametrize("methods", [None, ()])
def test_a_function_without_any_reset_has_nothing_to_choose(methods: tuple[str, ...] | None) -> None:
    sound = replace(GEFORCE_SOUND, reset_methods=methods)
    assert refused(WHOLE, sound, "flr").problem.ref == "reset.none"


def test_an_old_kernel_and_an_unreadable_list_are_told_apart() -> None:
    silent = replace(NIC, reset_methods=None, resettable=True)
    assert refused(machine(silent, kernel=Kernel("5.13.19-6-pve")), silent, "flr").problem.ref == "reset.old-kernel"
    assert refused(machine(silent), silent, "flr").problem.ref == "plan.unknown"


@pytest.mark.parametrize("running", [True, None])
def test_nothing_is_changed_under_a_guest_that_may_run(running: bool | None) -> None:
    owner = Vm(100, "pve", {"name": "work"}, running=running, hostpci=(HostPci("hostpci0", {}, (LONE,)),))
    assert refused(machine(NIC, guests=(owner,)), NIC, "bus").problem.ref == "reset.in-use"
    elsewhere = replace(owner, node="other")
    assert choose(machine(NIC, guests=(elsewhere,)), NIC, "bus").changes


def test_guests_that_nobody_could_read_stop_the_plan() -> None:
    assert refused(machine(NIC, guests=None), NIC, "bus").problem.ref == "plan.unknown"


def test_rules_that_nobody_could_read_are_not_written() -> None:
    facts = machine(NIC)
    unread = replace(facts, files={key: text for key, text in facts.files.items() if key != UDEV_RULES})
    assert refused(unread, NIC, "bus").problem.ref == "plan.unknown"


def test_a_doubted_method_and_a_later_rule_are_risks() -> None:
    blackwell = function(LONE, "10de:2b85", 0x030000, "flr", "bus")
    rule = 'ACTION=="add", ATTR{device}=="0x2b85", RUN+="echo device_specific > reset_method"\n'
    facts = machine(blackwell, files={"/etc/udev/rules.d/99-vendor-reset.rules": rule})
    assert [one.rule for one in choose(facts, blackwell, "bus").risks] == ["reset.doubted", "reset.overruled"]
    assert choose(WHOLE, NIC, "bus").risks == ()


def test_default_takes_rule_and_attribute_back() -> None:
    text = edit_udev.edit(None, LONE, NIC.id, "reset_method", "bus")
    chosen = replace(NIC, reset_methods=("bus",))
    facts = machine(chosen, files={UDEV_RULES: text})
    plan = default_method(facts, chosen, "flr bus", now="20261121-140501", machine="m")
    assert cells(plan) == {
        f"file:{UDEV_RULES}": (text, None),
        f"pci:{LONE}/reset_method": ("bus", "flr bus"),
    }
    with pytest.raises(Failure) as caught:
        default_method(machine(chosen, files={UDEV_RULES: text}), chosen, None, now="20261121-140501", machine="m")
    assert caught.value.problem.ref == "reset.original-unknown"


# -- power -----------------------------------------------------------------------------------


def test_power_is_kept_by_rule_and_attribute() -> None:
    found = cells(keep_powered(WHOLE, NIC, now="20261121-140501", machine="m"))
    assert found[f"pci:{LONE}/d3cold_allowed"] == ("1", "0")
    assert edit_udev.settings_of(found[f"file:{UDEV_RULES}"][1]) == {(LONE, "d3cold_allowed"): "0"}


def test_a_function_that_does_not_say_cannot_be_told() -> None:
    with pytest.raises(Failure):
        keep_powered(WHOLE, replace(NIC, d3cold_allowed=None), now="20261121-140501", machine="m")


# -- vendor-reset ----------------------------------------------------------------------------


def vendor(dkms: Dkms = READY, device: Device = POLARIS, **changes: Any) -> Plan:
    return install_vendor_reset(machine(device, **changes), device, dkms, now="20261121-140501", machine="m")


def vendor_refused(dkms: Dkms = READY, device: Device = POLARIS, **changes: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        vendor(dkms, device, **changes)
    return caught.value


def test_vendor_reset_is_built_listed_and_put_in_charge_at_the_next_boot() -> None:
    plan = vendor()
    assert cells(plan)["dkms:vendor-reset/0.1.1"] == ("added", "installed")
    assert "vendor-reset\n" in (cells(plan)[f"file:{MODULES_LOAD}"][1] or "")
    assert plan.reboot
    assert [(str(one.cell), one.text) for one in plan.expects] == [(f"pci:{CARD}/reset_method", "device_specific")]
    assert any("module_blacklist=vendor_reset" in line for line in plan.way_home)


@pytest.mark.parametrize("ids", ["10de:2684", "1002:73ff", "8086:15f3", "1002:1638"])
def test_vendor_reset_is_refused_wherever_it_does_nothing(ids: str) -> None:
    device = function(CARD, ids, 0x030000, "bus")
    assert vendor_refused(device=device).problem.ref == "reset.not-for-this-card"


def test_what_is_missing_is_named_with_the_commands() -> None:
    failure = vendor_refused(Dkms(False, False, ()))
    assert failure.problem.ref == "reset.not-buildable"
    assert "apt install dkms proxmox-headers-6.14.8-2-pve" in failure.problem.context
    assert any(line.startswith("git clone ") for line in failure.problem.context)


def test_unknown_is_not_missing() -> None:
    assert vendor_refused(Dkms(None, True, (TREE,))).problem.ref == "plan.unknown"
    assert vendor_refused(Dkms(True, True, None)).problem.ref == "plan.unknown"


def test_two_trees_are_not_chosen_between() -> None:
    other = replace(TREE, path="/usr/src/vendor-reset-0.1.2", version="0.1.2")
    assert vendor_refused(replace(READY, sources=(TREE, other))).problem.ref == "reset.two-sources"


def test_an_old_tree_is_refused_on_new_kernels_only() -> None:
    old = replace(READY, sources=(replace(TREE, new_headers=False),))
    assert vendor_refused(old).problem.ref == "reset.old-source"
    assert vendor(old, kernel=Kernel("6.8.12-9-pve")).changes
    unclear = replace(READY, sources=(replace(TREE, new_headers=None),))
    assert [one.rule for one in vendor(unclear).risks] == ["reset.source-unknown", "reset.next-kernel"]
    assert [one.rule for one in vendor(unclear, kernel=Kernel("6.8.12-9-pve")).risks] == ["reset.next-kernel"]


@pytest.mark.parametrize(
    ("secure", "enrolled", "hazard"),
    [(False, None, False), (True, True, False), (True, False, True), (True, None, True), (None, None, True)],
)
def test_secure_boot_is_a_hazard_unless_the_key_is_known_to_be_trusted(
    secure: bool | None, enrolled: bool | None, hazard: bool
) -> None:
    facts = machine(POLARIS, firmware=Firmware(uefi=True, secure_boot=secure))
    found = module_hazards(facts, replace(READY, enrolled=enrolled))
    assert [one.hazard for one in found] == ([UNSIGNED] if hazard else [])


def test_what_is_all_in_place_is_no_change_and_what_was_overwritten_is_set_again() -> None:
    rule = edit_udev.edit(None, CARD, POLARIS.id, "reset_method", "device_specific", "vendor-reset")
    files = {UDEV_RULES: rule, MODULES_LOAD: "vendor-reset\n"}
    ready = replace(READY, sources=(replace(TREE, state="installed"),))
    in_charge = replace(POLARIS, reset_methods=("device_specific",))
    assert vendor(ready, in_charge, files=files).changes == ()
    again = vendor(ready, POLARIS, files=files)
    assert cells(again) == {f"pci:{CARD}/reset_method": ("bus", "device_specific")}
    assert not again.reboot


# -- looking ---------------------------------------------------------------------------------


def test_the_outlook_orders_methods_and_shows_what_is_off() -> None:
    found = outlook(WHOLE, NIC)
    assert found.methods is not None
    assert [(one.name, one.order) for one in found.methods] == [("flr", 1), ("bus", 2), ("pm", None)]
    assert found.advice[-1].command.startswith("pve-passthrough reset test")


def test_the_outlook_of_a_card_that_vendor_reset_knows_names_the_command() -> None:
    found = outlook(machine(POLARIS), POLARIS)
    assert found.advice[0].command == f"pve-passthrough reset vendor-reset {CARD}"


def test_a_start_that_would_have_failed_on_old_proxmox_says_so() -> None:
    old = outlook(machine(NIC, pve=Pve(True, "8.1.10", "8.0.10", "pve")), NIC)
    assert "stops the start" in old.at_start[0]
    assert "warning" in outlook(WHOLE, NIC).at_start[0]


def test_a_device_that_answers_with_ones_needs_power() -> None:
    gap = Gap("pci.config", f"{LONE}: the function does not answer: fewer than 64 bytes, or all of them FF")
    found = outlook(machine(replace(NIC, capabilities=None), gaps=(gap,)), replace(NIC, capabilities=None))
    assert "off and on" in found.advice[0].text
    assert "off and on" not in outlook(WHOLE, NIC).advice[0].text


def test_nothing_known_is_said_as_such() -> None:
    assert outlook(WHOLE, replace(NIC, reset_methods=None, resettable=None)).methods is None
