"""Guests in motion: start, stop, shutdown, reboot, suspend, and what their status says.

1. A guest runs while /run/qemu-server/ID.pid exists; what it was started with is in state.json under `running`.
2. The order of a start is qemu-server's: lock, hookscript's file, devices and mappings, command line, reservation,
   preparation of every function, QEMU.
3. Hookscripts are looked at but never executed, a simulated tree may come from strangers; what our own would do is
   done (`hookscripts`).
4. The inside of a guest is machine.json's `guests`: `acpi: false` ignores the power button, `agent: true` answers.
5. A node with a `machinery` has real guests: then it starts, ends and asks them, and runs their hookscripts.
"""

from __future__ import annotations

import re
from typing import Any

from .. import resets
from . import ha, hookscripts, inventory, mappings, passthrough, running, storage
from .changes import after_stop, apply_pending, is_running
from .config import Config, check_lock, load, options_of, vmids
from .node import Die, Node, now

SHUTDOWN_SECONDS = 60
"""How long a guest that was asked to end is waited for when nobody says so."""


def pid_path(vmid: int) -> str:
    return f"/run/qemu-server/{vmid}.pid"


def pid_of(node: Node, vmid: int) -> int:
    """0 when the guest does not run."""
    text = (node.world.text(pid_path(vmid)) or "").strip()
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def running_with(node: Node, vmid: int) -> dict[str, Any]:
    """`config` and `devices` ([guest address, host address]) of a running guest."""
    found: dict[str, Any] = node.state().get("running", {}).get(str(vmid), {})
    return found


# -- start ----------------------------------------------------------------------------------------


def start(node: Node, vmid: int, skiplock: bool = False) -> None:
    """Raises `Die` as the task does."""
    node.require_quorum()
    config = load(node, vmid)
    check_lock(config, skiplock)
    if is_running(node, vmid):
        raise Die(f"VM {vmid} already running")
    apply_pending(node, vmid)
    config = load(node, vmid)
    _check_hookscript(node, config)
    _hook(node, vmid, config.active, "pre-start", fatal=True)
    found = command(node, config, True)
    passthrough.reserve(node, vmid, found, f"time:{now() + passthrough.RESERVED_SECONDS}")
    try:
        for entry in found:
            passthrough.prepare(node, vmid, entry)
        pid = node.machinery.start(node, config, found) if node.machinery else _qemu(node, config, found)
    except Die:
        passthrough.release(node, vmid)
        passthrough.remove_mdevs(node, vmid, config.active)
        raise
    _runs(node, config, found, pid)
    _hook(node, vmid, config.active, "post-start")


def _hook(node: Node, vmid: int, values: dict[str, str], phase: str, fatal: bool = False) -> None:
    """A hookscript is called as `SCRIPT ID PHASE`; a failure of pre-start ends the start, others are told only."""
    if "hookscript" not in values:
        return
    path = storage.volume_path(node, values["hookscript"])
    wrong = (
        node.machinery.hook(node, path, vmid, phase) if node.machinery else hookscripts.hook(node, path, vmid, phase)
    )
    if wrong and fatal:
        raise Die(f"hookscript error for {vmid} on {phase}: {wrong}\n")
    if wrong:
        node.warn(f"hookscript error for {vmid} on {phase}: {wrong}")


def _check_hookscript(node: Node, config: Config) -> None:
    if "hookscript" in config.active:
        try:
            storage.check_hookscript(node, config.active["hookscript"])
        except Die as error:
            raise Die(f"hookscript error for {config.vmid} on pre-start: {error.text}\n") from None


def command(node: Node, config: Config, starting: bool = False) -> list[passthrough.Entry]:
    """Everything that is refused while QEMU's command line is built; the devices that it would name."""
    values = config.active
    _check_processors(node, values)
    found = passthrough.entries(node, values)
    passthrough.choose(node, config.vmid, found, starting)
    passthrough.check_usb(node, values)
    passthrough.check_machine(node, values, found)
    _check_memory(node, values)
    _check_bridges(node, values)
    return found


def host_cpus(node: Node) -> int:
    text = node.world.text("/proc/cpuinfo") or ""
    return len(re.findall(r"(?m)^processor\s*:", text))


def _check_processors(node: Node, values: dict[str, str]) -> None:
    wanted = int(values.get("sockets", "1")) * int(values.get("cores", "1"))
    have = host_cpus(node)
    if have and wanted > have:
        raise Die(f"MAX {have} vcpus allowed per VM on this node", 2)


def _check_memory(node: Node, values: dict[str, str]) -> None:
    size = values.get("hugepages")
    if size is None:
        return
    if values.get("numa", "0") != "1":
        where = f"/usr/share/perl5/PVE/QemuServer/Memory.pm line {388 if node.major >= 9 else 405}."
        raise Die(f"numa needs to be enabled to use hugepages at {where}")
    have = node.world.names("/sys/kernel/mm/hugepages")
    wanted = {"2": "hugepages-2048kB", "1024": "hugepages-1048576kB"}.get(size)
    if not have or (wanted and wanted not in have):
        raise Die("your system doesn't support hugepages")


def _check_bridges(node: Node, values: dict[str, str]) -> None:
    for key in sorted(key for key in values if re.fullmatch(r"net\d+", key)):
        bridge = options_of(node, key, values[key]).get("bridge")
        if bridge and not node.world.exists(f"/sys/class/net/{bridge}"):
            if node.major >= 9:
                raise Die(f"bridge '{bridge}' does not exist")
            # 8.4 leaves the missing bridge to QEMU's ifup script
            raise Die("start failed: QEMU exited with code 1")


def _qemu(node: Node, config: Config, found: list[passthrough.Entry]) -> int:
    """The process id that a simulated QEMU would have; its refusals."""
    refusal = passthrough.qemu_refusal(node, config, found)
    if refusal is None and node.fault(f"qemu:{config.vmid}"):
        refusal = ""
    if refusal is None and _memory(node, config) > _host_memory(node):
        refusal = "kvm: cannot set up guest memory 'pc.ram': Cannot allocate memory"
    if refusal is not None:
        raise Die("start failed: QEMU exited with code 1", 255, refusal)
    state = node.state()
    pid = int(state.get("next_pid", 2000))
    state["next_pid"] = pid + 7
    node.world.save_state(state)
    node.world.put(pid_path(config.vmid), f"{pid}\n")
    _open_groups(node, config.vmid, pid, [address for entry in found for address in entry.taken])
    running.appears(node, config, pid, [address for entry in found if not entry.mdev for address in entry.taken])
    return pid


def _open_groups(node: Node, vmid: int, pid: int, functions: list[str]) -> None:
    """What /proc shows of a QEMU with devices: it has the files of their IOMMU groups open (kernel, vfio.rst)."""
    home = f"/proc/{pid}"
    groups = dict.fromkeys(node.world.group_of(address) for address in functions)
    for number, group in enumerate((one for one in groups if one is not None), 10):
        node.world.put_link(f"{home}/fd/{number}", f"/dev/vfio/{group}")
    node.world.put(f"{home}/comm", "kvm\n")
    node.world.put(f"{home}/cgroup", f"0::/qemu.slice/{vmid}.scope\n")


def _memory(node: Node, config: Config) -> int:
    """MiB"""
    return int(options_of(node, "memory", config.active.get("memory", "512")).get("current", "512"))


def _host_memory(node: Node) -> float:
    """MiB; without an answer there is no limit."""
    match = re.search(r"(?m)^MemTotal:\s+(\d+) kB", node.world.text("/proc/meminfo") or "")
    return int(match.group(1)) / 1024 if match else float("inf")


def _runs(node: Node, config: Config, found: list[passthrough.Entry], pid: int) -> None:
    state = node.state()
    state.setdefault("running", {})[str(config.vmid)] = {
        "config": config.active,
        "devices": _guest_addresses(found),
        "since": now(),
    }
    node.world.save_state(state)
    if any(not entry.mdev and entry.taken for entry in found):
        passthrough.reserve(node, config.vmid, found, f"pid:{pid}")


def _guest_addresses(found: list[passthrough.Entry]) -> list[list[str]]:
    """Where the guest sees the devices: behind a port of their own with pcie=1, else in slots from 10 on bus 0.

    Source: recorded command lines (`bus=ich9-pcie-port-1`, `bus=pci.0,addr=0x10`); bus numbers are the guest
    firmware's business, here port N is bus N.
    """
    devices = []
    for position, entry in enumerate(found):
        for function, address in enumerate(entry.taken):
            slot = f"{position + 1:02x}:00" if entry.on("pcie") else f"00:{16 + position:02x}"
            devices.append([f"0000:{slot}.{function}", address])
    return devices


# -- stop -----------------------------------------------------------------------------------------


def stop(node: Node, vmid: int, skiplock: bool = False) -> None:
    config = load(node, vmid)
    check_lock(config, skiplock)
    if is_running(node, vmid):
        _hook(node, vmid, config.active, "pre-stop")
        if node.machinery:
            node.machinery.end(node, vmid)
        ended(node, vmid)


def ended(node: Node, vmid: int) -> None:
    """The clean-up after a run: nothing is bound back to a host driver."""
    config = running_with(node, vmid).get("config", {})
    if node.machinery is None:
        running.disappears(node, vmid, [address for _, address in running_with(node, vmid).get("devices", ())])
    for _, address in running_with(node, vmid).get("devices", ()) if node.machinery is None else ():
        resets.closed(node.world, address)
    state = node.state()
    state.get("running", {}).pop(str(vmid), None)
    node.world.save_state(state)
    if node.machinery is None and (pid := pid_of(node, vmid)):
        node.world.forget_process(pid)
    node.world.put(pid_path(vmid), None)
    passthrough.release(node, vmid)
    after_stop(node, vmid, config)
    _hook(node, vmid, config, "post-stop")


def shutdown(node: Node, vmid: int, force: bool = False, seconds: int = SHUTDOWN_SECONDS) -> None:
    """Ask the guest to end. Raises `Die` when it does not within the time-out (a simulated guest is not waited for)."""
    config = load(node, vmid)
    check_lock(config)
    if not is_running(node, vmid):
        node.err.append(f"VM {vmid} not running\n\n")
        return
    _ask_to_end(node, config, vmid, force, seconds)


def _ask_to_end(node: Node, config: Config, vmid: int, force: bool, seconds: int) -> None:
    guest = node.guest(vmid)
    wants_agent = options_of(node, "agent", config.active.get("agent", "0")).get("enabled") == "1"
    _hook(node, vmid, config.active, "pre-stop")
    answers = node.machinery.answers(node, vmid) if node.machinery else bool(guest.get("agent"))
    if wants_agent and not answers:
        socket = "qga" if node.major >= 9 else "qmp"
        node.say(f"QEMU Guest Agent is not running - VM {vmid} {socket} command 'guest-ping' failed - got timeout")
    if node.machinery:
        obeyed = node.machinery.power_button(node, vmid, wants_agent and answers, seconds)
    else:
        obeyed = bool(guest.get("acpi", True) or (wants_agent and answers))
    if obeyed:
        ended(node, vmid)
    elif force:
        node.say("VM still running - terminating now with SIGTERM")
        if node.machinery:
            node.machinery.end(node, vmid)
        ended(node, vmid)
    else:
        raise Die("VM quit/powerdown failed - got timeout")


def reboot(node: Node, vmid: int, seconds: int = SHUTDOWN_SECONDS) -> None:
    config = load(node, vmid)
    check_lock(config)
    _ask_to_end(node, config, vmid, False, seconds)
    start(node, vmid)


def reset(node: Node, vmid: int) -> None:
    check_lock(load(node, vmid))
    _require_running(node, vmid)
    if node.machinery:
        node.machinery.reset(node, vmid)


def suspend(node: Node, vmid: int, to_disk: bool) -> None:
    config = load(node, vmid)
    check_lock(config)
    _require_running(node, vmid)
    if to_disk and any(re.fullmatch(r"hostpci\d+", key) for key in config.active):
        raise Die(
            "cannot suspend VM to disk due to passed-through PCI device(s), which lack the possibility to save/restore "
            "their internal state"
        )
    _set_paused(node, vmid, True)


def resume(node: Node, vmid: int) -> None:
    load(node, vmid)
    _require_running(node, vmid)
    _set_paused(node, vmid, False)


def _set_paused(node: Node, vmid: int, paused: bool) -> None:
    if node.machinery:
        node.machinery.pause(node, vmid, paused)
    state = node.state()
    state.setdefault("running", {}).setdefault(str(vmid), {})["paused"] = paused
    node.world.save_state(state)


def _require_running(node: Node, vmid: int) -> None:
    if not is_running(node, vmid):
        raise Die(f"VM {vmid} not running", 2)


# -- status ---------------------------------------------------------------------------------------


def status(node: Node, vmid: int, full: bool) -> dict[str, Any]:
    """One row of `qm list` and /nodes/N/qemu; with `full` what …/status/current adds but `agent` and `ha`."""
    values = load(node, vmid).active
    pid = pid_of(node, vmid)
    wanted = int(values.get("sockets", "1")) * int(values.get("cores", "1"))
    row: dict[str, Any] = {
        "vmid": vmid,
        "name": values.get("name", f"VM {vmid}"),
        "status": "running" if pid else "stopped",
        "cpu": 0,
        "cpus": min(int(values.get("vcpus", wanted)), host_cpus(node) or wanted),
        "disk": 0,
        "maxdisk": _boot_disk_size(node, values),
        "mem": 0,
        "maxmem": int(options_of(node, "memory", values.get("memory", "512")).get("current", "512")) << 20,
        "netin": 0,
        "netout": 0,
        "uptime": now() - int(running_with(node, vmid).get("since", now())) if pid else 0,
    }
    if "tags" in values:
        row["tags"] = values["tags"]
    if values.get("template") == "1":
        row["template"] = 1
    if "lock" in values:
        row["lock"] = values["lock"]
    if node.major >= 9:
        row["memhost"] = 0
    if pid:
        row |= {"pid": pid}
        if node.major >= 9:
            row |= {f"pressure{kind}{part}": 0 for kind in ("cpu", "io", "memory") for part in ("full", "some")}
    if full:
        row["qmpstatus"] = _qmp_status(node, vmid, pid)
    return row


def _qmp_status(node: Node, vmid: int, pid: int) -> str:
    if not pid:
        return "stopped"
    return "paused" if running_with(node, vmid).get("paused") else "running"


def current(node: Node, vmid: int) -> dict[str, Any]:
    """GET …/status/current"""
    values = load(node, vmid).active
    row = status(node, vmid, True)
    row["ha"] = _ha(node, vmid)
    if options_of(node, "agent", values.get("agent", "0")).get("enabled") == "1":
        row["agent"] = 1
    if "vga" in values:
        row["clipboard"] = options_of(node, "vga", values["vga"]).get("clipboard")
    return row


def _ha(node: Node, vmid: int) -> dict[str, Any]:
    found = ha.resource(node, vmid)
    if found is None:
        return {"managed": 0}
    extra = {} if node.major >= 9 else {"group": found.values.get("group")}
    return {"managed": 1, "state": found.values.get("state"), **extra}


def _boot_disk_size(node: Node, values: dict[str, str]) -> int:
    """Size in bytes of the first disk of the boot order, 0 without one."""
    order = options_of(node, "boot", values.get("boot", "")).get("order", "")
    for device in re.split(r"[;,\s]+", order):
        cdrom = "media=cdrom" in values.get(device, "media=cdrom")
        if re.fullmatch(r"(ide|sata|scsi|virtio)\d+", device) and not cdrom:
            return storage.bytes_of(options_of(node, device, values[device]).get("size", "0"))
    return 0


def listed(node: Node, full: bool = False) -> list[dict[str, Any]]:
    return [status(node, vmid, full) for vmid in vmids(node)]


def usb_in_guest(node: Node, vmid: int) -> list[str]:
    """`vvvv:dddd` of the host's USB devices that a running guest has: those plugged in that its entries name."""
    config = running_with(node, vmid).get("config", {}) | load(node, vmid).active
    present = inventory.usb_devices(node)
    found = []
    for key in sorted(key for key in config if re.fullmatch(r"usb\d+", key)):
        options = options_of(node, key, config[key])
        wanted = options.get("host", "")
        if "mapping" in options:
            _, maps = mappings.node_maps(node, "usb", options["mapping"])
            wanted = maps[0].get("path", maps[0]["id"]) if maps else ""
        for usb in present:
            identity = f"{usb['vendid']}:{usb['prodid']}"
            if wanted and wanted.lower().replace("0x", "") in (identity, f"{usb['busnum']}-{usb.get('usbpath')}"):
                found.append(identity)
    return found
