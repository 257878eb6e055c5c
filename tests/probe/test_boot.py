"""Boot loaders: the decision table line by line, and unknown where the evidence is missing or contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.model.facts import Boot, Esp, Firmware, Kernel, Loader
from pve_passthrough.model.own import CLAIM_SCRIPT, GRUB_DROP_IN
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.boot import UUIDS, loaders_in, probe_boot, probe_spaces, uuids_in
from pve_passthrough.probe.files import LONGEST, probe_files

from .trees import DIRECTORY, Content, Link, Scripted, plant

STATUS = ("proxmox-boot-tool", "status")
BIOS = Firmware(uefi=False)
UEFI = Firmware(uefi=True)
GRUB = "WWWW-0001 is configured with: grub (versions: 6.8.4-2-pve)\n"
SYSTEMD = "AAAA-0002 is configured with: uefi (versions: 6.8.4-2-pve, 6.8.12-4-pve)\n"
HEAD = "System currently booted with uefi\n"


def asking(root: Path, files: dict[str, Content], status: Ran | str | None = None) -> Asking:
    return Asking(Scripted(plant(root, files), {} if status is None else {STATUS: status}))


def test_plain_grub(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/etc/default/grub": "GRUB_DEFAULT=0\n"})
    kernel = Kernel(cmdline="BOOT_IMAGE=/boot/vmlinuz root=/dev/mapper/pve-root quiet")
    assert probe_boot(ask, kernel, BIOS) == Boot((Loader.GRUB,), (), False)
    assert ask.gaps == ()
    assert isinstance(ask.host, Scripted) and ask.host.started == []


def test_settings_of_a_grub_whose_menu_is_missing_prove_nothing(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/etc/default/grub": "GRUB_DEFAULT=0\n", "/boot/vmlinuz-6.8.12-4-pve": ""})
    assert probe_boot(ask, Kernel(cmdline="root=ZFS=rpool/ROOT/pve-1"), UEFI).loaders is None
    assert "boot.loaders" in {gap.about for gap in ask.gaps}


def test_grub_that_did_not_start_this_kernel_is_unknown(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/etc/default/grub": ""})
    found = probe_boot(ask, Kernel(cmdline="initrd=\\EFI\\proxmox\\initrd.img root=/dev/sda2"), UEFI)
    assert found.loaders is None and found.managed is False
    assert "boot.loaders" in {gap.about for gap in ask.gaps}


def test_neither_grub_nor_the_boot_tool_is_unknown(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/etc/kernel/cmdline": "root=ZFS=rpool/ROOT/pve-1\n"})
    assert probe_boot(ask, Kernel(), UEFI).loaders is None
    assert "boot.loaders" in {gap.about for gap in ask.gaps}


def test_a_bare_tree_is_unknown_not_unmanaged(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/sys": DIRECTORY})
    assert probe_boot(ask, Kernel(), Firmware()) == Boot(None, (), None)
    assert ask.gaps


@pytest.mark.parametrize(
    ("status", "firmware", "loaders"),
    [
        (HEAD + SYSTEMD, UEFI, (Loader.SYSTEMD_BOOT,)),
        (HEAD + GRUB, UEFI, (Loader.GRUB_ESP,)),
        (HEAD + SYSTEMD + GRUB, UEFI, (Loader.GRUB_ESP, Loader.SYSTEMD_BOOT)),
        (HEAD + "AAAA-0002 is configured with: uefi (versions: 6), grub (versions: 6)\n", UEFI, tuple(Loader)[1:]),
        ("System currently booted with legacy bios\n" + SYSTEMD + GRUB, BIOS, (Loader.GRUB_ESP,)),
        (HEAD, UEFI, None),
        (Ran(2, "", "E: /etc/kernel/proxmox-boot-uuids does not exist."), UEFI, None),
        (None, UEFI, None),
        (None, Firmware(), None),
        (None, BIOS, (Loader.GRUB_ESP,)),
    ],
)
def test_managed(
    tmp_path: Path, status: Ran | str | None, firmware: Firmware, loaders: tuple[Loader, ...] | None
) -> None:
    ask = asking(tmp_path, {UUIDS: "AAAA-0002\nWWWW-0001\n0BAD-F00D\n# x\n"}, status)
    found = probe_boot(ask, Kernel(), firmware)
    assert found.managed is True
    assert found.loaders == loaders
    assert ("boot.loaders" in {gap.about for gap in ask.gaps}) is (loaders is None or status is None)
    assert {esp.uuid for esp in found.esps} == {"AAAA-0002", "0BAD-F00D"}  # W is no hexadecimal digit


def test_loaders_of_each_esp(tmp_path: Path) -> None:
    ask = asking(tmp_path, {UUIDS: "AAAA-0002\nABCD-1234\n"}, HEAD + SYSTEMD)
    assert probe_boot(ask, Kernel(), UEFI).esps == (
        Esp("AAAA-0002", (Loader.SYSTEMD_BOOT,)),
        Esp("ABCD-1234", ()),
    )
    assert loaders_in("noise\n" + SYSTEMD) == {"AAAA-0002": (Loader.SYSTEMD_BOOT,)}
    assert uuids_in("../../x\nAAAA-0002\nAAAA-0002\n") == ("AAAA-0002",)


def test_room_is_unknown_for_esps_that_are_not_mounted(tmp_path: Path) -> None:
    ask = asking(tmp_path, {})
    assert probe_spaces(ask, Boot((Loader.SYSTEMD_BOOT,), (Esp("AAAA-0002", ()),), True), frozenset()) == ()
    assert {gap.about for gap in ask.gaps} == {"spaces./boot", "spaces.esp"}


# -- files ------------------------------------------------------------------------------------


def test_files_present_absent_and_directories(tmp_path: Path) -> None:
    files = probe_files(
        asking(
            tmp_path,
            {
                "/etc/default/grub": "A=1\n",
                "/etc/default/grub.d/a.cfg": "B=2\n",
                "/etc/default/grub.d/a.cfg.bak": "no",
                "/etc/modprobe.d/x.conf": b"options a \xff\n",
                "/etc/modules": "vfio\n",
                "/etc/modules-load.d/modules.conf": Link("../modules"),
            },
        )
    )
    assert files["/etc/default/grub"] == "A=1\n"
    assert files["/etc/default/grub.d/"] == "directory"
    assert files["/etc/default/grub.d/a.cfg"] == "B=2\n"
    assert "/etc/default/grub.d/a.cfg.bak" not in files
    assert files["/etc/modprobe.d/x.conf"].encode("utf-8", "surrogateescape") == b"options a \xff\n"  # type: ignore[union-attr]
    assert files["/etc/modules-load.d/modules.conf"] == "vfio\n"
    assert files["/etc/kernel/cmdline"] is None
    assert files[GRUB_DROP_IN] is None and files[CLAIM_SCRIPT] is None
    assert files["/etc/initramfs-tools/scripts/init-top/"] is None


def test_a_tree_without_etc_says_nothing_about_files(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/sys": DIRECTORY})
    assert probe_files(ask) == {}
    assert [gap.about for gap in ask.gaps] == ["files"]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    ask = asking(tmp_path, {"/etc/default/grub": DIRECTORY, "/etc/modules": "x" * (LONGEST + 1)})
    files = probe_files(ask)
    assert "/etc/default/grub" not in files and "/etc/modules" not in files
    assert {"files./etc/default/grub", "files./etc/modules"} <= {gap.about for gap in ask.gaps}
