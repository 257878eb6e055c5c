"""Wishes + facts -> plan: which texts change, what is rebuilt from them, what must be true afterwards.

1. Pure: everything comes from the facts, and a file whose text nobody could read is never written.
2. The right file for every loader that may start the host next; when that is unknown, nothing is planned.
3. Every candidate text is proven before it becomes a change; what cannot be proven is refused with the line to type.
4. One refresh of each kind at most, in a fixed order.
5. What earlier runs put into our own files stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..knowledge.guestconfig import entry_functions
from ..knowledge.kernels import INITRAMFS_ROOM
from ..model.facts import Facts, Loader
from ..model.finding import Actor, Finding, Level
from ..model.own import CLAIM_SCRIPT, GRUB_DROP_IN, MODPROBE, MODULES_LOAD
from ..model.pci import Address
from ..model.plan import Cell, Change, Expectation, Plan
from ..model.texts import GRUB_DIR, GRUB_FILE, KERNEL_CMDLINE, MODPROBE_DIR, split_argument, split_cmdline
from ..model.vm import parse_options, same_options
from ..model.wish import ArgAbsent, ArgPresent, BarSize, ClaimByAddress, ClaimById, ModuleOption, Text, VmOption, Wish
from . import bars, claim_script, edit_cmdline, edit_grub, edit_modprobe, hookscript, mappings, single_gpu
from .goals import changeable_guest, unknown
from .proof import Unprovable

if TYPE_CHECKING:
    from datetime import datetime

MEBIBYTE = 1 << 20

TEXT_ROOM = 4 * MEBIBYTE
"""Wanted on /boot before a menu is rewritten: a grub.cfg of some ten KiB, written beside the old one."""

REGROUPING = ("pcie_acs_override", "pci")
"""Arguments that may regroup devices, so that groups are not expected to stay (kernel-parameters.txt)."""

_FILLER = frozenset({"give", "to", "guest", "the", "a", "vm"})


def make_plan(
    facts: Facts,
    wishes: Sequence[Wish],
    *,
    goal: str,
    vmid: int | None = None,
    now: datetime | str,
    machine: str,
) -> Plan:
    """Fold the wishes into one plan; `changes` is empty when all is so already. Raises Failure.

    `now` names the run: a datetime, or text that holds year to second in this order.
    """
    staged = dict(facts.files)
    staged.update({wish.path: wish.text for wish in wishes if isinstance(wish, Text)})
    _stage_arguments(facts, wishes, staged)
    _stage_claims(facts, wishes, staged)
    files = _file_changes(facts, wishes, staged)
    options = _guest_changes(facts, wishes)
    refreshes = _refreshes(facts, files)
    _refuse_broken_refresh(facts, staged, refreshes)
    return Plan(
        id=f"{_stamp(now)}-{_slug(goal)}",
        machine=machine,
        goal=goal,
        wishes=tuple(wishes),
        changes=(*_directories(facts, files), *files, *_beside_the_boot(facts, wishes), *options),
        refreshes=refreshes,
        reboot=bool(files),
        expects=_expectations(facts, wishes, files),
        risks=(
            *_room(facts, refreshes),
            *_new_machine(options),
            *single_gpu.risks(facts, wishes),
            *bars.risks(facts, wishes),
        ),
        way_home=_way_home(facts, wishes, files, refreshes) if files else (),
        vmid=vmid,
    )


def _beside_the_boot(facts: Facts, wishes: Sequence[Wish]) -> tuple[Change, ...]:
    """What is written and changes nothing about the next boot."""
    return (
        *single_gpu.changes(facts, wishes),
        *hookscript.changes(facts, wishes),
        *mappings.changes(wishes),
    )


def _refuse_broken_refresh(facts: Facts, staged: Mapping[str, str | None], refreshes: Sequence[str]) -> None:
    """proxmox-boot-tool demands `root=` in the first line of /etc/kernel/cmdline wherever that file is, even where
    GRUB boots; without it every refresh fails, the one of the way back too. Source: recorded PVE 9.2, and
    system-booting in the Proxmox VE administration guide."""
    if not facts.boot.managed or not refreshes:
        return
    text = staged.get(KERNEL_CMDLINE, facts.files.get(KERNEL_CMDLINE))
    if text is None or any(token.startswith("root=") for token in split_cmdline(text.partition("\n")[0])):
        return
    raise Failure(
        "plan.no-root", f"Nothing was planned: the first line of {KERNEL_CMDLINE} names no root=, so "
        "`proxmox-boot-tool refresh` fails and the next boot cannot be prepared.",
        f"{KERNEL_CMDLINE}:1: {text.partition(chr(10))[0]}",
        hint=f"Put the root= of /proc/cmdline into that line, or remove {KERNEL_CMDLINE} where GRUB boots.",
        code=Exit.REFUSED,
    )  # fmt: skip


def _stamp(now: datetime | str) -> str:
    digits = re.sub(r"\D", "", now if isinstance(now, str) else now.strftime("%Y%m%d%H%M%S"))[:14]
    if len(digits) != 14:
        raise ValueError(f"no time from year to second: {now!r}")
    return f"{digits[:8]}-{digits[8:]}"


def _slug(goal: str) -> str:
    words = [word for word in re.findall(r"[a-z0-9]+", goal.lower()) if word not in _FILLER]
    return "-".join(words)[:40].strip("-") or "plan"


# -- files: common -------------------------------------------------------------------------------


def _text_of(facts: Facts, path: str) -> str | None:
    """A file's text as it is on the machine, None when it is not there. Raises Failure when nobody could tell."""
    if path in facts.files:
        return facts.files[path]
    directory = path.rpartition("/")[0] + "/"
    if directory in facts.files and facts.gap(f"files.{path}") is None:
        return None
    raise unknown(facts, f"files.{path}", f"what {path} holds")


def _file_changes(facts: Facts, wishes: Sequence[Wish], staged: Mapping[str, str | None]) -> tuple[Change, ...]:
    """One change per file whose text differs; the kernel's words first, then the claims."""
    order = (GRUB_FILE, KERNEL_CMDLINE, GRUB_DROP_IN, MODPROBE, CLAIM_SCRIPT, MODULES_LOAD)
    paths = sorted(staged, key=lambda path: (order.index(path) if path in order else -1, path))
    changed = [path for path in paths if staged[path] != _text_of(facts, path)]
    return tuple(
        Change(
            Cell("script" if path == CLAIM_SCRIPT else "file", path),
            _text_of(facts, path),
            staged[path],
            _why(path, wishes),
        )
        for path in changed
    )


def _why(path: str, wishes: Iterable[Wish]) -> str:
    """The reasons of the wishes that this file serves."""
    kinds: tuple[type, ...] = (ArgPresent, ArgAbsent)
    if path in (MODPROBE, MODULES_LOAD, CLAIM_SCRIPT):
        kinds = {MODPROBE: (ClaimById, ModuleOption), CLAIM_SCRIPT: (ClaimByAddress, BarSize)}.get(
            path, (ClaimById, ClaimByAddress)
        )
    own = [wish.why for wish in wishes if isinstance(wish, Text) and wish.path == path]
    return "; ".join(dict.fromkeys(own or [wish.why for wish in wishes if isinstance(wish, kinds)]))


def _directories(facts: Facts, files: Iterable[Change]) -> list[Change]:
    """Parents that are known to be missing."""
    parents = dict.fromkeys(change.cell.name.rpartition("/")[0] for change in files if change.after is not None)
    missing = [path for path in parents if facts.files.get(f"{path}/", "directory") is None]
    return [Change(Cell("dir", path), None, "directory", "holds the new file") for path in missing]


@contextmanager
def _proving(*manual: str) -> Iterator[None]:
    """Turn an unprovable edit into the refusal that shows what to type by hand."""
    try:
        yield
    except Unprovable as error:
        raise Failure(
            "plan.unprovable",
            f"Nothing was planned: the result of editing {error.where.partition(':')[0]} cannot be foretold.",
            f"{error.where}: {error.reason}",
            *manual,
            hint="Make the change by hand as shown, or mend that line; then plan again.",
            code=Exit.REFUSED,
        ) from error


# -- files: the kernel's command line ------------------------------------------------------------


def _stage_arguments(facts: Facts, wishes: Sequence[Wish], staged: dict[str, str | None]) -> None:
    add = tuple(dict.fromkeys(wish.token for wish in wishes if isinstance(wish, ArgPresent)))
    drop = tuple(dict.fromkeys(wish.token for wish in wishes if isinstance(wish, ArgAbsent)))
    if both := set(add) & set(drop):
        raise ValueError(f"wished for and away: {', '.join(sorted(both))}")
    if not add and not drop:
        return
    if not facts.boot.loaders:
        raise _loader_unknown(facts, add, drop)
    if not {Loader.GRUB, Loader.GRUB_ESP}.isdisjoint(facts.boot.loaders):
        _stage_grub(facts, add, drop, staged)
    if Loader.SYSTEMD_BOOT in facts.boot.loaders:
        _stage_cmdline(facts, add, drop, staged)


def _stage_grub(facts: Facts, add: Sequence[str], drop: Sequence[str], staged: dict[str, str | None]) -> None:
    _text_of(facts, GRUB_FILE)
    unread = next((gap for gap in facts.gaps if gap.about.startswith(f"files.{GRUB_DIR}")), None)
    if GRUB_DIR not in facts.files or unread is not None:
        about = unread.about if unread else f"files.{GRUB_DIR}"
        raise unknown(facts, about, f"which settings {GRUB_DIR} adds")
    with _proving(*_manual_grub(add, drop)):
        against = _against(edit_grub.tokens_of(staged), add)
        staged.update(edit_grub.edit(staged, add, (*drop, *against)))


def _stage_cmdline(facts: Facts, add: Sequence[str], drop: Sequence[str], staged: dict[str, str | None]) -> None:
    _text_of(facts, KERNEL_CMDLINE)
    text = staged.get(KERNEL_CMDLINE)
    if text is None:
        raise Failure(
            "plan.no-cmdline",
            f"Nothing was planned: {KERNEL_CMDLINE} is missing, so the boot entries follow the running kernel's words.",
            f"/proc/cmdline: {facts.kernel.cmdline or 'unknown'}", *_manual_cmdline(add, drop),
            hint=f"Write {KERNEL_CMDLINE} by hand: one line with root= and what the host needs.", code=Exit.REFUSED,
        )  # fmt: skip
    with _proving(*_manual_cmdline(add, drop)):
        against = _against(edit_cmdline.tokens_of(text), add)
        staged[KERNEL_CMDLINE] = edit_cmdline.edit(text, add, (*drop, *against))


def _against(standing: Iterable[str], add: Sequence[str]) -> tuple[str, ...]:
    """Words that say the opposite of a wished one: the same argument with `off` where `on` is wished, and back."""
    opposite = {"on": "off", "off": "on"}
    wished = {name: opposite[value] for name, value in map(split_argument, add) if value in opposite}
    pairs = ((token, *split_argument(token)) for token in standing)
    return tuple(token for token, name, value in pairs if wished.get(name, "") in (value or "-").split(","))


def _manual_grub(add: Sequence[str], drop: Sequence[str]) -> list[str]:
    lines = [f"by hand, in {GRUB_FILE}: take {' '.join(drop)} out of every line"] if drop else []
    if add:
        name = edit_grub.DEFAULT
        lines.append(f'by hand, as the last line of {GRUB_FILE}: {name}="${name} {" ".join(add)}"')
    return [*lines, "then: update-grub"]


def _manual_cmdline(add: Sequence[str], drop: Sequence[str]) -> list[str]:
    lines = [f"by hand, in {KERNEL_CMDLINE}: take out {' '.join(drop)}"] if drop else []
    lines += [f"by hand, at the end of the first line of {KERNEL_CMDLINE}: {' '.join(add)}"] if add else []
    return [*lines, "then: proxmox-boot-tool refresh"]


def _loader_unknown(facts: Facts, add: Sequence[str], drop: Sequence[str]) -> Failure:
    gap = facts.gap("boot.loaders") or facts.gap("boot")
    return Failure(
        "plan.loader-unknown", "Nothing was planned: which boot loader starts this host next is unknown.",
        *((f"{gap.about}: {gap.reason}",) if gap else ()),
        "if it is GRUB:", *_manual_grub(add, drop), "if it is systemd-boot:", *_manual_cmdline(add, drop),
        hint="`efibootmgr -v` and `proxmox-boot-tool status` tell which one it is.",
    )  # fmt: skip


# -- files: claims and module options ------------------------------------------------------------


def _stage_claims(facts: Facts, wishes: Sequence[Wish], staged: dict[str, str | None]) -> None:
    by_id = [wish for wish in wishes if isinstance(wish, ClaimById)]
    by_address = [wish for wish in wishes if isinstance(wish, ClaimByAddress)]
    options = [(wish.module, wish.text) for wish in wishes if isinstance(wish, ModuleOption)]
    sizes = {(wish.address, wish.index): (wish.id, wish.size) for wish in wishes if isinstance(wish, BarSize)}
    if not by_id and not by_address and not options and not sizes:
        return
    ids = tuple(dict.fromkeys(identity for wish in by_id for identity in wish.ids))
    before = tuple(dict.fromkeys(module for wish in by_id for module in wish.before))
    if ids:
        _refuse_second_list(facts, ids)
    _refuse_vital(facts, ids, by_address)
    with _proving(*_manual_claims(ids, before, by_address), *bars.manual(wishes)):
        if by_id or options:
            had = _text_of(facts, MODPROBE)
            staged[MODPROBE] = edit_modprobe.edit(had, ids=ids, before=before, options=options)
        if by_address or sizes:
            had = _text_of(facts, CLAIM_SCRIPT)
            staged[CLAIM_SCRIPT] = claim_script.edit(had, {wish.address: wish.id for wish in by_address}, sizes)
    if by_id or by_address:
        staged[MODULES_LOAD] = edit_modprobe.modules_load(_text_of(facts, MODULES_LOAD))
    if any(staged.get(path) != facts.files.get(path) for path in (MODPROBE, CLAIM_SCRIPT)):
        _require_initramfs_tools(facts, [*_manual_claims(ids, before, by_address), *bars.manual(wishes)])


def _require_initramfs_tools(facts: Facts, manual: Sequence[str]) -> None:
    """The script and the refresh are initramfs-tools'; how dracut behaves on Proxmox VE has not been proven."""
    tool = facts.modules.initramfs_tool
    if tool is None:
        raise unknown(facts, "modules.initramfs_tool", "which program builds the initramfs")
    if tool != "initramfs-tools":
        raise Failure(
            "plan.dracut", f"Nothing was planned: a claim at boot needs initramfs-tools, and this host has {tool}.",
            *manual, hint="`apt install initramfs-tools` goes back to Proxmox VE's own choice.", code=Exit.REFUSED,
        )  # fmt: skip


def _refuse_second_list(facts: Facts, ids: Sequence[str]) -> None:
    """Of several `ids=` lists only the last one counts, so ours must be the only one (see edit_modprobe)."""
    foreign = edit_modprobe.foreign_ids(facts.files)
    if foreign:
        raise Failure(
            "plan.ids-elsewhere", "Nothing was planned: another file lists IDs for vfio-pci, and only one list counts.",
            *(f"{where}: ids={','.join(listed)}" for where, listed in foreign.items()),
            hint=f"Add them there by hand: {','.join(ids)}; or take that line away and plan again.", code=Exit.REFUSED,
        )  # fmt: skip


def _refuse_vital(facts: Facts, ids: Sequence[str], by_address: Iterable[ClaimByAddress]) -> None:
    """A claim at boot that took the host's own disk or network would leave a host that nobody can reach."""
    all_ids = {*ids, *edit_modprobe.own_ids(facts.files.get(MODPROBE))} if ids else set()
    addresses = {wish.address for wish in by_address}
    for device in facts.devices:
        vital = [use for use in facts.uses_of(device.address) if use.vital]
        if vital and (device.id in all_ids or device.address in addresses):
            raise Failure(
                "plan.vital", f"Nothing was planned: the claim at boot would take {device} from the host.",
                *(f"{use.kind.value}: {use.detail}" for use in vital),
                hint="Nothing overrides this.", code=Exit.REFUSED,
            )  # fmt: skip


def _manual_claims(ids: Sequence[str], before: Sequence[str], by_address: Iterable[ClaimByAddress]) -> list[str]:
    lines = [f"{MODPROBE}: options vfio-pci ids={','.join(ids)}"] if ids else []
    lines += [f"{MODPROBE}: softdep {module} pre: vfio-pci" for module in before]
    lines += [
        f"before any driver loads: echo vfio-pci > /sys/bus/pci/devices/{w.address}/driver_override" for w in by_address
    ]
    return lines


# -- the guest -----------------------------------------------------------------------------------


def _guest_changes(facts: Facts, wishes: Iterable[Wish]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for wish in wishes:
        if isinstance(wish, VmOption):
            before = changeable_guest(facts, wish.vmid).config.get(wish.key)
            if not same_options(before, wish.value):
                changes.append(Change(Cell("vm", f"{wish.vmid}/{wish.key}"), before, wish.value, wish.why))
    return tuple(changes)


def _new_machine(options: Iterable[Change]) -> list[Finding]:
    """Another machine type moves every device that an installed guest knows to another place."""
    return [
        Finding(
            "plan.machine-type", Level.NOTE, f"vm:{change.cell.name.partition('/')[0]}",
            "The guest's machine type changes: an installed guest finds its network card under a new name.",
            (f"{change.cell}: {change.before or 'default'} -> {change.after}",), Actor.NOBODY,
        )
        for change in options if change.cell.name.endswith("/machine")
    ]  # fmt: skip


# -- what follows from the changes ---------------------------------------------------------------


def _refreshes(facts: Facts, files: Iterable[Change]) -> tuple[str, ...]:
    """Which derived things are rebuilt, each once: initramfs, then the loaders' menus.

    On a host that proxmox-boot-tool keeps, update-initramfs refreshes the ESPs itself (pve-docs, system-booting), so
    claims alone need no second refresh.
    """
    names: set[str] = set()
    for change in files:
        path = change.cell.name
        if path.startswith((MODPROBE_DIR, "/etc/initramfs-tools/")):
            names.add("initramfs")
        elif path == KERNEL_CMDLINE:
            names.add("boot-tool")
        elif path == GRUB_FILE or path.startswith(GRUB_DIR):
            names |= _grub_refreshes(facts)
    return tuple(name for name in ("initramfs", "grub", "boot-tool") if name in names)


def _grub_refreshes(facts: Facts) -> set[str]:
    """A GRUB on ESPs is rebuilt by proxmox-boot-tool, a GRUB on the root file system by update-grub."""
    if not facts.boot.loaders:
        raise _loader_unknown(facts, (), ())
    names = {Loader.GRUB: "grub", Loader.GRUB_ESP: "boot-tool"}
    return {names[loader] for loader in facts.boot.loaders if loader in names}


def _expectations(facts: Facts, wishes: Sequence[Wish], files: Sequence[Change]) -> tuple[Expectation, ...]:
    """What must be true once the plan has been carried out, and the host restarted if it was to be."""
    arguments = [wish for wish in wishes if files and isinstance(wish, ArgPresent | ArgAbsent)]
    expects = [
        Expectation(Cell("arg", wish.token), wish.token if isinstance(wish, ArgPresent) else None, wish.why)
        for wish in arguments
    ]
    given = _given(facts, wishes)
    if given and (facts.iommu.on or arguments):
        expects.append(Expectation(Cell("iommu", ""), "on", "without it no device can be given to a guest"))
    if files:
        why = "claimed at boot, so that no other driver ever has it"
        expects += [Expectation(Cell("driver", str(address)), "vfio-pci", why) for address in _claimed(facts, wishes)]
        expects += bars.expectations(wishes)
    if facts.iommu.on and not any(split_argument(wish.token)[0] in REGROUPING for wish in arguments):
        expects += _same_groups(facts, _given(facts, wishes, shares=False))
    return tuple(expects)


def _same_groups(facts: Facts, given: Iterable[Address]) -> list[Expectation]:
    devices = (facts.device(address) for address in given)
    groups = [(d.address, d.iommu_group) for d in devices if d and d.iommu_group is not None and d.iommu_group >= 0]
    why = "what else leaves the host with it was judged by this group"
    return [Expectation(Cell("group", str(address)), str(group), why) for address, group in groups]


def _claimed(facts: Facts, wishes: Iterable[Wish]) -> tuple[Address, ...]:
    ids = {identity for wish in wishes if isinstance(wish, ClaimById) for identity in wish.ids}
    claimed = {wish.address for wish in wishes if isinstance(wish, ClaimByAddress)}
    claimed |= {device.address for device in facts.devices if device.id in ids and not device.bridge}
    return tuple(sorted(claimed))


def _given(facts: Facts, wishes: Sequence[Wish], *, shares: bool = True) -> tuple[Address, ...]:
    """Functions that the wishes give to a guest or claim; `shares`: those of which it gets a share, too."""
    known = [device.address for device in facts.devices]
    given = set(_claimed(facts, wishes))
    for wish in wishes:
        if isinstance(wish, VmOption) and wish.key.startswith("hostpci") and wish.value is not None:
            guest = facts.guest(wish.vmid)
            node = guest.node if guest else ""
            options = parse_options(wish.value, "host")
            if shares or "mdev" not in options:
                given.update(entry_functions(options, node, facts.mappings, known))
    return tuple(sorted(given))


# -- room, and the way home ----------------------------------------------------------------------


def _room(facts: Facts, refreshes: Sequence[str]) -> list[Finding]:
    """Refuse when /boot is known to be too full; say so when the room is unknown."""
    if not refreshes:
        return []
    wanted = INITRAMFS_ROOM if "initramfs" in refreshes else TEXT_ROOM
    space = next((space for space in facts.spaces if space.path == "/boot"), None)
    if space is not None and space.free < wanted:
        raise Failure(
            "plan.no-space", f"Nothing was planned: /boot has {space.free // MEBIBYTE} MiB left.",
            f"wanted: {wanted // MEBIBYTE} MiB, to rebuild {', '.join(refreshes)}",
            hint="Remove kernels that are no longer needed: `proxmox-boot-tool kernel list`, `apt autoremove`.",
            code=Exit.REFUSED,
        )  # fmt: skip
    findings = [] if space is not None else [_unknown_room(facts, "/boot", "spaces./boot")]
    if facts.boot.managed and facts.gap("spaces.esp"):
        findings.append(_unknown_room(facts, "the EFI system partitions", "spaces.esp"))
    return findings


def _unknown_room(facts: Facts, where: str, about: str) -> Finding:
    gap = facts.gap(about)
    return Finding(
        "plan.space", Level.UNKNOWN, "host",
        f"The room left on {where} is unknown; a rebuild that runs out of it fails, and so does its undo.",
        (f"{about}: {gap.reason if gap else 'not answered'}",),
    )  # fmt: skip


_COMMANDS = {
    "initramfs": "update-initramfs -u -k all",
    "grub": "update-grub",
    "boot-tool": "proxmox-boot-tool refresh",
}


def _way_home(
    facts: Facts, wishes: Sequence[Wish], files: Sequence[Change], refreshes: Sequence[str]
) -> tuple[str, ...]:
    """What to do at the machine when it does not come back: keys and words per loader, files for a rescue system."""
    add = [wish.token for wish in wishes if isinstance(wish, ArgPresent)]
    drop = [wish.token for wish in wishes if isinstance(wish, ArgAbsent)]
    words = [f"delete {' '.join(add)}"] if add else []
    words += [f"put back {' '.join(drop)}"] if drop else []
    # A claimed card goes back to its own driver for one boot when vfio-pci may not be loaded (kernel-parameters.txt).
    words += ["add module_blacklist=vfio_pci"] if _claimed(facts, wishes) else []
    lines = ["If the host does not come back:"]
    if words:
        loaders = facts.boot.loaders or tuple(Loader)
        lines += dict.fromkeys(f"  {_keys(loader).format(', '.join(words))}" for loader in loaders)
    lines.append("  Then, on the host: pve-passthrough undo")
    lines.append("  From a rescue system instead, in the host's tree:")
    lines += [f"    {'remove' if change.before is None else 'mend'} {change.cell.name}" for change in files]
    lines += [f"    {_COMMANDS[name]}" for name in refreshes]
    return tuple(lines)


def _keys(loader: Loader) -> str:
    if loader is Loader.SYSTEMD_BOOT:
        return "systemd-boot: press e at the menu, in the line that appears {}, then press Enter."
    return "GRUB: press e at the menu, in the line that begins with linux {}, then press Ctrl-x."
