"""A text that holds many things, as its parts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.diagnosis.kinds import kind_of
from pve_passthrough.diagnosis.parts import Part, split, words_of
from pve_passthrough.diagnosis.reader import read_text
from pve_passthrough.model.diagnosis import Kind

POST = """Hi all,

my card vanished since yesterday. Memory: 64 GB, it is a Ryzen machine.
name: this is prose.

lspci -nnk:
```
0b:00.0 VGA compatible controller [0300]: NVIDIA Corporation GA104 [GeForce RTX 3070] [10de:2484] (rev a1)
\tSubsystem: ASUSTeK Computer Inc. GA104 [1043:87c1]
\tKernel driver in use: vfio-pci
0b:00.1 Audio device [0403]: NVIDIA Corporation GA104 High Definition Audio Controller [10de:228b] (rev a1)
```

root@pve:~# cat /etc/modprobe.d/vfio.conf
options vfio-pci ids=10de:2484,10de:228b disable_vga=1
blacklist nouveau
root@pve:~# cat /etc/kernel/cmdline
root=ZFS=rpool/ROOT/pve-1 boot=zfs amd_iommu=on iommu=pt
root@pve:~# uname -r
6.8.12-4-pve
root@pve:~# qm config 101
agent: 1
bios: ovmf
cores: 8
hostpci0: 0000:0b:00,pcie=1,x-vga=1
net0: virtio=BC:24:11:00:11:22,bridge=vmbr0

I install the driver and then it crashes. options are few.

[  123.456789] vfio-pci 0000:0b:00.0: not ready 1023ms after bus reset; waiting
[  124.456789] vfio-pci 0000:0b:00.0: not ready 2047ms after bus reset; waiting

/etc/modules:
vfio
vfio_pci

IOMMU Group 15:
\t0b:00.0 VGA compatible controller [0300]: NVIDIA Corporation GA104 [10de:2484] (rev a1)
IOMMU Group 16:
\t0c:00.0 Non-Essential Instrumentation [1300]: Advanced Micro Devices, Inc. [AMD] [1022:148a]

TASK ERROR: start failed: QEMU exited with code 1

gpu
\tmap id=10de:2484,iommugroup=15,node=pve,path=0000:0b:00

Thanks
"""


def parts(text: str, kind: Kind = Kind.PROSE) -> tuple[Part, ...]:
    return split("post", kind, text.split("\n"))


def shown(text: str) -> list[tuple[Kind, int, int, str]]:
    return [(one.kind, one.first, one.last, one.path) for one in parts(text) if one.kind is not Kind.PROSE]


def test_a_post() -> None:
    assert shown(POST) == [
        (Kind.LSPCI, 8, 11, ""),
        (Kind.MODPROBE, 15, 16, "/etc/modprobe.d/vfio.conf"),
        (Kind.CMDLINE, 18, 18, "/etc/kernel/cmdline"),
        (Kind.GUEST_CONFIG, 22, 26, "/etc/pve/qemu-server/101.conf"),
        (Kind.KERNEL_LOG, 30, 31, ""),
        (Kind.MODULES, 34, 35, "/etc/modules"),
        (Kind.IOMMU_LISTING, 37, 40, ""),
        (Kind.TASK_LOG, 42, 42, ""),
        (Kind.MAPPING, 44, 45, ""),
    ]


def test_every_line_belongs_to_one_part() -> None:
    assert [line for part in parts(POST) for line in part.lines] == POST.split("\n")


def test_the_words_are_those_of_the_writer() -> None:
    said = words_of(parts(POST))
    assert "name: this is prose." in said and "options are few" in said
    assert "hostpci0" not in said and "vfio-pci" not in said


def test_a_post_is_read_whole() -> None:
    data = POST.encode()
    text = read_text("post.txt", kind_of("post.txt", data), [data])
    assert text.kinds["post.txt"] is Kind.PROSE
    assert text.kinds["post.txt:22-26"] is Kind.GUEST_CONFIG
    assert [(one.line, one.count) for one in text.observations if "not ready" in one.text] == [(30, 2)]
    assert [version.number for version in text.versions] == [(6, 8, 12, 4)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("hostpci0: 0000:01:00,pcie=1", Kind.GUEST_CONFIG),
        ("hostpci1: mapping=gpu", Kind.GUEST_CONFIG),
        ("> scsi0: local-lvm:vm-100-disk-0,size=32G", Kind.GUEST_CONFIG),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"', Kind.GRUB),
        ("softdep nvidia pre: vfio-pci", Kind.MODPROBE),
        ("BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro quiet", Kind.CMDLINE),
        ("Bus 001 Device 003: ID 046d:c52b Logitech, Inc. Unifying Receiver", Kind.LSUSB),
        ("IOMMU Group 4 00:1f.0 ISA bridge [0601]: Intel Corporation [8086:a305]", Kind.IOMMU_LISTING),
        ("/sys/kernel/iommu_groups/7/devices/0000:01:00.0", Kind.IOMMU_LISTING),
        ("kvm: -device vfio-pci,host=0000:01:00.0: vfio 0000:01:00.0: no such group", Kind.TASK_LOG),
    ],
)
def test_one_line_among_words(line: str, kind: Kind) -> None:
    (found,) = shown(f"Here it is.\n\n{line}\n\nWhat is wrong?")
    assert found[:3] == (kind, 3, 3)


@pytest.mark.parametrize(
    "line",
    [
        "install the driver and reboot", "options are few", "memory: 64 GB of it", "cpu: a Ryzen", "Name: somebody",
        "machine: the old one", "blacklist everything that I know of", "boot fails", "net0 is down: why?", "vfio",
        "root= is what I wrote", "remove the card", "Bus reset does not help",
    ],
)  # fmt: skip
def test_words_stay_words(line: str) -> None:
    assert shown(f"Hello.\n{line}\nThanks.") == []


def test_a_log_is_left_in_one_piece() -> None:
    log = "[ 1.000000] a\n[ 2.000000] b\nblacklist nouveau\n[ 3.000000] c"
    assert len(split("dmesg.txt", Kind.KERNEL_LOG, log.split("\n"))) == 1


def test_a_name_says_what_it_is() -> None:
    (part,) = split(
        "qemu-server/100.conf", Kind.GUEST_CONFIG, ["# my words stand here", "cores: 4", "hostpci0: 01:00.0"]
    )
    assert part.kind is Kind.GUEST_CONFIG


@given(st.lists(st.sampled_from([*POST.split("\n"), "```", "", "\t", "\x00", "cat /etc/modules"]), max_size=40))
def test_any_order_of_lines(lines: Sequence[str]) -> None:
    found = split("x", Kind.PROSE, lines)
    assert [line for part in found for line in part.lines] == list(lines)
