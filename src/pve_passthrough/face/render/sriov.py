"""Virtual functions for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...model.pci import NO_GROUP
from ..printable import printable
from .data import FORMAT, gaps

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.sriov import Physical, Virtual
    from ...model.facts import Facts

Values = dict[str, Any]


def listed_data(facts: Facts, found: Sequence[Physical], next_step: str) -> Values:
    return {
        "format": FORMAT,
        "host": facts.host,
        "functions": [_physical_data(one) for one in found],
        "gaps": gaps(facts),
        "next": next_step,
    }


def _physical_data(one: Physical) -> Values:
    device = one.device
    return {
        "address": str(device.address),
        "id": device.id,
        "name": device.name or None,
        "driver": device.driver,
        "interface": one.interface or None,
        "total": device.sriov_total,
        "active": device.sriov_active,
        "at_boot": one.at_boot,
        "trouble": one.trouble or None,
        "virtual": [_virtual_data(one, virtual) for virtual in one.vfs],
    }


def _virtual_data(one: Physical, virtual: Virtual) -> Values:
    device, settings = virtual.device, virtual.settings
    return {
        "index": virtual.index,
        "address": str(device.address),
        "id": device.id,
        "group": None if device.iommu_group in (None, NO_GROUP) else device.iommu_group,
        "driver": device.driver,
        "mac": settings.mac,
        "vlan": settings.vlan,
        "trust": settings.trust,
        "spoofcheck": settings.spoofcheck,
        "link": settings.link,
        "held": settings.held,
        "settings_known": one.known,
        "guests": list(virtual.guests),
        "uses": list(virtual.uses),
    }


def listed(out: Console, found: Sequence[Physical], next_step: str) -> None:
    """Per physical function: how many, whether it can, a table of what it has; then what to do next."""
    from rich.text import Text

    if not found:
        out.print("No function of this machine can have virtual functions.")
        out.print(
            Text(
                "SR-IOV must be switched on in the firmware's setup, and for some cards in the card's own.", style="dim"
            )
        )
    for one in found:
        device = one.device
        out.print(Text(printable(str(device)), style="bold"))
        out.print(f"  {_counted(one)}", soft_wrap=True)
        if one.trouble:
            out.print(Text(f"  cannot make them now: {printable(one.trouble)}", style="yellow"))
        if one.vfs:
            _table(out, one)
    if next_step:
        out.print(Text.assemble(("\n→ next: ", "bold cyan"), printable(next_step)))


def _counted(one: Physical) -> str:
    device = one.device
    words = [f"{'?' if device.sriov_active is None else device.sriov_active} of {device.sriov_total} virtual functions"]
    words.append({None: "none at the next start by us", -1: "our file for the next start cannot be read"}.get(
        one.at_boot, f"{one.at_boot} at every start"
    ))  # fmt: skip
    words.append(f"driver {printable(device.driver)}" if device.driver else "no driver")
    words += [f"interface {printable(one.interface)}"] if one.interface else []
    return ", ".join(words)


def _table(out: Console, one: Physical) -> None:
    from rich.padding import Padding
    from rich.table import Table

    card = bool(one.interface)
    titles = ["", "address", "group", "driver", *(("MAC", "enforced") if card else ()), "for"]
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=title not in ("for", "enforced"))
    for virtual in one.vfs:
        device = virtual.device
        group = {None: "?", NO_GROUP: "none"}.get(device.iommu_group, str(device.iommu_group))
        driver = "?" if device.driver is None else printable(device.driver) or "–"
        row = [str(virtual.index), str(device.address), group, driver]
        table.add_row(*row, *(_enforced(one, virtual) if card else ()), _for(virtual))
    out.print(Padding(table, (0, 0, 0, 2)))


def _enforced(one: Physical, virtual: Virtual) -> list[str]:
    from ...app.sriov import shown_mac

    settings = virtual.settings
    if not one.known:
        return ["?", "?"]
    words = [f"VLAN {settings.vlan}"] if settings.vlan else []
    words += ["trusted"] if settings.trust else []
    words += ["no spoof check"] if settings.spoofcheck is False else []
    words += [f"link {settings.link}d"] if settings.link in ("enable", "disable") else []
    return [shown_mac(settings), ", ".join(words) or "–"]


def _for(virtual: Virtual) -> str:
    words = [f"guest {vmid}" for vmid in virtual.guests] + [f"the host: {printable(use)}" for use in virtual.uses]
    return ", ".join(words) or "free"
