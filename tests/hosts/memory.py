"""A toy host in memory: one boot loader, one RAM disk, one card, one guest.

1. Laws: the kernel's command line is what update-grub made of the settings before the boot; the card's driver at boot
   is what update-initramfs packed; a power cut loses /run, driver bindings, attributes and running guests.
2. It believes little and says no like the real ones: a digest that does not match, a directory that is not empty.
3. `disk` is everything that survives; comparing two snapshots of it compares every byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pve_passthrough.host.base import Busy, Missing, Ran, Room, Unreadable, to_bytes
from pve_passthrough.model.vm import digest_of

CARD = "0000:01:00.0"
DEVICE = f"/sys/bus/pci/devices/{CARD}"
GRUB = "/etc/default/grub"
GRUB_DIR = "/etc/default/grub.d"
MODPROBE = "/etc/modprobe.d/pve-passthrough.conf"
CONF = "/etc/pve/nodes/pve/qemu-server/100.conf"
PCI_CFG = "/etc/pve/mapping/pci.cfg"
DISK = {
    "/etc/hostname": b"pve.example\n",
    "/etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
    GRUB: b'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n# caf\xe9\n',
    CONF: b"bios: ovmf\ncores: 4\nname: lin\n",
    PCI_CFG: b"nic\n\tmap node=pve,path=0000:02:00.0,id=8086:1521\n\n",
}
HOME = (
    "/etc/modprobe.d",
    "/etc/default",
    "/var/lib",
    "/run/lock",
    "/etc/pve/mapping",
    "/sys/class",
    "/sys/class/iommu",
)


class Memory:
    """The host; `power_cut` is the one thing done to it from outside. `free` is the room on /boot in bytes."""

    def __init__(self) -> None:
        self.name = "memory"
        self.changeable = True
        self.disk: dict[str, bytes] = dict(DISK)
        self.directories: set[str] = set(HOME)
        self.volatile: dict[str, bytes] = {}
        self.enabled: set[str] = set()
        self.running: set[str] = set()
        self.locked = False
        self.boots = 0
        self.free = 1 << 30
        self.broken: set[str] = set()
        """Programs that fail."""
        self._pack()
        self._make_menu()
        self.power_cut()

    # -- questions -------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        content = self.volatile.get(path, self.disk.get(path))
        if content is None:
            raise Missing(path, "No such file or directory")
        return content

    def head(self, path: str, size: int) -> bytes:
        return self.read(path)[:size]

    def names(self, path: str) -> tuple[str, ...]:
        inside = f"{path.rstrip('/')}/"
        known = [*self.disk, *self.volatile, *self.directories]
        found = {name[len(inside) :].split("/")[0] for name in known if name.startswith(inside)}
        if not found and path.rstrip("/") not in self.directories:
            raise Missing(path, "No such file or directory")
        return tuple(sorted(found))

    def link(self, path: str) -> str:
        if path == f"{DEVICE}/driver" and (driver := self.volatile["driver"].decode()):
            return f"../../../bus/pci/drivers/{driver}"
        if path == f"{DEVICE}/iommu_group":
            return "../../../../kernel/iommu_groups/13"
        raise Missing(path, "No such file or directory")

    def room(self, path: str) -> Room:
        return Room(1 << 30, self.free)

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        if self.locked:
            raise Busy(path, "another run holds the lock")
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    # -- effects ---------------------------------------------------------------------------------

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        if path.startswith("/sys/"):
            self._attribute(path, (data or b"").decode().strip())
            return
        if path.rpartition("/")[0] not in self.directories | {name.rpartition("/")[0] for name in self.disk}:
            raise Missing(path, "No such file or directory")
        store = self.volatile if path.startswith("/run/") else self.disk
        if data is None:
            store.pop(path, None)
        else:
            store[path] = data

    def append(self, path: str, data: bytes) -> None:
        self.disk[path] = self.disk.get(path, b"") + data

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self.directories.add(path)

    def remove_dir(self, path: str) -> None:
        if path in self.directories and self.names(path):
            raise Unreadable(path, "Directory not empty")
        self.directories.discard(path)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if argv[0] in self.broken:
            return Ran(1, "", f"{argv[0]}: failed for {argv[1:]}\n")
        table: dict[str, Callable[[], Ran | None]] = {
            "update-initramfs": self._pack,
            "update-grub": self._make_menu,
            "pvesh": lambda: self._pvesh(argv),
            "qm": lambda: self._qm(argv),
            "systemctl": lambda: self._systemctl(argv),
            "sh": lambda: self._shell(argv[-1]),
            "modprobe": self._modprobe,
            "udevadm": lambda: Ran(0),
        }
        act = table.get(argv[0])
        if act is None:
            raise Missing(argv[0], "no such program")
        return act() or Ran(0)

    # -- laws ------------------------------------------------------------------------------------

    def power_cut(self) -> None:
        """Lose what is volatile and boot from what the last refreshes made."""
        self.boots += 1
        self.running.clear()
        self.directories = {name for name in self.directories if not name.startswith("/run/pve")}
        words = re.findall(r'"(?:\$\w+ )?([^"]*)"', self.disk["/boot/grub.cfg"].decode("latin-1"))
        claimed = b"10de:2684" in self.disk["/boot/initrd"]
        self.volatile = {
            "/proc/sys/kernel/random/boot_id": f"boot-{self.boots}\n".encode(),
            "/proc/cmdline": f"root=/dev/sda1 {' '.join(words)}\n".encode(),
            "driver": b"vfio-pci" if claimed else b"nouveau",
            f"{DEVICE}/driver_override": b"(null)\n",
            f"{DEVICE}/sriov_numvfs": b"0\n",
            "/sys/bus/pci/drivers/nouveau/unbind": b"",
            "/sys/bus/pci/drivers/vfio-pci/unbind": b"",
        }

    def lasting(self) -> dict[str, bytes]:
        """What survives a power cut, without our own records."""
        kept = {path: data for path, data in self.disk.items() if not path.startswith("/var/lib/pve-passthrough")}
        kept["directories"] = " ".join(sorted(d for d in self.directories if d.startswith("/etc"))).encode()
        kept["units"] = " ".join(sorted(self.enabled)).encode()
        return kept

    def refreshed(self) -> bool:
        """Whether everything derived is what a refresh would make now."""
        return self.disk["/boot/initrd"] == self._packed() and self.disk["/boot/grub.cfg"] == self._menu()

    def _packed(self) -> bytes:
        return b"".join(data for path, data in sorted(self.disk.items()) if path.startswith("/etc/modprobe.d/"))

    def _menu(self) -> bytes:
        return b"".join(data for path, data in sorted(self.disk.items()) if path.startswith(GRUB))

    def _pack(self) -> None:
        self.disk["/boot/initrd"] = self._packed()

    def _make_menu(self) -> None:
        self.disk["/boot/grub.cfg"] = self._menu()

    def _shell(self, path: str) -> Ran:
        odd = self.read(path).count(b'"') % 2
        return Ran(2, "", f"{path}: 1: Syntax error: Unterminated quoted string\n") if odd else Ran(0)

    def _modprobe(self) -> Ran:
        for name in self.names("/run/pve-passthrough/candidate"):
            path = f"/run/pve-passthrough/candidate/{name}"
            if b"bogus" in self.read(path):
                return Ran(0, "", f"libkmod: ERROR {path} line 1: ignoring bad line starting with 'bogus'\n")
        return Ran(0)

    def _attribute(self, path: str, value: str) -> None:
        driver = self.volatile["driver"].decode()
        if path == f"/sys/bus/pci/drivers/{driver}/unbind" and value == CARD:
            self.volatile["driver"] = b""
        elif path == "/sys/bus/pci/drivers_probe" and value == CARD:
            override = self.volatile[f"{DEVICE}/driver_override"].decode().strip()
            if not driver:
                self.volatile["driver"] = ("nouveau" if override == "(null)" else override).encode()
        elif path == f"{DEVICE}/driver_override":
            self.volatile[path] = f"{value or '(null)'}\n".encode()
        elif path == f"{DEVICE}/sriov_numvfs":
            if self.volatile[path] != b"0\n" and value != "0":
                raise Unreadable(path, "Device or resource busy")
            self.volatile[path] = f"{value}\n".encode()
        else:
            raise Unreadable(path, "No such device")

    def _pvesh(self, argv: Sequence[str]) -> Ran:
        words = list(argv[3:])
        options = dict(zip(words[::2], words[1::2], strict=True))
        if argv[2].startswith("/cluster/mapping/pci"):
            return self._mapping(argv[1], argv[2].removeprefix("/cluster/mapping/pci").strip("/"), options)
        text = self.disk[CONF].decode("utf-8", "surrogateescape")
        if options.pop("--digest", digest_of(text)) != digest_of(text):
            return Ran(255, "", "checksum mismatch (file change by other user?)\n")
        lines = dict(line.split(": ", 1) for line in text.splitlines())
        lines.pop(options.pop("--delete", ""), None)
        lines.update({key.removeprefix("--"): value for key, value in options.items()})
        self.disk[CONF] = to_bytes("".join(f"{key}: {lines[key]}\n" for key in sorted(lines)))
        return Ran(0, f"update VM 100: {' '.join(words)}\n")

    def _mapping(self, verb: str, name: str, options: dict[str, str]) -> Ran:
        text = self.disk[PCI_CFG].decode()
        sections = dict(part.split("\n", 1) for part in text.strip().split("\n\n") if part)
        name = name or options.pop("--id")
        if options.pop("--digest", digest_of(text)) != digest_of(text):
            return Ran(255, "", "detected modified configuration - file changed by other user? Try again.\n")
        if verb == "create" and name in sections:
            return Ran(255, "", f"create hardware mapping failed: pci ID '{name}' already defined\n")
        if verb == "delete":
            sections.pop(name, None)
        else:
            lines = (f"\t{key.removeprefix('--')} {value}" for key, value in options.items() if key != "--delete")
            sections[name] = "\n".join(lines)
        body = "\n\n".join(f"{key}\n{value.rstrip()}" for key, value in sections.items())
        self.disk[PCI_CFG] = f"{body}\n\n".encode()
        return Ran(0)

    def _qm(self, argv: Sequence[str]) -> Ran:
        verb, vmid = argv[1], argv[2]
        if verb == "status":
            return Ran(0, f"status: {'running' if vmid in self.running else 'stopped'}\n")
        if verb == "start":
            self.running.add(vmid)
        else:
            self.running.discard(vmid)
        return Ran(0)

    def _systemctl(self, argv: Sequence[str]) -> Ran:
        verb, unit = argv[1], argv[2]
        if verb == "is-enabled":
            return Ran(0, "enabled\n") if unit in self.enabled else Ran(1, "disabled\n")
        (self.enabled.add if verb == "enable" else self.enabled.discard)(unit)
        return Ran(0)
