"""Boot files and guests as their owners keep them: all are read, and the known leftovers are found in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pve_passthrough.model.facts import Boot, Facts, Loader
from pve_passthrough.model.finding import Level
from pve_passthrough.model.texts import TextError, parse_grub, parse_modprobe, parse_modules, split_cmdline
from pve_passthrough.model.vm import HostPci, Vm, expand_host, parse_config, parse_options
from pve_passthrough.rules import Request, judge

from ..shared import needs_shared, realhosts
from .worlds import CMDLINE, DEVICES, GRUB, host

pytestmark = needs_shared


def real_name(path: Path) -> str | None:
    """The path that a recorded file had; None for files that no Proxmox host reads."""
    name = path.name.removesuffix(".txt")
    base = name.split("__")[-1]
    if base == "grub":
        return GRUB
    if base == "modules":
        return "/etc/modules"
    if base.endswith(".conf") and ("modprobe.d" in name or base in ("vfio.conf", "blacklist.conf", "kvm.conf")):
        return f"/etc/modprobe.d/{base}"
    return None


def texts(case: Path) -> dict[str, str | None]:
    """The case's boot files by the path that they had; of two versions of one file the last by name."""
    found: dict[str, str | None] = {}
    for path in sorted(case.iterdir()):
        name = real_name(path) if path.is_file() and path.name != "source.json" else None
        if name:
            found[name] = path.read_text(errors="surrogateescape")
    return found


def boot_cases() -> list[Path]:
    return sorted((realhosts() / "share").glob("boot-*"))


def found_in(case: str) -> dict[str, list[str]]:
    """Messages by rule for one recorded set of boot files."""
    folder = realhosts() / "share" / case
    files = texts(folder)
    facts = replace(host(), files={CMDLINE: None, **files}, boot=Boot((Loader.GRUB,), managed=False))
    said: dict[str, list[str]] = {}
    for finding in judge(facts, Request()):
        if finding.level is not Level.FINE:
            said.setdefault(finding.rule, []).append(f"{finding.message} {' '.join(finding.evidence)}")
    return said


def test_all_boot_files_can_be_read() -> None:
    cases = boot_cases()
    assert len(cases) >= 30
    for case in cases:
        for path in case.iterdir():
            if not path.is_file():
                continue
            text = path.read_text(errors="surrogateescape")
            split_cmdline(text)
            parse_modules(str(path), text)
            parse_modprobe(str(path), text)
            if "grub" in path.name:
                try:
                    parse_grub(str(path), text)
                except TextError as error:  # pragma: no cover - none of the recorded files is broken
                    pytest.fail(str(error))


def test_every_recorded_command_line_is_understood() -> None:
    """What somebody else read out of the same files (source.json) is what we read."""
    compared = 0
    for case in boot_cases():
        said = json.loads((case / "source.json").read_text()).get("cmdlines", [])
        grub = [path for path in case.iterdir() if real_name(path) == GRUB]
        if len(grub) != 1:
            continue
        ours = {one.name: one for one in parse_grub(GRUB, grub[0].read_text(errors="surrogateescape"))}
        for line in said:
            name, equals, value = line.partition("=")
            if equals and name in ours and value[:1] == '"' == value[-1:] and "$" not in value:
                assert ours[name].value == value[1:-1]
                compared += 1
    assert compared >= 15


LEFTOVERS = [
    ("boot-pavo-im-proxintosh", "bootconfig.virqfd", "vfio_virqfd"),
    ("boot-pavo-im-proxintosh", "bootconfig.no-effect", "amd_iommu=on"),
    ("boot-pavo-im-proxintosh", "bootconfig.no-effect", "video=efifb:off"),
    ("boot-pavo-im-proxintosh", "bootconfig.vfio-ids", "given 7 times"),
    ("boot-hongyi-zhao-pve", "bootconfig.virqfd", "vfio_virqfd"),
    ("boot-gammaman88-proxmox-amd-5700u-gpu-passthrough", "platform.unsafe-interrupts", "unsafe_interrupts"),
    ("boot-gammaman88-proxmox-amd-5700u-gpu-passthrough", "groups.acs-override", "pcie_acs_override=downstream"),
    ("boot-techanima-proxbox", "groups.acs-override", "pcie_acs_override=downstream,multifunction"),
    ("boot-techanima-proxbox", "bootconfig.vfio-ids", "given 3 times"),
    ("boot-madhavpcm-gpupassthrough", "bootconfig.vfio-options", "vfio-pci.ids"),
    ("boot-smartperson-ubuntu-x570-qemu-setup", "bootconfig.vfio-options", "diable_vga"),
    ("boot-smartperson-ubuntu-x570-qemu-setup", "bootconfig.module-list", "more than one word"),
    ("boot-ozzyhelix-virtio-guide", "bootconfig.misspelt", "xhci_pci"),
    ("boot-roda37-acs-vfio-kernel-patch", "bootconfig.vfio-ids", "0000:0000"),
    ("boot-walkerk1980-proxmox-passthrough-config", "bootconfig.package-file", "lines of somebody else"),
    ("boot-walkerk1980-proxmox-passthrough-config", "bootconfig.misspelt", "nvidiafb"),
    ("boot-andrei-paul-proxmox", "bootconfig.vfio-ids", "10de:1187"),
    ("boot-spongeyperson-pveserver-dotfiles", "bootconfig.virqfd", "vfio_virqfd"),
]


@pytest.mark.parametrize(("case", "rule", "words"), LEFTOVERS)
def test_known_leftovers_are_found(case: str, rule: str, words: str) -> None:
    assert any(words in said for said in found_in(case).get(rule, []))


def test_a_clean_set_of_files_is_not_accused() -> None:
    said = found_in("boot-hongyi-zhao-pve")
    accused = {rule for rule in said if rule.startswith("bootconfig.")}
    assert accused <= {"bootconfig.virqfd", "bootconfig.not-running"}


# -- guests ---------------------------------------------------------------------------------------------------------


def recorded_guest(path: Path) -> Vm:
    config, pending, deleting = parse_config(path.read_text(errors="surrogateescape"))
    known = [one.address for one in DEVICES]
    entries = []
    for key in sorted(key for key in config if key.startswith("hostpci") and key[7:].isdigit()):
        options = parse_options(config[key], "host")
        entries.append(HostPci(key, options, expand_host(options.get("host", ""), known), options.get("mapping", "")))
    return Vm(100, "pve", config, pending, deleting, running=False, hostpci=tuple(entries))


def guest_rules(case: str) -> set[str]:
    facts = guest_facts(realhosts() / "share" / case / "vm.conf")
    return {one.rule for one in judge(facts, Request((), 100)) if one.level is not Level.FINE}


def guest_facts(path: Path) -> Facts:
    return host(guests=(recorded_guest(path),))


def test_all_recorded_guests_are_judged() -> None:
    paths = sorted((realhosts() / "share").glob("vmconf-*/vm.conf"))
    assert len(paths) >= 60
    for path in paths:
        found = judge(guest_facts(path), Request((), 100))
        assert found == judge(guest_facts(path), Request((), 100))


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ("vmconf-andrei-paul-qemu-server-100", "guests.args-cpu"),
        ("vmconf-halimbo-qemu-server-100", "guests.args-cpu"),
        ("vmconf-md-bugenzhao-readme-md", "guests.comments"),
        ("vmconf-md-thieuson1984-readme-md", "guests.comments"),
        ("vmconf-hongyi-zhao-qemu-server-100-v3", "guests.efi-disk"),
        ("vmconf-thieuson1984-101", "guests.balloon"),
        ("vmconf-techanima-101", "guests.hidden"),
        ("vmconf-pve-test-q35-linux-hostpci", "guests.hostpci"),
    ],
)
def test_recorded_guests_show_what_is_wrong(case: str, rule: str) -> None:
    assert rule in guest_rules(case)


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ("vmconf-spongeyperson-qemu-server-201", "guests.args-cpu"),
        ("vmconf-spongeyperson-qemu-server-201", "guests.cpu-invalid"),
        ("vmconf-spongeyperson-qemu-server-100", "guests.cpu-invalid"),
        ("vmconf-techanima-101", "guests.cpu-invalid"),
        ("vmconf-gangqizai-100", "guests.machine"),
        ("vmconf-deepwatrcreatur-101", "guests.comments"),
    ],
)
def test_recorded_guests_are_not_accused_of_what_is_right(case: str, rule: str) -> None:
    assert rule not in guest_rules(case)
