"""Options that say what a new guest shall be, shared by `vm create`, `plan` and `up`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ...model.facts import Facts
    from ...planning.guest_wanted import Wanted

_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option("--name", metavar="NAME", help="Its name (default: profile and number)."),
    click.option("--storage", metavar="STORAGE", help="Where its disks are made (default: the only one for images)."),
    click.option("--disk", metavar="SIZE", help="Size of its disk: 64G, 1T."),
    click.option("--memory", type=click.IntRange(1), metavar="MIB", help="Memory in MiB, all of it taken at start."),
    click.option("--cores", type=click.IntRange(1), metavar="N", help="Processors."),
    click.option("--iso", metavar="VOLUME", help="ISO to install from: local:iso/win11.iso"),
    click.option("--virtio-iso", metavar="VOLUME", help="ISO of Windows' VirtIO drivers, or none (default: newest)."),
    click.option("--bridge", metavar="BRIDGE", help="Bridge of its network card (default: vmbr0)."),
    click.option("--vlan", type=click.IntRange(1, 4094), metavar="TAG", help="VLAN of its network card."),
    click.option("--bios", type=click.Choice(("ovmf", "seabios")), help="Firmware (default: ovmf, which is UEFI)."),
    click.option("--secure-boot/--no-secure-boot", default=None, help="Microsoft's keys in its firmware (by profile)."),
    click.option("--tpm/--no-tpm", default=None, help="A TPM 2.0 (default: for Windows)."),
    click.option("--cloud-image", metavar="IMAGE", help="Disk image with cloud-init: a volume or a path of the host."),
    click.option("--cloud-init", is_flag=True, help="A cloud-init drive without an image."),
    click.option("--user", metavar="NAME", help="User that cloud-init makes."),
    click.option("--ssh-key", metavar="FILE", help="File of the host with public keys for that user."),
    click.option("--ip", metavar="ADDRESS", help="dhcp (the default) or ADDRESS/LENGTH,gw=ADDRESS, by cloud-init."),
    click.option("--numa-of", metavar="DEVICE", help="Bind processors and memory to this device's memory node."),
    click.option("--hugepages", type=click.Choice(("2", "1024")), help="Back its memory with pages of 2 or 1024 MiB."),
)  # fmt: skip


_NAMES = (
    "name", "storage", "disk", "memory", "cores", "iso", "virtio_iso", "bridge", "vlan", "bios", "secure_boot", "tpm",
    "cloud_image", "cloud_init", "user", "ssh_key", "ip", "numa_of", "hugepages",
)  # fmt: skip


def guest_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of the above, handed over as one `guest`: name and value of those that were given."""

    @functools.wraps(command)
    def told(*args: Any, **values: Any) -> Any:
        asked = {name: values.pop(name) for name in _NAMES}
        asked["cloud_init"] = asked["cloud_init"] or None
        return command(*args, guest={name: value for name, value in asked.items() if value is not None}, **values)

    decorated: Callable[..., Any] = told
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def wanted(facts: Facts, guest: Mapping[str, Any], vmid: int | None, words: Sequence[str] = ()) -> Wanted:
    """What was asked for. `words`: the devices that the guest is made for."""
    from ...app import pci_words, resolve
    from ...planning.guest_wanted import Wanted

    named = dict(guest)
    if "numa_of" in named:
        named["numa_of"] = resolve(facts, (named["numa_of"],))[0]
    return Wanted(vmid=vmid, devices=resolve(facts, pci_words(facts, words)), **named)


def spelled(guest: Mapping[str, Any]) -> str:
    """The options as they were typed: `--memory --secure-boot`."""
    return " ".join(f"--{'no-' if value is False else ''}{name.replace('_', '-')}" for name, value in guest.items())
