"""Goals to wishes: minimal by evidence, and never on a fact that nobody could tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import (
    Boot,
    Cpu,
    Display,
    Facts,
    Firmware,
    Iommu,
    Kernel,
    MapEntry,
    Modules,
    Pve,
    ResourceMapping,
)
from pve_passthrough.model.pci import Address, Bar, Capabilities
from pve_passthrough.model.vm import HostPci
from pve_passthrough.model.wish import ArgPresent, ClaimByAddress, ClaimById, VmOption, Wish
from pve_passthrough.planning import give, make_plan, mappings_named, outcome, resolve

from .worlds import DEVICES, FIT, GPU, NIC, RADEON, TWIN, at, device, facts, files, guest, old_kernel

CARD = (at("01:00.0"), at("01:00.1"))
NIC_ONLY = (NIC.address,)


def refusal(known: Facts, addresses: tuple[Address, ...] = NIC_ONLY, **more: object) -> str:
    with pytest.raises(Failure) as caught:
        give(known, addresses, 100, **more)  # type: ignore[arg-type]
    problem = caught.value.problem
    assert problem.message.startswith("Nothing was planned")
    return problem.ref


def host_wishes(wishes: tuple[Wish, ...]) -> list[Wish]:
    return [wish for wish in wishes if not isinstance(wish, VmOption)]


def guest_wishes(wishes: tuple[Wish, ...]) -> dict[str, str | None]:
    return {wish.key: wish.value for wish in wishes if isinstance(wish, VmOption)}


@pytest.mark.parametrize(
    "changes",
    [
        {"iommu": Iommu()},
        {"iommu": Iommu(units=()), "cpu": Cpu(), "firmware": Firmware()},
        {"iommu": Iommu(units=()), "kernel": Kernel()},
        {"guests": None},
        {"guests": (replace(guest(), running=None),)},
        {"devices": (replace(NIC, driver=None),)},
        {"devices": (replace(GPU, boot_vga=None), NIC), "display": Display(), "uses_known": frozenset()},
    ],
    ids=["iommu", "cpu", "kernel", "guests", "running", "driver", "console"],
)
def test_what_nobody_could_tell_is_named_not_assumed(changes: dict[str, object]) -> None:
    known = facts(**changes)
    assert refusal(known, (known.devices[0].address,) if "devices" in changes else NIC_ONLY) == "plan.unknown"


@pytest.mark.parametrize(
    ("changes", "ref"),
    [
        ({"pve": Pve(True, node="pve", writable=False)}, "pve.readonly"),
        ({"pve": Pve(True, node="pve", quorate=False)}, "pve.no-quorum"),
        ({"guests": (guest(101),)}, "guest.missing"),
        ({"guests": (guest(config={"template": "1"}),)}, "guest.template"),
        ({"guests": (replace(guest(), pending={"balloon": "1024"}),)}, "guest.pending"),
        ({"guests": (guest(config={f"hostpci{n}": f"0000:{0x20 + n:02x}:00.0" for n in range(16)}),)}, "guest.full"),
    ],
)
def test_a_guest_that_cannot_be_changed(changes: dict[str, object], ref: str) -> None:
    assert refusal(facts(**changes)) == ref


def test_unknown_profiles_and_no_devices_are_refused() -> None:
    assert refusal(facts(), tweaks=("turbo",)) == "tweak.unknown"
    assert refusal(facts(), ()) == "device.none"
    assert refusal(facts(), (at("0a:00.0"),)) == "device.unknown"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"cpu": Cpu(vendor="AuthenticAMD"), "firmware": Firmware(dmar=False, ivrs=True), **old_kernel()}, []),
        ({"cpu": Cpu(vendor="AuthenticAMD"), **old_kernel()}, ["intel_iommu=on"]),
        ({**old_kernel(), "iommu": Iommu(units=("dmar0",))}, []),
        (old_kernel(), ["intel_iommu=on"]),
        ({**old_kernel("quiet intel_iommu=on"), "iommu": Iommu(units=("dmar0",))}, ["intel_iommu=on"]),
        ({**old_kernel(), "files": files('GRUB_CMDLINE_LINUX="intel_iommu=on,sm_on"\n')}, []),
        ({**old_kernel("intel_iommu=on"), "iommu": Iommu(units=("dmar0",)), "boot": Boot()}, []),
        ({**old_kernel(), "firmware": Firmware(dmar=False, ivrs=False)}, []),
        ({"iommu": Iommu(units=())}, ["intel_iommu=on"]),
        ({"iommu": Iommu(units=()), "firmware": Firmware(dmar=None)}, []),
    ],
    ids=[
        "on", "amd", "intel's table beside an amd processor", "on by the kernel's build", "old intel",
        "typed once at the menu", "in the files already", "loader unknown but on",
        "no table", "off for no visible reason", "off and tables unknown",
    ],
)  # fmt: skip
def test_the_argument_is_wished_by_evidence(changes: dict[str, object], wanted: list[str]) -> None:
    wishes = give(facts(**changes), NIC_ONLY, 100)
    assert [wish.token for wish in wishes if isinstance(wish, ArgPresent)] == wanted


def test_an_idle_card_is_left_to_proxmox() -> None:
    assert host_wishes(give(facts(), CARD, 100)) == []


@pytest.mark.parametrize("driver", ["nvidia", "amdgpu"])
def test_drivers_that_do_not_let_go_are_preceded(driver: str) -> None:
    known = facts(devices=(replace(GPU, driver=driver), *DEVICES[3:]))
    (claim,) = host_wishes(give(known, CARD, 100))
    assert isinstance(claim, ClaimById)
    assert claim.ids == ("10de:2684", "10de:22ba")
    assert {driver, "snd_hda_intel"} <= set(claim.before)


def test_the_console_card_is_claimed_and_the_reason_names_it() -> None:
    (claim,) = host_wishes(give(facts(display=Display(GPU.address)), CARD, 100))
    assert isinstance(claim, ClaimById)
    assert str(GPU) in claim.why


def test_twins_that_both_go_need_no_addresses() -> None:
    known = facts(devices=(*DEVICES, TWIN), display=Display(GPU.address))
    both = host_wishes(give(known, (*CARD, TWIN.address), 100))
    assert [type(wish) for wish in both] == [ClaimById]
    one = host_wishes(give(known, CARD, 100))
    assert {wish.address for wish in one if isinstance(wish, ClaimByAddress)} == set(CARD)


def test_a_card_that_vfio_holds_by_a_list_on_disk_is_not_claimed_again() -> None:
    held = tuple(replace(entry, driver="vfio-pci") if entry.address.bus == 3 else entry for entry in DEVICES)
    radeon = (RADEON.address, at("03:00.1"))
    listed = files(**{"/etc/modprobe.d/vfio.conf": "options vfio-pci ids=1002:73bf,1002:ab28\n"})
    assert host_wishes(give(facts(devices=held, files=listed), radeon, 100)) == []
    assert host_wishes(give(facts(devices=held), radeon, 100)) != []


def test_another_list_on_the_command_line_means_claims_by_address() -> None:
    known = facts(kernel=Kernel("7.0.14-4-pve", "root=/dev/x vfio-pci.ids=8086:1234"))
    wishes = host_wishes(give(known, (RADEON.address, at("03:00.1")), 100))
    assert [type(wish) for wish in wishes] == [ClaimByAddress, ClaimByAddress]


def test_conventional_pci_needs_no_q35_and_no_pcie() -> None:
    card = device("06:00.0", "1274:5000", 0x040100, "snd_ens1370", capabilities=Capabilities(express=None))
    known = facts(devices=(card,), guests=(guest(known=(card,), config={"cpu": "host"}),))
    assert guest_wishes(give(known, (card.address,), 100)) == {"hostpci0": "0000:06:00.0"}


def test_picture_and_sound_of_a_processor_get_an_entry_each() -> None:
    """Each needs a ROM file of its own, and an entry's ROM file goes to its first function only."""
    picture = device("15:00.0", "1002:164e", 0x030000, "vfio-pci", group=38, boot_vga=False)
    sound = device("15:00.1", "1002:1640", 0x040300, "vfio-pci", group=39)
    usb = device("15:00.3", "1022:15b6", 0x0C0330, "xhci_hcd", group=41)
    known = facts(devices=(picture, sound, usb), guests=(guest(known=(picture, sound), config=FIT),))
    wanted = resolve(known, ["15:00.0"])
    assert wanted == (picture.address, sound.address)
    entries = {key: value for key, value in guest_wishes(give(known, wanted, 100)).items() if "hostpci" in key}
    assert entries == {"hostpci0": "0000:15:00.0,pcie=1", "hostpci1": "0000:15:00.1,pcie=1"}


@pytest.mark.parametrize("balloon", ["", "0", "4096", "8192", "odd"])
def test_a_balloon_that_cannot_shrink_the_guest_stays(balloon: str) -> None:
    config = FIT | ({"balloon": balloon} if balloon else {})
    assert "balloon" not in guest_wishes(give(facts(guests=(guest(config=config),)), NIC_ONLY, 100))


def test_firmware_and_custom_processors_are_left_alone() -> None:
    config = FIT | {"cpu": "custom-mine,flags=+pcid", "bios": "seabios"}
    assert set(guest_wishes(give(facts(guests=(guest(config=config),)), CARD, 100))) == {"hostpci0"}


def test_an_entry_through_a_mapping_is_kept_or_refused_but_not_rebuilt() -> None:
    options = {"mapping": "card", "pcie": "1"}
    whole = replace(
        guest(config=FIT | {"hostpci0": "mapping=card,pcie=1"}), hostpci=(HostPci("hostpci0", options, CARD, "card"),)
    )
    assert guest_wishes(give(facts(guests=(whole,)), CARD, 100)) == {}
    part = replace(whole, hostpci=(HostPci("hostpci0", options, CARD[:1], "card"),))
    assert refusal(facts(guests=(part,)), CARD) == "guest.tangled"


def test_pcie_is_added_to_an_entry_that_lacks_it() -> None:
    config = FIT | {"hostpci2": "0000:01:00,romfile=x.rom"}
    wishes = guest_wishes(give(facts(guests=(guest(config=config),)), CARD, 100))
    assert wishes == {"hostpci2": "0000:01:00,romfile=x.rom,pcie=1"}


# -- guests that people really have --------------------------------------------------------------


def given_to(config: dict[str, str], *words: str, **changes: object) -> dict[str, str | None]:
    known = facts(guests=(guest(config=config),), **changes)
    return guest_wishes(give(known, resolve(known, words), 100, mappings=mappings_named(known, words)))


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        ("pc-i440fx-9.0", "pc-q35-9.0"),
        ("pc-i440fx-9.2+pve1", "pc-q35-9.2+pve1"),
        ("pc-8.1,viommu=virtio", "pc-q35-8.1,viommu=virtio"),
        ("pc", "q35"),
        ("", "q35"),
    ],
)
def test_a_pinned_guest_stays_pinned_to_its_version(machine: str, wanted: str) -> None:
    config = {"cpu": "host", "ostype": "win11"} | ({"machine": machine} if machine else {})
    assert given_to(config, "01:00.0")["machine"] == wanted


@pytest.mark.parametrize("word", ["nic", "sata:1", "02:00.0"])
def test_a_device_without_a_picture_changes_neither_machine_nor_processor(word: str) -> None:
    config = {"cpu": "x86-64-v2-AES", "machine": "pc-i440fx-9.0", "ostype": "win10", "vga": "qxl"}
    known = facts(uses=(), guests=(guest(config=config),))
    wishes = guest_wishes(give(known, resolve(known, [word]), 100))
    assert list(wishes) == ["hostpci0"]
    assert "pcie" not in str(wishes["hostpci0"])


def test_large_windows_need_the_hosts_processor_whatever_the_class() -> None:
    accelerator = device("07:00.0", "1da3:1000", 0x120000, bars=(Bar(2, 0, 1 << 36, wide=True),))
    config = {"cpu": "x86-64-v2-AES,flags=+aes;-pcid", "machine": "q35"}
    known = facts(devices=(accelerator,), guests=(guest(known=(accelerator,), config=config),))
    assert guest_wishes(give(known, (accelerator.address,), 100))["cpu"] == "host,flags=+aes;-pcid"


@pytest.mark.parametrize("cpu", ["max", "x86-64-v2-AES,phys-bits=host,flags=+pdpe1gb", "custom-mine"])
def test_a_processor_that_is_good_enough_stays(cpu: str) -> None:
    assert "cpu" not in given_to({"cpu": cpu, "machine": "q35"}, "01:00.0")


@pytest.mark.parametrize(
    "config",
    [
        FIT | {"hostpci0": "0000:01:00,pcie=1", "onboot": "1"},
        FIT | {"hostpci3": "01:00.0;01:00.1,pcie=on,rombar=0,x-vga=1", "onboot": "1", "vga": "none"},
        {"cpu": "host", "bios": "seabios", "hostpci0": "01:00,x-vga=1"},
        {"cpu": "host", "machine": "pc-i440fx-8.1", "ostype": "win10", "hostpci0": "0000:01:00"},
    ],
)
def test_who_has_the_card_already_gets_an_empty_plan(config: dict[str, str]) -> None:
    assert given_to(config, "01:00.0") == {}


def test_an_entry_that_demands_q35_gets_it_though_the_card_is_there() -> None:
    assert given_to({"cpu": "host", "hostpci0": "0000:01:00,pcie=1"}, "01:00.0") == {"machine": "q35"}


def test_a_guest_with_legacy_graphics_stays_i440fx() -> None:
    config = {"cpu": "host", "vga": "none", "hostpci0": "00:02.0,legacy-igd=1"}
    assert given_to(config, "01:00.0") == {"hostpci1": "0000:01:00"}


def test_automatic_start_is_off_until_verified_and_the_reason_says_how_it_comes_back() -> None:
    known = facts(guests=(guest(config=FIT | {"onboot": "1"}),))
    (wish,) = [one for one in give(known, CARD, 100) if isinstance(one, VmOption) and one.key == "onboot"]
    assert wish.value == "0" and "qm set 100 --onboot 1" in wish.why


def mapped(path: str, **options: str) -> dict[str, object]:
    other = MapEntry("far", "0000:41:00", {})
    return {"mappings": (ResourceMapping("pci", "card", (other, MapEntry("pve", path, options))),)}


@pytest.mark.parametrize(
    ("path", "words", "wanted"),
    [
        ("0000:01:00", ("card",), "mapping=card,pcie=1"),
        ("0000:01:00.0", ("card",), "mapping=card,pcie=1"),
        ("0000:01:00.0", ("card", "01:00.1"), "0000:01:00,pcie=1"),
        ("0000:01:00", ("01:00.0",), "0000:01:00,pcie=1"),
    ],
    ids=["slot", "one function", "more than the mapping has", "named by its address"],
)
def test_a_mapping_that_covers_the_card_is_used_when_it_is_named(
    path: str, words: tuple[str, ...], wanted: str
) -> None:
    assert given_to(FIT, *words, **mapped(path, id="10de:2684", iommugroup="13")) == {"hostpci0": wanted}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"id": "10de:1b81", "iommugroup": "13"}, "says id=10de:1b81"),
        ({"id": "10de:2684"}, "lacks iommugroup=13"),
        ({"id": "10DE:2684", "iommugroup": "13"}, "says id=10DE:2684"),
        ({"id": "10de:2684", "iommugroup": "13", "subsystem-id": "1043:0001"}, ""),
    ],
)
def test_a_mapping_that_no_start_would_accept_is_refused(options: dict[str, str], fault: str) -> None:
    if not fault:
        assert given_to(FIT, "card", **mapped("0000:01:00", **options))
        return
    with pytest.raises(Failure) as caught:
        given_to(FIT, "card", **mapped("0000:01:00", **options))
    assert caught.value.problem.ref == "mapping.stale"
    assert fault in caught.value.problem.message


def test_picture_and_sound_joined_by_a_semicolon_never_start() -> None:
    """Recorded row `rec-two` of 8.4 and 9.2: the id is compared with every path."""
    with pytest.raises(Failure) as caught:
        given_to(FIT, "card", **mapped("0000:01:00.0;0000:01:00.1", id="10de:2684", iommugroup="13"))
    assert caught.value.problem.ref == "mapping.stale"


def test_what_a_mapped_plan_leads_to_is_known() -> None:
    known = facts(**mapped("0000:01:00", id="10de:2684", iommugroup="13"))
    wishes = give(known, CARD, 100, mappings=("card",))
    plan = make_plan(known, wishes, goal="x", vmid=100, now="20261121140501", machine="m")
    assert {str(one.cell) for one in plan.expects} >= {"group:0000:01:00.0", "group:0000:01:00.1"}
    then = outcome(known, plan)
    assert then.guests and then.guests[0].hostpci[0].addresses == CARD
    assert give(then, CARD, 100, mappings=("card",)) == ()


def test_a_claimed_card_is_seen_with_vfio_after_the_plan() -> None:
    known = facts(display=Display(GPU.address))
    plan = make_plan(known, give(known, CARD, 100), goal="x", vmid=100, now="20261121140501", machine="m")
    then = outcome(known, plan)
    assert {one.driver for one in then.devices if one.address in CARD} == {"vfio-pci"}
    assert {one.driver for one in known.devices if one.address in CARD} == {"nouveau", "snd_hda_intel"}


PARTIAL = st.fixed_dictionaries(
    {},
    optional={
        "iommu": st.sampled_from([Iommu(), Iommu(units=()), Iommu(units=("dmar0",))]),
        "cpu": st.sampled_from([Cpu(), Cpu(vendor="GenuineIntel"), Cpu(vendor="AuthenticAMD")]),
        "kernel": st.sampled_from([Kernel(), Kernel("odd"), Kernel("6.5.1", "iommu=off -- x"), Kernel("7.0.1", '"')]),
        "firmware": st.sampled_from([Firmware(), Firmware(dmar=False, ivrs=False)]),
        "modules": st.sampled_from([Modules(), Modules(initramfs_tool="dracut")]),
        "boot": st.builds(Boot, st.sampled_from([None, ()])),
        "files": st.dictionaries(
            st.sampled_from([*files(), "/etc/modprobe.d/x.conf", "/etc/default/grub.d/x.cfg"]),
            st.none() | st.text(max_size=20) | st.sampled_from(["options vfio-pci ids=1:2,,x\n", "#", "claim x\n"]),
        ),
        "display": st.just(Display()),
        "guests": st.sampled_from([None, (), (guest(),), (guest(config={"cpu": ",,=", "machine": "="}),)]),
        "spaces": st.just(()),
        "devices": st.just((replace(RADEON, class_code=None, vendor=None, iommu_group=None), TWIN)),
    },
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(PARTIAL, st.sampled_from([RADEON.address, TWIN.address, NIC.address]))
def test_half_known_machines_give_a_plan_or_a_failure_in_four_parts(
    changes: dict[str, object], address: Address
) -> None:
    known = facts(**changes)
    try:
        plan = make_plan(known, give(known, (address,), 100), goal="x", vmid=100, now="20261121140501", machine="m")
    except Failure as failure:
        assert failure.problem.message.startswith("Nothing was planned")
    else:
        assert all(change.before != change.after for change in plan.changes)
