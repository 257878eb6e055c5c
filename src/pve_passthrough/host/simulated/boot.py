"""Switching on: from the loader's entry to drivers in place. The laws of motion of a boot.

1. The command line is what was generated last; the initramfs is the copy made last; the root file system is as it is.
2. Before the root is mounted: devices get their modules by alias, from the modules inside the image, under the image's
   own modprobe.d; then the image's module list is loaded (initramfs-tools 0.142, init: init-top with udev, then
   load_modules). Afterwards the same with the root's configuration: devices first, then modules-load.d. systemd does
   the two in parallel; the order that favours no claim is taken, so what works here does not depend on luck.
3. Lost at every start: dynamic ids, driver_override, sysfs settings, /run, running guests.
4. A machine that cannot start says so: `state.json` has `down` with the reason, and answers nothing until it is helped.
5. Guests with onboot start after the boot units; a unit of ours that is due holds them back until `finish_boot`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any

from . import bars, display, dkms, initramfs, journal, kernel, loaders, mediated, modprobe, sriov, udev, zfs
from .world import DEVICES, DRIVERS, World, denied

SURVIVES = frozenset({"tasks", "boots", "journal"})
"""Keys of state.json that a start keeps; everything else is volatile."""

MODULES_LOAD = (
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
)
OUR_UNIT = "pve-passthrough"
OTHER_UNITS = "pve-passthrough-sriov-"
"""Units that run this program at a start, after the one for unfinished runs and before guests start."""


def power_cut(world: World) -> None:
    """The plug is pulled and put back: nothing is shut down, everything volatile is gone."""
    power_on(world)


def power_on(world: World, cmdline: str | None = None) -> None:
    """Start the machine. `cmdline`: arguments typed at the boot menu instead of the entry's own."""
    _forget(world)
    entry = loaders.next_entry(world)
    if entry is None:
        _down(world, "the firmware found nothing to start")
        return
    line = entry.cmdline if cmdline is None else cmdline
    image = initramfs.open_image(entry.image)
    if image is None:
        _down(world, f"Kernel panic: no initramfs for {entry.release}")
        return
    machine = world.machine()
    world.put("/proc/cmdline", line + "\n")
    world.put("/proc/sys/kernel/osrelease", entry.release + "\n")
    world.put("/proc/version", f"Linux version {entry.release} (build@proxmox)\n")
    world.put("/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
    log = _iommu(world, machine, line, entry.release)
    booted = _Booting(world, machine, line)
    booted.built_in()
    booted.initramfs(image)
    trouble = _root_trouble(machine, line, booted)
    if trouble:
        booted.settle()
        _down(world, trouble)
        return
    booted.root()
    booted.settle()
    zfs.at_boot(world)
    state = world.state()
    state["dmesg"] = [f"Linux version {entry.release}", f"Command line: {line}", *log, *booted.log]
    state["boots"] = state.get("boots", 0) + 1
    state["boot_unit_due"] = _unit_due(world)
    world.save_state(state)
    udev.trigger(world)
    display.settle(world, fresh=True)
    mediated.after_boot(world)
    _unpin(world)
    if not state["boot_unit_due"]:
        _start_ours(world)
        start_guests(world)


def finish_boot(world: World) -> None:
    """The boot unit has done its work: now the guests start (it is ordered before pve-guests.service)."""
    state = world.state()
    if state.pop("boot_unit_due", False):
        state["boot_unit_due"] = False
        world.save_state(state)
        _start_ours(world)
        start_guests(world)


def _forget(world: World) -> None:
    for name in world.names("/run/qemu-server"):
        if name.endswith(".pid") and (pid := (world.text(f"/run/qemu-server/{name}") or "").strip()).isdecimal():
            world.forget_process(int(pid))
    sriov.power_off(world)
    state = world.state()
    for path, text in state.get("attributes", {}).items():
        if world.exists(path):
            world.put(path, text)
    kept = {**state, "journal": journal.put_away(state)}
    world.save_state({key: value for key, value in kept.items() if key in SURVIVES})
    run = world.tree.real("/run")
    for name in os.listdir(run) if os.path.isdir(run) else ():
        place = f"{run}/{name}"
        shutil.rmtree(place) if os.path.isdir(place) and not os.path.islink(place) else os.unlink(place)
    world.make_dir("/run/lock")
    world.make_dir("/run/qemu-server")


def _down(world: World, reason: str) -> None:
    state = world.state()
    state["down"] = reason
    world.save_state(state)


def _root_trouble(machine: dict[str, Any], line: str, booted: _Booting) -> str:
    """Why the root would not be found: no root argument, or its controller has no disk driver."""
    root = machine.get("root", "root=")
    if not any(word.startswith(root) for word in line.split()):
        return f"initramfs: no {root} on the kernel command line, dropping to a shell"
    for address in machine.get("root_devices", ()):
        natural = machine.get("natural", {}).get(address, {}).get("driver")
        holder = booted.holder.get(address)
        if holder != natural:
            held = holder or "no driver"
            return f"initramfs: ALERT! the root does not exist ({address} is held by {held}), dropping to a shell"
    return ""


# -- IOMMU -----------------------------------------------------------------------------------


def iommu_on(machine: dict[str, Any], tables: tuple[str, ...], line: str, release: str) -> bool:
    """Intel: a DMAR table, and intel_iommu=on or a kernel that has it on when nobody told it off. AMD: an IVRS table.

    The table decides, not the processor: in a virtual machine they need not be of one maker (seen in QEMU).
    Sources: Proxmox administration guide (on by default from 6.8); CONFIG_INTEL_IOMMU_DEFAULT_ON (`iommu_by_default` of
    a machine whose kernels are built otherwise, as Debian's 6.1 is); kernel-parameters.txt, intel_iommu= and amd_iommu=
    (`amd_iommu=on` is no option and does nothing), iommu=off.
    """
    words = line.split()
    if not machine.get("firmware", {}).get("iommu", True) or "iommu=off" in words:
        return False
    if "DMAR" not in tables:
        return "IVRS" in tables and "amd_iommu=off" not in words
    said = [option for word in words if word.startswith("intel_iommu=") for option in word[12:].split(",")]
    switches = [option for option in said if option in ("on", "off")]
    if switches:
        return switches[-1] == "on"
    by_version = initramfs.release_key(release)[:2] >= ((6, ""), (8, ""))
    return bool(machine.get("iommu_by_default", by_version))


def _iommu(world: World, machine: dict[str, Any], line: str, release: str) -> list[str]:
    """Lay down or take away groups and units; returns what the kernel says about it."""
    tables = world.names("/sys/firmware/acpi/tables")
    on, intel = iommu_on(machine, tables, line, release), "DMAR" in tables
    groups = _groups(machine, line) if on else {}
    _show_units(world, on)
    _show_groups(world, groups, line)
    said = ["DMAR: IOMMU enabled"] if intel and any(word.startswith("intel_iommu=on") for word in line.split()) else []
    if on:
        remapped = "intremap=off" not in line.split()
        if remapped:
            said.append(
                "DMAR-IR: Enabled IRQ remapping in x2apic mode" if intel else "AMD-Vi: Interrupt remapping enabled"
            )
        said += [
            f"pci {address}: Adding to iommu group {number}"
            for address, number in sorted(groups.items(), key=lambda one: one[1])
        ]
    return said


def _groups(machine: dict[str, Any], line: str) -> dict[str, int]:
    groups: dict[str, int] = dict(machine.get("groups", {}))
    override = [word[len("pcie_acs_override=") :] for word in line.split() if word.startswith("pcie_acs_override=")]
    if override and ("downstream" in override[-1] or "id:" in override[-1]):
        groups.update(machine.get("groups_acs", {}))
    return groups


def _show_units(world: World, on: bool) -> None:
    virtual = world.names("/sys/devices/virtual/iommu")
    units = {name: f"../../devices/virtual/iommu/{name}" for name in virtual}
    for address in world.addresses():
        for name in world.names(f"{DEVICES}/{address}/iommu"):
            home = world.device_directory(address).removeprefix("/sys/")
            units[name] = f"../../{home}/iommu/{name}"
    world.make_dir("/sys/class/iommu")
    for name, target in units.items():
        world.put_link(f"/sys/class/iommu/{name}", target if on else None)


def _show_groups(world: World, groups: dict[str, int], line: str) -> None:
    words = line.split()
    kind = "identity" if "iommu=pt" in words or "iommu.passthrough=1" in words else "DMA-FQ"
    place = "/sys/kernel/iommu_groups"
    world.make_dir(place)
    wanted = {str(number) for number in groups.values()}
    for name in world.names(place):
        if name not in wanted:
            shutil.rmtree(world.tree.real(f"{place}/{name}"))
    for name in wanted:
        world.put(f"{place}/{name}/type", kind + "\n")
        world.put(f"{place}/{name}/reserved_regions", _reserved(world, name, words))
    for address in world.addresses():
        home = world.device_directory(address)
        number = groups.get(address)
        target = None if number is None else "../" * (home.count("/") - 1) + f"kernel/iommu_groups/{number}"
        before = world.link(f"{home}/iommu_group")
        if before == target:
            continue
        if before is not None:
            _unlist(world, before.rpartition("/")[2], address)
        world.put_link(f"{home}/iommu_group", target)
        if number is not None:
            world.put_link(f"{place}/{number}/devices/{address}", f"../../../../{home.removeprefix('/sys/')}")


def _reserved(world: World, group: str, words: list[str]) -> str:
    """The interrupts' window, and what the firmware wants mapped one to one; told to relax, the kernel takes that wish
    for no more than one (Proxmox kernel patch 0009; ABI/testing/sysfs-kernel-iommu_groups)."""
    lines = [*world.machine().get("reserved", {}).get(group, ()), "0x00000000fee00000 0x00000000feefffff msi"]
    relaxed = any(w.startswith("intel_iommu=") and "relax_rmrr" in w[12:].split(",") for w in words)
    text = "".join(f"{line}\n" for line in lines)
    return text.replace(" direct\n", " direct-relaxable\n") if relaxed else text


def _unlist(world: World, number: str, address: str) -> None:
    if world.exists(f"/sys/kernel/iommu_groups/{number}"):
        world.put_link(f"/sys/kernel/iommu_groups/{number}/devices/{address}", None)


# -- drivers ---------------------------------------------------------------------------------


class _Booting:
    """The kernel while it starts: who holds what, in memory; `settle` writes the outcome down."""

    def __init__(self, world: World, machine: dict[str, Any], line: str) -> None:
        self.world = world
        self.machine = machine
        self.line = line
        self.natural: dict[str, dict[str, Any]] = machine.get("natural", {})
        self.addresses = world.addresses()
        self.ids = {address: world.id_of(address) for address in self.addresses}
        self.holder: dict[str, str | None] = dict.fromkeys(self.addresses)
        self.override: dict[str, str] = {}
        self.dynamic: dict[str, list[str]] = {}
        self.registered: list[str] = []
        self.loaded: list[str] = []
        self.log: list[str] = []
        self.options: dict[str, str] = {}
        self.drivers = kernel.drivers_of(machine)

    def built_in(self) -> None:
        """Drivers that are part of the kernel bind while it looks for devices."""
        for natural in self.natural.values():
            if not natural.get("module"):
                self._register(natural["driver"])

    def initramfs(self, image: dict[str, Any]) -> None:
        for address, wanted in initramfs.claims(image):
            if address in self.ids and self.ids[address].replace(" ", ":") == wanted.lower():
                self.override[address] = "vfio-pci"
        for address, wanted, index, power in initramfs.resizes(image):
            if self.ids.get(address, "").replace(" ", ":") == wanted.lower():
                self.log += bars.at_boot(self.world, address, index, power, self.holder[address])
        available = frozenset(image["modules"])
        loader = self._loader(modprobe.parse(image["modprobe"].values(), self.line), available)
        self._by_alias(loader)
        for line in initramfs.list_lines(image["list"]):
            name, _, options = line.partition(" ")
            loader.load(name, options)

    def root(self) -> None:
        files = modprobe.config_files(self.world)
        known = kernel.known_modules(self.machine) - dkms.refused(self.world)
        loader = self._loader(modprobe.parse(files.values(), self.line), known)
        loader.load("kvm")
        loader.load("kvm_amd" if self.machine.get("cpu", {}).get("vendor") == "AuthenticAMD" else "kvm_intel")
        self._by_alias(loader)
        for name in self._listed():
            before = len(loader.loaded)
            loader.by_alias(name)
            if len(loader.loaded) == before and modprobe.plain(name) not in loader.available:
                self.log.append(f"systemd-modules-load: Failed to find module '{name}'")

    def settle(self) -> None:
        """Write drivers, bindings, overrides and modules into the tree."""
        for address in self.addresses:
            self.world.place(address, self.holder[address])
            path = f"{DEVICES}/{address}/driver_override"
            wanted = self.override.get(address, "(null)") + "\n"
            if self.world.text(path) != wanted:
                self.world.put(path, wanted)
        for driver in self.world.names(DRIVERS):
            if driver not in self.registered:
                shutil.rmtree(self.world.tree.real(f"{DRIVERS}/{driver}"))
        for driver in self.registered:
            self.world.register_driver(driver)
        kernel.list_modules(self.world, self.loaded)
        self._parameters()
        state = self.world.state()
        state["dynamic_ids"] = self.dynamic
        self.world.save_state(state)

    def _loader(self, config: modprobe.Config, available: frozenset[str]) -> modprobe.Loader:
        return modprobe.Loader(config, available, self.loaded, self._insert)

    def _insert(self, module: str, options: str) -> None:
        self.options[module] = options
        driver = self.drivers.get(module)
        if driver is None:
            return
        if module == "vfio_pci":
            known = list(dict.fromkeys(modprobe.vfio_ids(options)))
            self.dynamic.setdefault(driver, []).extend(known)
        self._register(driver)

    def _register(self, driver: str) -> None:
        if driver in self.registered:
            return
        self.registered.append(driver)
        for address in self.addresses:
            if self.holder[address] is None and self._fits(driver, address):
                self.holder[address] = driver

    def _fits(self, driver: str, address: str) -> bool:
        """The same law as World.fits, before anything is written."""
        if driver == "vfio-pci" and denied(self.ids[address], self.options.get("vfio_pci", "")):
            return False
        if address in self.override:
            return self.override[address] == driver
        if self.ids[address] in self.dynamic.get(driver, ()):
            return True
        natural = self.natural.get(address, {})
        return any(entry.get("driver") == driver for entry in (natural, *natural.get("others", ())))

    def _by_alias(self, loader: modprobe.Loader) -> None:
        """udev's coldplug: each device, in order, gets the modules whose alias matches, whoever holds it by then."""
        for address in self.addresses:
            natural = self.natural.get(address, {})
            for entry in (*natural.get("others", ()), natural):
                if entry.get("module"):
                    loader.by_alias(entry["module"])

    def _listed(self) -> list[str]:
        """Modules that modules-load.d asks for: files by name, a name in an earlier directory hides a later one."""
        found: dict[str, str] = {}
        for directory in MODULES_LOAD:
            for name in self.world.names(directory):
                if name.endswith(".conf"):
                    found.setdefault(name, f"{directory}/{name}")
        texts = [self.world.text(path) or "" for _, path in sorted(found.items())]
        listed = [line.split()[0] for text in texts for line in initramfs.list_lines(text)]
        asked = [word[len("modules_load=") :] for word in self.line.split() if word.startswith("modules_load=")]
        return [name for word in asked for name in word.split(",")] + listed

    def _parameters(self) -> None:
        for module in kernel.PARAMETERS:
            if module in self.loaded:
                kernel.show_parameters(self.world, module, self.options.get(module, ""))
            elif self.world.exists(f"/sys/module/{module}"):
                shutil.rmtree(self.world.tree.real(f"/sys/module/{module}"))


# -- after the boot --------------------------------------------------------------------------


def _unit_due(world: World) -> bool:
    """Whether a unit of ours is enabled and its condition holds: then the application resumes before guests start."""
    for target in world.names("/etc/systemd/system"):
        if not target.endswith((".wants", ".requires")):
            continue
        for name in world.names(f"/etc/systemd/system/{target}"):
            due = name.startswith(OUR_UNIT) and not name.startswith(OTHER_UNITS)
            if due and _condition_holds(world, name):
                return True
    return False


def _start_ours(world: World) -> None:
    """Enabled units of ours whose condition holds; what a unit says goes to the log, and a failed one stops nothing."""
    from . import systemd

    wanted = world.names("/etc/systemd/system/multi-user.target.wants")
    for name in wanted:
        if name.startswith(OTHER_UNITS) and _condition_holds(world, name):
            systemd.run_unit(world, name)


def _condition_holds(world: World, name: str) -> bool:
    for directory in (
        "/etc/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ):
        text = world.text(f"{directory}/{name}")
        if text is not None:
            wanted = [
                line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("ConditionPathExists=")
            ]
            return all(world.exists(path) for path in wanted)
    return False


def _unpin(world: World) -> None:
    """A pin for one boot has been used up (proxmox-boot-cleanup.service)."""
    if world.exists(loaders.NEXT_PIN):
        loaders.boot_tool(world, ["kernel", "unpin", "--next-boot"])
        if loaders.managed(world):
            loaders.refresh(world)


def start_guests(world: World) -> None:
    """Guests of this node with `onboot: 1`, lowest number first (startup order is not simulated)."""
    from . import programs

    node = (world.text("/etc/hostname") or "pve").strip()
    for name in sorted(world.names(f"/etc/pve/nodes/{node}/qemu-server"), key=lambda one: (len(one), one)):
        lines = (world.text(f"/etc/pve/nodes/{node}/qemu-server/{name}") or "").split("\n[", 1)[0].splitlines()
        if name.endswith(".conf") and any(line.replace(" ", "") == "onboot:1" for line in lines):
            programs.start(world, ["qm", "start", name.removesuffix(".conf")])
    for name in world.names(f"/etc/pve/nodes/{node}/lxc"):
        head = (world.text(f"/etc/pve/nodes/{node}/lxc/{name}") or "").split("\n[", 1)[0]
        if name.endswith(".conf") and "onboot: 1" in head.splitlines():
            programs.start(world, ["pct", "start", name.removesuffix(".conf")])
