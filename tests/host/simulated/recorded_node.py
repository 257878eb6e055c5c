"""The tree of the node on which the exchanges were recorded, built from its description (`hardware-*.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pve_passthrough.host.simulated.world import World

HOOK = "/var/lib/vz/snippets/hook.sh"
MEMORY_KIB = 24684096
"""MemTotal of the recorded node: 25276514304 bytes, as its /status says."""


def build(directory: Path, shared: Path, major: int, iommu: bool = True) -> World:
    """A world like the recorded node, without any guest."""
    world = World(str(directory))
    hardware = json.loads((shared / "pve" / f"hardware-{'default' if iommu else 'noiommu'}.json").read_text())
    meta = json.loads((shared / "pve" / f"pve{major}.jsonl").read_text().partition("\n")[0])["meta"]
    put_software(world, hardware, meta, major)
    for device in hardware["pci"]:
        put_pci(world, device, hardware["iommu"])
    if hardware["iommu"]:
        world.put("/sys/class/iommu/dmar0/name", "")
    for usb in hardware["usb"]:
        put_usb(world, usb)
    world.put("/usr/share/misc/pci.ids", pci_ids(shared, major))
    return world


def put_software(world: World, hardware: dict[str, Any], meta: dict[str, Any], major: int) -> None:
    node = "pve" if major >= 9 else "pve8"
    for path in (f"nodes/{node}/qemu-server", "mapping", "ha"):
        Path(world.directory, "etc/pve", path).mkdir(parents=True, exist_ok=True)
    world.put_link("/etc/pve/local", f"nodes/{node}")
    world.put_link("/etc/pve/qemu-server", f"nodes/{node}/qemu-server")
    world.put("/etc/hostname", f"{node}\n")
    world.put("/etc/hosts", f"127.0.0.1 localhost\n10.77.0.1 {node}.example.invalid {node}\n")
    world.put("/proc/cmdline", hardware["cmdline"] + "\n")
    world.put("/proc/sys/kernel/osrelease", "6.18.44-fc-v595\n")
    world.put("/proc/meminfo", f"MemTotal:       {MEMORY_KIB} kB\n")
    world.put("/proc/cpuinfo", "".join(f"processor\t: {index}\n" for index in range(hardware["cpus"])))
    world.put("/sys/class/net/vmbr0/ifindex", "2\n")
    world.put(HOOK, "#!/bin/sh\n", 0o755)
    # what stood in for QEMU there looked for no ROM file
    world.put("/usr/share/kvm/nosuch.rom", "a ROM\n")
    natural = {device["id"]: {"driver": device["driver"]} for device in hardware["pci"] if "driver" in device}
    # QEMU there had no firmware that runs: the guests heard no power button and no agent answered
    guests = {str(vmid): {"acpi": False} for vmid in range(700, 706)}
    world.save_machine({"pve": meta["version"], "natural": natural, "guests": guests, "faults": []})
    world.save_state({"next_pid": 1118})


def put_pci(world: World, device: dict[str, Any], iommu: bool) -> None:
    address, real = device["id"], f"/sys/devices/pci0000:00/{device['id']}"
    world.put_link(f"/sys/bus/pci/devices/{address}", f"../../../devices/pci0000:00/{address}")
    subsystem = device.get("sub", f"{device['ven']}:0000").split(":")
    attributes = {
        "vendor": f"0x{device['ven']}",
        "device": f"0x{device['dev']}",
        "class": f"0x{device['class']}",
        "subsystem_vendor": f"0x{subsystem[0]}",
        "subsystem_device": f"0x{subsystem[1]}",
        "driver_override": "(null)",
    }
    attributes |= {"reset": ""} if device.get("reset") else {}
    attributes |= {"boot_vga": str(device["boot_vga"])} if "boot_vga" in device else {}
    for name, text in attributes.items():
        world.put(f"{real}/{name}", f"{text}\n")
    if device.get("bridge"):
        Path(world.directory, real.lstrip("/"), "pci_bus").mkdir()
    if iommu:
        world.put_link(f"{real}/iommu_group", f"../../../kernel/iommu_groups/{device['group']}")
        world.put_link(f"/sys/kernel/iommu_groups/{device['group']}/devices/{address}", f"../../../../{real[5:]}")
    if "driver" in device:
        set_driver(world, address, device["driver"])
    for index, function in enumerate(device.get("vfs", ())):
        world.put_link(f"{real}/virtfn{index}", f"../{function}")
    if "pf" in device:
        world.put_link(f"{real}/physfn", f"../{device['pf']}")
    for kind in device.get("mdev", ()):
        put_mdev_type(world, f"{real}/mdev_supported_types/{kind}", kind)


def put_mdev_type(world: World, base: str, kind: str) -> None:
    about = "low_gm_size: 128MB\nhigh_gm_size: 512MB\nfence: 4\nresolution: 1920x1200\nweight: 4\n"
    for name, text in (("available_instances", "2\n"), ("description", about), ("name", f"{kind}\n"), ("create", "")):
        world.put(f"{base}/{name}", text)


def set_driver(world: World, address: str, driver: str | None) -> None:
    """Bind or release a device by hand, without a write that anybody would remember."""
    old = world.driver_of(address)
    if old is not None:
        world.put_link(f"/sys/bus/pci/drivers/{old}/{address}", None)
    world.put_link(f"/sys/devices/pci0000:00/{address}/driver", None)
    if driver is not None:
        for name in ("bind", "unbind", "new_id", "remove_id"):
            world.put(f"/sys/bus/pci/drivers/{driver}/{name}", "")
        world.put_link(f"/sys/devices/pci0000:00/{address}/driver", f"../../../bus/pci/drivers/{driver}")
        world.put_link(f"/sys/bus/pci/drivers/{driver}/{address}", f"../../../../devices/pci0000:00/{address}")


def put_usb(world: World, usb: dict[str, Any]) -> None:
    vendor, product = usb["id"].split(":")
    attributes = {
        "busnum": usb["bus"],
        "devnum": usb["dev"],
        "idVendor": vendor,
        "idProduct": product,
        "bDeviceClass": usb["class"],
        "speed": usb["speed"],
        "product": usb["product"],
        "manufacturer": usb.get("manufacturer"),
    }
    for name, value in attributes.items():
        if value is not None:
            world.put(f"/sys/bus/usb/devices/{usb['name']}/{name}", f"{value}\n")


def pci_ids(shared: Path, major: int) -> str:
    """The part of pci.ids that the recorded names come from (the file itself is the distribution's, not Proxmox')."""
    for line in (shared / "pve" / f"pve{major}.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("id") == "info-018":
            return render_pci_ids(json.loads(row["stdout"]))
    raise AssertionError("the recording lacks the inventory with names")


def render_pci_ids(devices: list[dict[str, Any]]) -> str:
    vendors: dict[str, str] = {}
    names: dict[str, dict[str, str]] = {}
    subsystems: dict[str, set[str]] = {}
    for device in devices:
        vendor, product = device["vendor"][2:], device["device"][2:]
        vendors[vendor] = device["vendor_name"]
        names.setdefault(vendor, {})[product] = device["device_name"]
        if "subsystem_vendor_name" in device:
            vendors[device["subsystem_vendor"][2:]] = device["subsystem_vendor_name"]
        if "subsystem_device_name" in device:
            ids = f"{device['subsystem_vendor'][2:]} {device['subsystem_device'][2:]}"
            subsystems.setdefault(f"{vendor}:{product}", set()).add(f"\t\t{ids}  {device['subsystem_device_name']}\n")
    text = ""
    for vendor in sorted(vendors):
        text += f"{vendor}  {vendors[vendor]}\n"
        for product, name in sorted(names.get(vendor, {}).items()):
            text += f"\t{product}  {name}\n" + "".join(sorted(subsystems.get(f"{vendor}:{product}", ())))
    return text
