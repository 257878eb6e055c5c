"""A guest that borrows the card on which the host shows its console: handed over at its start, taken back after it.

1. Pure. The choice is the person's; nothing here is ever chosen because it would fit.
2. What the plan leaves behind is one file of ours, which names the functions; the guest's hook reads it.
   Its undo is deletion, and no reboot is needed either way.
3. A card that no driver of the host drives is not lent: nothing could show the console on it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Exit, Failure
from ..knowledge.framebuffers import broken_build, framebuffer, unbinding
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.lent import lent_file, lent_text
from ..model.own import LENT
from ..model.pci import Device
from ..model.plan import Cell, Change
from ..model.wish import LendDisplay, Wish
from .choose import shows_console


def lent_card(facts: Facts, devices: Sequence[Device], vmid: int) -> list[Device]:
    """Those of `devices` that are on the card which shows the console.

    Raises Failure when there is none, or when the host could not take its display back.
    """
    slots = {device.address.slot for device in devices if shows_console(facts, device)}
    card = [device for device in devices if device.address.slot in slots]
    if not card:
        raise Failure(
            "lend.no-console", "Nothing was planned: the host does not show its console on what was named.",
            f"console: {facts.display.console_owner or 'on no PCI display'}",
            hint="Leave --lend-display away: other cards are given without it.", code=Exit.USAGE,
        )  # fmt: skip
    for device in () if _stands(facts, card, vmid) else card:
        _refuse_unlendable(facts, device)
    return card


def lend(facts: Facts, card: Sequence[Device], vmid: int) -> tuple[LendDisplay, ...]:
    """The wish that guest `vmid` borrows these functions; none when it does already."""
    if not card or _stands(facts, card, vmid):
        return ()
    why = f"guest {vmid} borrows the host's display: {', '.join(map(str, card))}"
    return (LendDisplay(vmid, _lines(card), why),)


def _lines(card: Iterable[Device]) -> tuple[str, ...]:
    return tuple(f"{device.address} {device.id}" for device in card)


def _stands(facts: Facts, card: Sequence[Device], vmid: int) -> bool:
    return facts.files.get(lent_file(vmid)) == lent_text(vmid, _lines(card))


def _refuse_unlendable(facts: Facts, device: Device) -> None:
    if "?" in device.id:
        raise Failure("lend.unknown", f"Nothing was planned: what {device.address} is could not be read.")
    if not device.is_display:
        return
    if device.driver == "vfio-pci":
        raise Failure(
            "lend.claimed", f"Nothing was planned: vfio-pci holds {device} already; the host has no display to lend.",
            hint="Take the claim at boot back first (pve-passthrough undo), or leave --lend-display away.",
            code=Exit.REFUSED,
        )  # fmt: skip
    shown = framebuffer(facts.display.framebuffer or "")
    if not device.driver or (shown is not None and shown.firmware):
        what = f"the firmware's framebuffer ({facts.display.framebuffer})" if shown else "no driver of the host"
        raise Failure(
            "lend.no-driver", f"Nothing was planned: {what} shows the console on {device}, and once it is gone "
            "nothing could show it again before the next start.",
            f"driver of {device.address}: {device.driver or 'none'}", f"fb0: {facts.display.framebuffer or 'unknown'}",
            hint="Let the card's own driver show the console (nouveau, amdgpu, i915; nvidia with nvidia-drm.modeset=1 "
            "and fbdev=1), or leave --lend-display away and have the card claimed at boot.", code=Exit.REFUSED,
        )  # fmt: skip
    if row := broken_build(device.driver, facts.kernel.release):
        raise Failure(
            "lend.broken-kernel", f"Nothing was planned: kernel {facts.kernel.release} crashes when {row.driver} lets "
            "go of a card.",
            f"source: {row.source}", hint="Start another kernel: proxmox-boot-tool kernel list.", code=Exit.REFUSED,
        )  # fmt: skip


def changes(facts: Facts, wishes: Iterable[Wish]) -> tuple[Change, ...]:
    """The file of each such wish, and its directory where that is missing. Raises Failure when nobody could tell."""
    lending = [wish for wish in wishes if isinstance(wish, LendDisplay)]
    found: list[Change] = []
    directory = LENT.rpartition("/")[0]
    for wish in lending:
        path = lent_file(wish.vmid)
        if f"{directory}/" not in facts.files or facts.gap(f"files.{path}"):
            gap = facts.gap(f"files.{path}") or facts.gap(f"files.{directory}/") or facts.gap("files")
            reason = gap.reason if gap else "not answered"
            raise Failure("plan.unknown", f"Nothing was planned: what {path} holds is unknown.", f"{path}: {reason}")
        if facts.files[f"{directory}/"] is None and not found:
            found.append(Change(Cell("dir", directory), None, "directory", "holds the new file"))
        before, after = facts.files.get(path), lent_text(wish.vmid, wish.functions)
        if before != after:
            found.append(Change(Cell("file", path), before, after, wish.why))
    return tuple(found)


def risks(facts: Facts, wishes: Iterable[Wish]) -> list[Finding]:
    """What people should know before they lend: the screen is dark meanwhile, and what the driver is known for."""
    found: list[Finding] = []
    for wish in wishes:
        if isinstance(wish, LendDisplay):
            found.append(_dark(facts, wish))
            drivers = {device.driver for device in facts.devices if f"{device.address} {device.id}" in wish.functions}
            found += [
                Finding("plan.unbinding", Level.HARMS, f"vm:{wish.vmid}", f"{row.says[0].upper()}{row.says[1:]}.",
                        (f"source: {row.source}",), Actor.NOBODY)
                for driver in sorted(filter(None, drivers)) if (row := unbinding(driver)) is not None
            ]  # fmt: skip
    return found


def _dark(facts: Facts, wish: LendDisplay) -> Finding:
    serial = "" if facts.display.serial_console is None else (
        " A serial console is set up." if facts.display.serial_console else " There is no serial console."
    )  # fmt: skip
    return Finding(
        "plan.display-lent", Level.NOTE, f"vm:{wish.vmid}",
        "The host's screen is dark while the guest runs, and its display manager is stopped for that time: whoever is "
        f"logged in there is logged out. SSH stays.{serial}",
        tuple(wish.functions), Actor.NOBODY,
    )  # fmt: skip
