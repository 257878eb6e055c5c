"""The good machine with its card on the host's driver, and containers that share it."""

from __future__ import annotations

from typing import Any

from pve_passthrough.model.ct import Ct, DevNode, GivenNode
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.pci import Address

from .worlds import GPU, IGPU, guest, host, with_device

RENDER = "/dev/dri/renderD128"
BY_PATH = "/dev/dri/by-path/pci-0000:01:00.0-render"
NODES = (
    DevNode(RENDER, "c", 226, 128, 0o660, 0, 993, "root", "render", GPU, links=(BY_PATH,)),
    DevNode("/dev/dri/renderD129", "c", 226, 129, 0o660, 0, 993, "root", "render", IGPU),
    DevNode("/dev/ttyUSB0", "c", 188, 0, 0o660, 0, 20, "root", "dialout", Address(0, 0, 0x14, 0), "1-3"),
)
RAW = (
    ("lxc.cgroup2.devices.allow", "c 226:128 rwm"),
    ("lxc.mount.entry", f"{RENDER} dev/dri/renderD128 none bind,optional,create=file"),
)


def ct(number: int = 200, *, running: bool | None = True, raw: tuple[tuple[str, str], ...] = (), **config: str) -> Ct:
    return Ct(number, "pve", {"hostname": "jellyfin", **config}, raw, running=running)


def sharing(*cts: Ct, **more: Any) -> Facts:
    """The guest does not have the card, the host's driver does."""
    known: dict[str, Any] = {
        "devices": with_device(GPU, driver="nvidia"),
        "guests": (guest(drop=("hostpci0",)),),
        "dev_nodes": NODES,
        "own_containers": cts,
    }
    return host(**(known | more))


def given(address: Address, path: str = RENDER, number: int = 200) -> tuple[GivenNode, ...]:
    return (GivenNode(number, path, address),)
