"""Guests in earnest: QEMU over the prepared devices, its end, its monitor, the guest's agent, hookscripts.

1. QEMU is ended by its own process id, and only when that process is the guest's (its pid file is in its arguments).
2. QEMU's refusal is the task's log, its exit code is Proxmox' error.
3. Everything is bounded in time.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from pve_passthrough.host.simulated.pve.config import Config
from pve_passthrough.host.simulated.pve.guests import pid_of
from pve_passthrough.host.simulated.pve.node import Die, Node
from pve_passthrough.host.simulated.pve.passthrough import Entry

from . import command_line, talk

QEMU = "/usr/bin/kvm"
START_SECONDS = 300.0
"""Taking 512 MiB of memory for DMA and resetting a device take their time on an emulated processor."""
_PING_SECONDS = 5.0
_QUIT_SECONDS = 10.0
_UNPLUG_SECONDS = 20.0


def alive(node: Node, vmid: int) -> bool:
    """Whether the pid file names a living QEMU of this guest."""
    return _lives(pid_of(node, vmid), vmid)


def _lives(pid: int, vmid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return f"\0{command_line.RUN}/{vmid}.pid\0".encode() in file.read()
    except OSError:
        return False


class Qemu:
    """The simulation's `Machinery`, for real."""

    def start(self, node: Node, config: Config, found: Sequence[Entry]) -> int:
        vmid = config.vmid
        accelerator = "kvm" if _kvm() else "tcg"
        if accelerator == "tcg":
            node.warn("this lab host has no /dev/kvm: the guest runs on TCG, which is slow")
        words = command_line.build(node, config, found, accelerator)
        for folder in (command_line.RUN, command_line.LOGS):
            os.makedirs(folder, exist_ok=True)
        for name in ("qmp", "qga", "serial0"):
            node.world.put(f"{command_line.RUN}/{vmid}.{name}", None)
        node.world.put(f"{command_line.LOGS}/{vmid}.command", "\n".join((QEMU, *words)) + "\n")
        code, said = _launch((*_scope(vmid), QEMU, *words), f"{command_line.LOGS}/{vmid}.qemu")
        if code:
            raise Die(f"start failed: QEMU exited with code {code}", 255, said)
        for line in said.splitlines():
            node.warn(line)
        pid = pid_of(node, vmid)
        if not _lives(pid, vmid):
            raise Die(f"start failed: QEMU left no process of guest {vmid} behind", 255, said)
        return pid

    def end(self, node: Node, vmid: int) -> None:
        pid = pid_of(node, vmid)
        try:
            talk.monitor(f"{command_line.RUN}/{vmid}.qmp", "quit")
        except (talk.Silence, talk.Refusal) as error:
            node.warn(f"VM {vmid} qmp command 'quit' failed - {error}")
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and _lives(pid, vmid):
                os.kill(pid, number)
            if _gone(pid, vmid, _QUIT_SECONDS):
                return
        raise Die(f"VM {vmid} still running - process {pid} does not end")

    def power_button(self, node: Node, vmid: int, through_agent: bool, seconds: int) -> bool:
        pid = pid_of(node, vmid)
        try:
            if through_agent:
                talk.agent(f"{command_line.RUN}/{vmid}.qga", "guest-shutdown", {}, silent=True)
            else:
                talk.monitor(f"{command_line.RUN}/{vmid}.qmp", "system_powerdown")
        except (talk.Silence, talk.Refusal) as error:
            node.warn(f"VM {vmid} could not be asked to end - {error}")
        return _gone(pid, vmid, seconds)

    def reset(self, node: Node, vmid: int) -> None:
        _monitor(vmid, "system_reset")

    def pause(self, node: Node, vmid: int, paused: bool) -> None:
        _monitor(vmid, "stop" if paused else "cont")

    def plug(self, node: Node, config: Config, key: str) -> None:
        """Source: qemu-server, src/PVE/QemuServer.pm, vm_deviceplug and the hot plug of usbN in
        vmconfig_hotplug_pending: what has the name goes first, the controller comes when there is none."""
        if key in _peripherals(config.vmid):
            self.unplug(node, config, key)
        if "xhci" not in _peripherals(config.vmid):
            _add(config.vmid, command_line.XHCI)
        _add(config.vmid, command_line.usb_device(node, key, config.active[key]))

    def unplug(self, node: Node, config: Config, key: str) -> None:
        """The last one takes the controller along, as in Proxmox."""
        _remove(config.vmid, key)
        if not any(re.fullmatch(r"usb\d+", other) for other in config.active):
            _remove(config.vmid, "xhci")

    def hook(self, node: Node, path: str, vmid: int, phase: str) -> str:
        try:
            ran = subprocess.run(
                (path, str(vmid), phase), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=START_SECONDS, check=False, text=True, errors="replace",
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"command '{path} {vmid} {phase}' failed: {error}"
        for line in ran.stdout.splitlines():
            node.say(line)
        return f"command '{path} {vmid} {phase}' failed: exit code {ran.returncode}" if ran.returncode else ""

    def answers(self, node: Node, vmid: int) -> bool:
        try:
            talk.agent(f"{command_line.RUN}/{vmid}.qga", "guest-ping", {}, _PING_SECONDS)
        except (talk.Silence, talk.Refusal):
            return False
        return True

    def ask(self, node: Node, vmid: int, command: str, arguments: dict[str, Any]) -> Any:
        try:
            return talk.agent(f"{command_line.RUN}/{vmid}.qga", command, arguments)
        except talk.Silence as error:
            raise Die(f"VM {vmid} qga command '{command}' failed - {error}") from None
        except talk.Refusal as error:
            raise Die(f"Agent error: {error}") from None


def _kvm() -> bool:
    """udev loads kvm_amd by the processor's alias, on a slow host some time after the first programs run."""
    if not os.path.exists("/dev/kvm"):
        subprocess.run(("modprobe", "kvm_amd"), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return os.path.exists("/dev/kvm")


def _scope(vmid: int) -> tuple[str, ...]:
    """A scope of its own below qemu.slice, as on a node: whoever started the guest may end without it."""
    if not os.path.isdir("/run/systemd/system"):
        return ()
    return ("systemd-run", "--quiet", "--scope", "--collect", f"--unit={vmid}", "--slice=qemu.slice")


def _launch(argv: Sequence[str], kept: str) -> tuple[int, str]:
    """Exit code and words (also in the file `kept`) of a QEMU that either ends at once or goes into the background.

    A file and no pipe: whatever stays in the background cannot make us wait for the pipe's end.
    """
    with open(kept, "w+b") as log:
        try:
            ran = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=START_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Die(f"start failed: QEMU did not start within {START_SECONDS:.0f} s") from None
        except OSError as error:
            raise Die(f"start failed: {argv[0]}: {error.strerror}") from None
        log.seek(0)
        return ran.returncode, log.read().decode(errors="replace").rstrip("\n")


def _gone(pid: int, vmid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while _lives(pid, vmid):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _peripherals(vmid: int) -> set[str]:
    """Names of what was plugged in with a name (QMP has no list of USB devices)."""
    found = _monitor(vmid, "qom-list", path="/machine/peripheral")
    return {str(row["name"]) for row in found}


def _add(vmid: int, device: str) -> None:
    _monitor(vmid, "device_add", **command_line.arguments(device))


def _remove(vmid: int, name: str) -> None:
    """A USB device goes at once; a PCI one when the guest's kernel has let go of it, which is waited for."""
    if name not in _peripherals(vmid):
        return
    _monitor(vmid, "device_del", id=name)
    until = time.monotonic() + _UNPLUG_SECONDS
    while name in _peripherals(vmid):
        if time.monotonic() > until:
            raise Die(f"error on hot-unplugging device '{name}'")
        time.sleep(0.2)


def _monitor(vmid: int, command: str, **arguments: Any) -> Any:
    try:
        return talk.monitor(f"{command_line.RUN}/{vmid}.qmp", command, **arguments)
    except (talk.Silence, talk.Refusal) as error:
        raise Die(f"VM {vmid} qmp command '{command}' failed - {error}") from None
