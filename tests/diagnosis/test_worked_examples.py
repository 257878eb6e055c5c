"""Worked examples: what a person hands over, and the whole text that a person sees.

The materials are made by hand from the format strings of kernels, QEMU and Proxmox VE. After a wanted change of a text:
`WRITE_GOLDEN=1 pytest tests/diagnosis/test_worked_examples.py`, then look at the difference.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pve_passthrough.app.diagnose import ask
from pve_passthrough.face.render import diagnosis as render
from pve_passthrough.face.render.text import Terminal

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "diagnosis"
WIDTH = 100

HEAD = (
    "[    0.000000] Linux version 6.8.12-4-pve (build@proxmox)\n"
    "[    0.000000] Command line: BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro quiet\n"
)
QEMU = "kvm: -device vfio-pci,host=0000:01:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0: "
FAILED = "TASK ERROR: start failed: QEMU exited with code 1\n"

EXAMPLES: dict[str, tuple[str, str, dict[str, str]]] = {
    "nothing-wrong": (
        "no-fault", "",
        {"kernel.txt": HEAD + "[    0.512000] DMAR: No ATSR found\n"
         "[   40.100000] vfio-pci 0000:01:00.0: vfio_ecap_init: hiding ecap 0x1e@0x258\n"
         "[   40.100100] vfio-pci 0000:01:00.0: vfio_ecap_init: hiding ecap 0x19@0x900\n"},
    ),
    "not-enough": ("unknown", "My guest is slow since yesterday and I do not know why.", {}),
    "one-reset-explains-the-rest": (
        "reset-defective", "",
        {"kernel.txt": HEAD
         + "[  812.000000] vfio-pci 0000:01:00.0: not ready 1023ms after FLR; waiting\n"
         "[  813.100000] vfio-pci 0000:01:00.0: not ready 2047ms after FLR; waiting\n"
         "[  877.000000] vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up\n"
         "[  878.000000] vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible\n"
         "[  879.000000] vfio-pci 0000:01:00.0: vfio_bar_restore: reset recovery - restoring BARs\n",
         "task.txt": "error writing '1' to '/sys/bus/pci/devices/0000:01:00.0/reset': Inappropriate ioctl for device\n"
         + QEMU + "vfio 0000:01:00.0: error getting device from group 14: No such device\n"
         "start failed: QEMU exited with code 1\n" + FAILED},
    ),
    "group-not-viable": (
        "group-shared-host-device", "",
        {"task.txt": QEMU + "vfio 0000:01:00.0: group 1 is not viable\n"
         "Please ensure all devices within the iommu_group are bound to their vfio bus driver.\n" + FAILED},
    ),
    "boot-framebuffer": (
        "boot-framebuffer", "The screen of the guest stays black.",
        {"kernel.txt": HEAD + "[  120.000000] vfio-pci 0000:01:00.0: BAR 1: can't reserve [mem 0xc0000000-0xcfffffff "
         "64bit pref]\n" * 3},
    ),
    "iommu-off": (
        "iommu-off", "",
        {"task.txt": "cannot prepare PCI pass-through, IOMMU not present\nTASK ERROR: cannot prepare PCI pass-through, "
         "IOMMU not present\n"},
    ),
    "memory-limit": (
        "memory-pinning", "",
        {"kernel.txt": HEAD + "[  300.000000] vfio_pin_pages_remote: RLIMIT_MEMLOCK (68719476736) exceeded\n",
         "task.txt": QEMU + "vfio 0000:01:00.0: failed to setup container for group 1: memory listener initialization "
         "failed: Region pc.ram: vfio_dma_map(0x55d0c0a0, 0x0, 0x80000000, 0x7f10) = -12 (Cannot allocate memory)\n"
         + FAILED},
    ),
    "reserved-region": (
        "reserved-region", "",
        {"kernel.txt": HEAD + "[   61.000000] vfio-pci 0000:03:00.0: Firmware has requested this device have a 1:1 "
         "IOMMU mapping, rejecting configuring the device without a 1:1 mapping. Contact your platform vendor.\n"
         "[    0.512000] DMAR: No ATSR found\n"},
    ),
    "rom-file-missing": (
        "rom-invalid", "",
        {"task.txt": QEMU.replace(": ", ",romfile=/usr/share/kvm/card.rom: ", 2).replace("kvm,romfile=/usr/share/kvm/"
         "card.rom: ", "kvm: ", 1) + 'failed to find romfile "/usr/share/kvm/card.rom"\n' + FAILED},
    ),
    "laptop-code-43": (
        "laptop-battery", "Notebook with a dedicated mobile card: Windows shows Code 43 for it, whatever I try.", {},
    ),
    "stale-mapping": (
        "bdf-renumbered", "",
        {"task.txt": "TASK ERROR: PCI device mapping invalid (hardware probably changed): pci device '0000:01:00.0' "
         "not found\n"},
    ),
}  # fmt: skip


def seen(tmp_path: Path, words: str, files: dict[str, str], width: int = WIDTH) -> tuple[str, str]:
    """The cause, and the text as it is printed."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    asked = ask(None, [str(tmp_path)] if files else [], symptom=words)
    out = io.StringIO()
    render.diagnosed(Terminal(file=out, width=width, highlight=False, markup=False, emoji=False), asked)
    return asked.diagnosis.first.cause, out.getvalue()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_text_that_a_person_sees(name: str, tmp_path: Path) -> None:
    cause, words, files = EXAMPLES[name]
    found, text = seen(tmp_path, words, files)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_text(text)
    assert found == cause, text
    assert text == golden.read_text()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(name: str, width: int, tmp_path: Path) -> None:
    _, words, files = EXAMPLES[name]
    _, text = seen(tmp_path, words, files, width)
    assert all(len(line) <= width and line == line.rstrip() for line in text.splitlines())


def test_a_chain_has_one_cause_and_its_consequences_have_none(tmp_path: Path) -> None:
    _, _, files = EXAMPLES["one-reset-explains-the-rest"]
    (tmp_path / "kernel.txt").write_text(files["kernel.txt"])
    (tmp_path / "task.txt").write_text(files["task.txt"])
    first = ask(None, [str(tmp_path)]).diagnosis.first
    assert first.cause == "reset-defective"
    assert len({one.text for one in first.explains}) >= 2


def test_harmless_lines_are_explained_beside_a_cause(tmp_path: Path) -> None:
    _, words, files = EXAMPLES["reserved-region"]
    found, text = seen(tmp_path, words, files)
    assert found == "reserved-region"
    assert "harmless, whatever it looks like" in text
    assert "No ATSR found" in text.partition("harmless")[2]


def test_what_a_log_holds_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = "TASK ERROR: group 1 is not viable \x1b]0;title\x07 \x1b[2J\u202eabc\n"
    _, text = seen(tmp_path, "", {"task\x1b[31m.txt": evil})
    assert "\x1b" not in text
    assert "\u202e" not in text
