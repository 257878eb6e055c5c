"""Disk images of lab hosts, one per Debian: a kept tree, made a host, with the program and the stand-in Proxmox."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path

from . import disk, host_tree, stand_in
from .programs import Say
from .root import tree


class Workshop:
    """Makes each image once, when it is first asked for, in a folder that is removed at the end of the run."""

    def __init__(self, folder: Path, deb: Path, say: Say) -> None:
        self.folder, self.deb, self._say = folder, deb, say
        self._made: dict[tuple[str, str], Path] = {}

    def image(self, suite: str, arguments: str = "") -> Path:
        """A bootable disk. `arguments`: more words on its kernel's command line, as an administrator left them.

        Raises LabError.
        """
        key = (suite, arguments)
        if key not in self._made:
            self._made[key] = self._make(suite, arguments)
        return self._made[key]

    def plain_tree(self, suite: str) -> Path:
        """The tree of packages alone; nobody may change it."""
        return tree(suite, self._say)

    @cached_property
    def qemu(self) -> tuple[str, ...]:
        """Debian 13's QEMU, started with its own loader and libraries, whatever this machine is.

        Its TCG does the same work in half the time of Debian 12's (an initramfs: 64 s against 144 s of CPU), and only
        it has an AMD IOMMU with interrupt remapping that Linux accepts. Raises LabError.
        """
        root = self.plain_tree("trixie")
        libraries = root / "usr/lib/x86_64-linux-gnu"
        data = [word for name in ("qemu", "seabios") for word in ("-L", str(root / "usr/share" / name))]
        loader = str(root / "usr/lib64/ld-linux-x86-64.so.2")
        program = str(root / "usr/bin/qemu-system-x86_64")
        ipxe = str(root / "usr/lib/ipxe/qemu")
        return (loader, "--library-path", f"{libraries}:{libraries}/pulseaudio", program, *data, "-L", ipxe)

    def _make(self, suite: str, arguments: str) -> Path:
        root = self.folder / f"root-{suite}"
        host_tree.copy(self.plain_tree(suite), root)
        host_tree.prepare(root, suite, self.deb, arguments)
        stand_in.install(root, suite)
        made = self.folder / f"{len(self._made)}-disk.raw"
        disk.build(root, made)
        shutil.rmtree(root)
        return made
