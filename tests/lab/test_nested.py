"""The nested guest's archive and kernel, from made-up files: forms that the kernel demands, refusals, order."""

from __future__ import annotations

import lzma
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.nested import archive, kernel
from tests.lab.programs import LabError


def _read(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of newc archives that knows nothing of the writer: name → mode, content."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[start : start + fields[6]])
        at = (start + fields[6] + 3) // 4 * 4


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=9), st.binary(max_size=40), max_size=5))
def test_an_archive_gives_back_what_was_packed(files: dict[str, bytes]) -> None:
    packed = archive.pack(archive.file(name, data) for name, data in files.items())
    assert _read(packed) == {name: (0o100755, data) for name, data in files.items()}


def test_cpio_itself_unpacks_folders_and_links(tmp_path: Path) -> None:
    entries = [archive.folder("bin"), archive.file("bin/sh", b"#!\n"), archive.link("bin/ash", "sh")]
    try:
        subprocess.run(("cpio", "-id", "--quiet"), input=archive.pack(entries), cwd=tmp_path, check=True, timeout=10)
    except FileNotFoundError:
        pytest.skip("cpio is not installed")
    assert (tmp_path / "bin/ash").readlink() == Path("sh")
    assert (tmp_path / "bin/ash").read_bytes() == b"#!\n"


def _image(payload: bytes) -> bytes:
    """A bzImage of one set-up sector, with the payload 64 bytes into the rest."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    head[0x248:0x250] = (64).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    return bytes(head) + b"\0" * 64 + payload + b"rest"


@pytest.mark.parametrize("pack", [lzma.compress, lambda data: zlib.compress(data, wbits=31), bytes])
def test_a_kernel_is_unpacked_whatever_packed_it(pack: object) -> None:
    kernel_image = b"\x7fELF" + bytes(range(256)) * 9
    assert callable(pack)
    assert kernel.unpacked(_image(pack(kernel_image)))[: len(kernel_image)] == kernel_image


@pytest.mark.parametrize(
    "image",
    [b"", b"MZ" * 600, _image(lzma.compress(b"no ELF")), _image(lzma.compress(b"\x7fELF" * 99)[:-30] + b"x" * 30)],
)
def test_what_is_no_kernel_is_refused(image: bytes) -> None:
    with pytest.raises(LabError):
        kernel.unpacked(image)


def test_nothing_grows_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "LIMIT", 1000)
    with pytest.raises(LabError, match="unpacked"):
        kernel.unpacked(_image(lzma.compress(b"\x7fELF" + b"\0" * 100_000)))


def _module_folder(folder: Path) -> Path:
    (folder / "k").mkdir()
    for name in ("usb-core", "xhci", "xhci-pci", "other"):
        (folder / f"k/{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    (folder / "modules.dep").write_text(
        "k/xhci-pci.ko.xz: k/xhci.ko.xz k/usb-core.ko.xz\nk/xhci.ko.xz: k/usb-core.ko.xz\nk/usb-core.ko.xz:\n"
        "k/other.ko.xz:\n"
    )
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    return folder


def test_modules_come_after_what_they_need_and_unpacked(tmp_path: Path) -> None:
    found = kernel.modules(_module_folder(tmp_path), ("xhci_pci", "virtio"))
    assert [name for name, _ in found] == ["usb_core.ko", "xhci.ko", "xhci_pci.ko"]
    assert [data for _, data in found] == [b"usb-core", b"xhci", b"xhci-pci"]


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nosuch"):
        kernel.modules(_module_folder(tmp_path), ("nosuch",))


@pytest.mark.parametrize("name", ["init", "lsusb", "shutdown"])
def test_the_guest_s_scripts_are_shell(name: str) -> None:
    script = Path(kernel.__file__).parent / name
    subprocess.run(("sh", "-n", script), check=True, timeout=10)
