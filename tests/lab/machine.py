"""One lab host as a running QEMU: started, watched, cut off, ended by its own process id.

1. One at a time: `Machine` takes a lock file for as long as it runs.
2. Everything is bounded in time. A QEMU whose parent dies dies with it (`setpriv --pdeathsig`).
3. It runs under TCG. `-cpu max` shows the host an emulated AMD-V, so that KVM works inside; KVM here is not needed.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from . import disk
from .agent import Agent, Said
from .hardware import Hardware
from .programs import OVMF_CODE, OVMF_VARS, LabError
from .root import cache_folder

BOOT_SECONDS = 300.0
PROCESSOR = "max,erms=off,fsrm=off,la57=off"
"""All that TCG can do but what makes it slow. With ERMS and FSRM the kernel clears and copies pages byte by byte (`rep
stosb`), and each byte that falls on a page of translated code is a translation thrown away: seconds for one page were
seen. Five levels of page tables cost a step more at each look-up."""
SETTLE_SECONDS = 900.0
"""A boot that takes a run back rebuilds the initramfs before it is over."""
_LAST_WORDS = 1500
_LOST_TIMER = "rcu_preempt kthread timer wakeup didn't happen"
"""The kernel's words for a timer that never came: the emulator's fault, not the host's (seen under load)."""


class _StoodStill(LabError):
    """The emulator lost a timer; starting again helps."""


class Machine:
    """A lab host. Whoever switches it on pulls the plug at the end, whatever happened (`lab.Lab.host`)."""

    def __init__(
        self,
        folder: Path,
        hardware: Hardware,
        base: Path,
        qemu: Sequence[str],
        memory_mib: int = 3072,
    ) -> None:
        """`folder` is made; the disk there is an overlay of `base`."""
        folder.mkdir(parents=True)
        self.folder, self.hardware = folder, hardware
        self._qemu, self._memory = qemu, memory_mib
        self._disk = folder / "disk.qcow2"
        self._cuts = 0
        self._said_before = 0
        self.stalls = 0
        """How often the emulator stood still at a start, and the host was switched on once more."""
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: QEMUMonitorProtocol | None = None
        self._lock: Any = None
        self.agent = Agent(folder / "agent")
        disk.overlay(base, self._disk)
        shutil.copy(OVMF_VARS, folder / "variables.fd")

    # -- power -------------------------------------------------------------------------------

    def start(self, seconds: float = BOOT_SECONDS) -> float:
        """Switch on and wait for the agent; seconds it took. Raises LabError with the console's last words."""
        began = time.monotonic()
        try:
            self._switch_on(seconds)
        except _StoodStill:
            self.stalls += 1
            self.power_cut()
            self._switch_on(seconds)
        except BaseException:
            self.power_cut()
            raise
        return time.monotonic() - began

    def _switch_on(self, seconds: float) -> None:
        self._take_lock()
        self._said_before = len(self.console())
        self._launch()
        self.wait(seconds)
        self.settle()

    def wait(self, seconds: float = BOOT_SECONDS) -> None:
        """Until the agent answers."""
        until = time.monotonic() + seconds
        while not self.agent.alive():
            self._require_running()
            if _LOST_TIMER in self.console()[self._said_before :]:
                raise _StoodStill("the emulator lost a timer of the host, which stands still since")
            if time.monotonic() > until:
                raise LabError(
                    f"no agent within {seconds:.0f} s; the console ends with:\n{self.console()[-_LAST_WORDS:]}"
                )
            time.sleep(0.5)

    def settle(self) -> None:
        """Until systemd has ended the boot, and udev has found drivers for all devices."""
        self.run("/usr/bin/systemctl", "is-system-running", "--wait", seconds=SETTLE_SECONDS)
        self.run("/usr/bin/udevadm", "settle", "--timeout=120", seconds=150)

    def reboot(self, seconds: float = BOOT_SECONDS) -> float:
        """`systemctl reboot` in the host, through firmware and boot loader; seconds until the agent answers again.

        QEMU ends at the reset (`-no-reboot`) and is started anew: what TCG had translated before is only in the way.
        """
        began, before = time.monotonic(), self.boot_id()
        self.agent.begin(("/usr/bin/systemctl", "reboot"))
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(
                f"the host did not go down within {seconds:.0f} s:\n{self.console()[-_LAST_WORDS:]}"
            ) from None
        self.power_cut()
        self.start(seconds)
        if self.boot_id() == before:
            raise LabError("the host was not started anew")
        return time.monotonic() - began

    def power_cut(self) -> None:
        """The plug is pulled: what the host had not given to its disk is lost."""
        self.agent.close()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def freeze_disk(self) -> Path:
        """The disk as a power cut now would leave it; the host goes on, on an overlay of it."""
        self._cuts += 1
        target = self.folder / f"disk-{self._cuts}.qcow2"
        frozen, self._disk = self._disk, target
        arguments = {"device": "root", "snapshot-file": str(target), "format": "qcow2"}
        self.command("blockdev-snapshot-sync", **arguments)
        return frozen

    def insert(self, frozen: Path) -> None:
        """The next start is from a disk that `freeze_disk` kept."""
        self._cuts += 1
        self._disk = self.folder / f"disk-{self._cuts}.qcow2"
        disk.overlay(frozen, self._disk)

    # -- talk --------------------------------------------------------------------------------

    def command(self, name: str, **arguments: Any) -> Any:
        """A QMP command's answer. Raises LabError."""
        self._require_running()
        try:
            if self._monitor is None:
                self._monitor = QEMUMonitorProtocol(str(self.folder / "monitor"))
                self._monitor.connect()
                self._monitor.settimeout(30.0)
            return self._monitor.cmd(name, **arguments)
        except (QMPError, OSError, TimeoutError) as error:
            raise LabError(f"QMP {name}: {error}") from None

    def run(self, *argv: str, seconds: float = 120.0, stdin: bytes = b"") -> Said:
        """A program's end in the lab host."""
        return self.agent.run(argv, seconds, stdin)

    def shell(self, script: str, seconds: float = 120.0) -> str:
        """The output of a fixed script of the lab's own. Raises LabError when it fails."""
        said = self.run("/bin/sh", "-c", script, seconds=seconds)
        if said.rc != 0:
            raise LabError(f"in the lab host: {script[:200]}: {said.rc}: {said.text[-_LAST_WORDS:]}")
        return said.out

    def read(self, path: str) -> str:
        """A file's text. Raises LabError."""
        said = self.run("/bin/cat", path)
        if said.rc != 0:
            raise LabError(said.err.strip())
        return said.out

    def write(self, path: str, data: bytes) -> None:
        said = self.run("/bin/sh", "-c", 'mkdir -p "${1%/*}" && cat > "$1"', "sh", path, stdin=data)
        if said.rc != 0:
            raise LabError(said.err.strip())

    def boot_id(self) -> str:
        return self.read("/proc/sys/kernel/random/boot_id").strip()

    def console(self) -> str:
        """What the host has said on its serial console since it was first switched on."""
        try:
            return (self.folder / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # -- inside ------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._lock = (cache_folder() / "machine.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise LabError("another lab host is running on this machine; one at a time") from None

    def _require_running(self) -> None:
        if self._process is None:
            raise LabError("the lab host is switched off")
        if self._process.poll() is not None:
            said = (self.folder / "qemu.log").read_text(errors="replace")[-_LAST_WORDS:]
            raise LabError(f"QEMU ended with {self._process.returncode}: {said}")

    def _launch(self) -> None:
        for name in ("agent", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        argv = ("setpriv", "--pdeathsig", "KILL", *self._qemu, *self._words())
        (self.folder / "command").write_text("\n".join(argv) + "\n")
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _words(self) -> list[str]:
        folder = self.folder
        irqchip = ",kernel-irqchip=split" if self.hardware.split_irqchip else ""
        words = ["-name", self.hardware.name, "-M", f"q35{irqchip}", "-accel", "tcg,thread=multi", "-cpu", PROCESSOR]
        words += ["-m", str(self._memory), "-smp", "2", "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot"]
        words += ["-chardev", f"file,id=console,path={folder}/console.log,append=on", "-serial", "chardev:console"]
        words += ["-qmp", f"unix:{folder}/monitor,server=on,wait=off"]
        words += _devices(self.hardware.iommu)
        words += ["-device", "virtio-serial-pci,addr=1e.0", "-device", "virtio-rng-pci,addr=1c.0"]
        words += ["-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"]
        words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        words += ["-drive", f"if=none,id=root,file={self._disk},format=qcow2,cache=writeback,discard=unmap"]
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}"]
        words += ["-drive", f"if=pflash,format=raw,file={folder}/variables.fd"]
        return words + _devices(self.hardware.devices)


def _devices(rows: Sequence[str]) -> list[str]:
    words: list[str] = []
    for row in rows:
        words += row.split(" ") if row.startswith("-") else ["-device", row]
    return words
