"""Making virtual functions and taking them away, now and at every start. Facts in, a plan out.

1. Pure. The number, what each function may do, our file and our unit are changed together, so that what is now and
   what the next start makes are the same thing.
2. Another number takes away every virtual function there is (the kernel knows no other way). One that a running guest
   has is never taken: the kernel would wait for that guest without end (drivers/vfio/vfio_main.c,
   vfio_unregister_group_dev). One that the host or a guest's configuration uses is a hazard with a name.
3. A physical function that vfio-pci holds, or that a guest is to get, keeps none and gets none.
4. What was said before stays said: a setting that is not named now is taken from our file.
5. Fixed hardware addresses follow from the machine, the function and the number, so that they are the same after a
   new installation of this program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..errors import Exit, Failure
from ..knowledge.sriov import IGPU_ARGUMENTS, IGPU_MOST, igpu_driver, pf_driver
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level, Safety
from ..model.own import SRIOV, SRIOV_UNIT
from ..model.pci import Address, Device
from ..model.plan import Cell, Change, Plan
from ..model.sriov import (
    PhysicalFunction,
    SriovState,
    VfSettings,
    conf_text,
    is_mac,
    parse_conf,
    parse_state,
    same_state,
    state_text,
)
from ..model.value import dataclass
from ..model.vm import Vm
from .goals import unknown

UNITS = "/etc/systemd/system"
PATIENCE = 60
"""Seconds that our unit gives the driver at a start."""
AUTO, NONE = "auto", "none"
_PROGRAM = re.compile(r"/[A-Za-z0-9_./+@:,=-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for. None: not named, so it stays as our file has it, else as the driver leaves it.

    mac        `auto`: fixed addresses of ours; `none`: the driver's; else one for each function
    autoprobe  False: only vfio-pci may take them, so that no driver of the host does
    """

    count: int
    mac: str | tuple[str, ...] | None = None
    vlan: int | None = None
    trust: bool | None = None
    spoofcheck: bool | None = None
    autoprobe: bool | None = None


# -- which function ------------------------------------------------------------------------------


def physical(facts: Facts, device: Device) -> PhysicalFunction:
    """The closer look at a function that can have virtual ones. Raises Failure for one that cannot."""
    if device.physical_function is not None:
        raise Failure(
            "sriov.is-virtual", f"Nothing was planned: {device} is itself a virtual function.",
            f"/sys/bus/pci/devices/{device.address}/physfn: {device.physical_function}",
            hint=f"Name its physical function: {device.physical_function}", code=Exit.USAGE,
        )  # fmt: skip
    if device.sriov_total is None:
        raise unknown(facts, "pci.sriov_totalvfs", f"whether {device} can have virtual functions")
    found = next((one for one in facts.sriov or () if one.address == device.address), None)
    if not device.sriov_total or found is None:
        able = [str(one) for one in facts.devices if one.sriov_total]
        raise Failure(
            "sriov.no-capability", f"Nothing was planned: {device} cannot have virtual functions.",
            "it offers no SR-IOV, or none that firmware and driver leave to it (sriov_totalvfs)",
            *(f"can: {one}" for one in able),
            hint="SR-IOV must be switched on in the firmware's setup, and for some cards in the card's own."
            if not able else "Name one of these.", code=Exit.USAGE,
        )  # fmt: skip
    return found


def conf_of(facts: Facts, address: Address) -> SriovState | None:
    """What our file says for this function; None: there is none. Raises ValueError for half a file."""
    text = facts.files.get(conf_path(address))
    return None if text is None else parse_conf(text)


def conf_path(address: Address) -> str:
    return SRIOV.format(address=address)


def unit_name(address: Address) -> str:
    return SRIOV_UNIT.format(address=address)


# -- plans ---------------------------------------------------------------------------------------


def create(facts: Facts, device: Device, wanted: Wanted, *, program: str, seed: str, now: str, machine: str) -> Plan:
    """The plan that gives `device` so many virtual functions. Raises Failure.

    `program`: the launcher that our unit starts; `seed`: what fixed addresses are derived from, the machine's id.
    """
    pf = physical(facts, device)
    _refuse_count(device, wanted.count)
    _refuse_unready(facts, device, pf)
    before = _standing(facts, device, pf)
    after = _state(facts, device, pf, wanted, seed)
    why = f"{wanted.count} virtual functions of {device}, now and after every start"
    changes = [
        *_file(facts, conf_path(device.address), conf_text(after), why),
        *_unit(pf, unit_text(device, program), "the unit that makes them at every start", enabled=True),
        *_cell(device, before, after, why),
    ]
    return _plan(facts, device, f"{wanted.count} virtual functions on {device.address}", changes, now, machine,
                 (*_risks(facts, device, pf, before, after),))  # fmt: skip


def remove(facts: Facts, device: Device, *, now: str, machine: str) -> Plan:
    """The plan that takes all virtual functions away, and what makes them at a start. Raises Failure."""
    pf = physical(facts, device)
    before = _standing(facts, device, pf)
    why = f"{device} has no virtual functions, now and after every start"
    changes = [
        *(_cell(device, before, SriovState(0, device.id), why) if before.count else ()),
        *_unit(pf, None, why, enabled=False),
        *_file(facts, conf_path(device.address), None, why),
    ]
    return _plan(facts, device, f"no virtual functions on {device.address}", changes, now, machine)


def forget(facts: Facts, address: Address, unit: str | None, unit_text: str | None, *, now: str, machine: str) -> Plan:
    """The plan that removes our file and unit for a function that is not there any more, or is another one now."""
    why = f"what was made at every start for {address} is not there"
    gone = PhysicalFunction(address, unit=unit, unit_text=unit_text)
    changes = [*_unit(gone, None, why, enabled=False), *_file(facts, conf_path(address), None, why)]
    return Plan(id=f"{now}-sriov-{_slug(address)}", machine=machine, goal=f"forget {address}", changes=tuple(changes))


def _plan(
    facts: Facts, device: Device, goal: str, changes: Sequence[Change], now: str, machine: str,
    risks: Iterable[Finding] = (),
) -> Plan:  # fmt: skip
    return Plan(
        id=f"{now}-sriov-{_slug(device.address)}",
        machine=machine,
        goal=goal,
        changes=tuple(changes),
        risks=tuple(risks) if changes else (),
        devices={str(device.address): device.id},
    )


def _slug(address: Address) -> str:
    return re.sub(r"[^0-9a-f]", "", str(address))


# -- what is refused -----------------------------------------------------------------------------


def _refuse_count(device: Device, count: int) -> None:
    if count < 1:
        raise Failure(
            "sriov.count", f"Nothing was planned: {count} is no number of virtual functions to make.",
            hint=f"pve-passthrough sriov remove {device.address} takes all away.", code=Exit.USAGE,
        )  # fmt: skip
    if count > (device.sriov_total or 0):
        raise Failure(
            "sriov.count", f"Nothing was planned: {device} has {device.sriov_total} virtual functions at most, "
            f"not {count}.",
            f"/sys/bus/pci/devices/{device.address}/sriov_totalvfs: {device.sriov_total}",
            hint=f"pve-passthrough sriov create {device.address} {device.sriov_total}", code=Exit.USAGE,
        )  # fmt: skip


def _refuse_unready(facts: Facts, device: Device, pf: PhysicalFunction) -> None:
    if "?" in device.id:
        raise unknown(facts, "pci.vendor", f"what {device.address} is")
    if device.driver is None:
        raise unknown(facts, f"pci.{device.address}", f"which driver holds {device}")
    trouble = not_ready(facts, device, pf)
    if trouble is not None:
        message, lines, hint = trouble
        raise Failure(
            "sriov.not-ready", f"Nothing was planned: {message}", *lines, hint=hint, code=Exit.REFUSED
        )  # fmt: skip
    for guest, _ in _having(facts, (device.address,), whole=True):
        raise Failure(
            "sriov.pf-claimed", f"Nothing was planned: guest {guest.vmid} ({guest.name}) is to get {device} itself, "
            "and vfio-pci refuses a physical function that has virtual ones.",
            *(f"{entry.key}: {guest.config.get(entry.key, '')}" for entry in guest.hostpci
              if device.address in entry.binds),
            hint="Take it out of that guest first.", code=Exit.REFUSED,
        )  # fmt: skip


def not_ready(facts: Facts, device: Device, pf: PhysicalFunction | None) -> tuple[str, tuple[str, ...], str] | None:
    """Why the driver makes no virtual functions, the lines that prove it, and the way out; None: nothing says so."""
    if device.driver == "":
        return (
            f"no driver holds {device}, and only its own can make virtual functions.",
            (f"driver of {device.address}: none",),
            "Load its driver; `pve-passthrough check` tells what keeps it away.",
        )
    row = pf_driver(device.driver)
    if row is not None and not row.able:
        return (
            f"{device}: {row.why}.",
            (f"driver of {device.address}: {row.name}", f"source: {row.source}"),
            row.way,
        )
    if device.driver == "i915" and pf is not None and pf.limit is None:
        return _igpu_not_ready(facts, device)
    return None


def _igpu_not_ready(facts: Facts, device: Device) -> tuple[str, tuple[str, ...], str]:
    """The kernel's own i915 shows sriov_totalvfs and answers ENOENT; max_vfs is a parameter of the other one alone."""
    row = igpu_driver(facts.kernel.version)
    release = facts.kernel.release or "unknown"
    fits = (
        f"i915-sriov-dkms {row.release} builds for it"
        if row
        else "no release of i915-sriov-dkms is known to build for it"
    )
    return (
        f"the kernel's own i915 makes no virtual functions on {device}.",
        (
            f"kernel {release}: {fits}",
            f"it needs the kernel arguments {IGPU_ARGUMENTS}, and gives {IGPU_MOST} at most",
            "a guest with Linux needs the same driver; 0000:00:02.0 itself is never given while they exist",
            "source: i915-sriov-dkms README",
        ),
        "That driver is not Proxmox VE's and not installed by this program: https://github.com/strongtz/i915-sriov-dkms",
    )


def hazards(facts: Facts, device: Device, after: int) -> tuple[Finding, ...]:
    """What stands in the way of another number: every virtual function that there is now would go."""
    found: list[Finding] = []
    if device.sriov_active == after:
        return ()
    vfs = device.virtual_functions
    for guest, addresses in _having(facts, vfs):
        found.append(_of_guest(facts, device, guest, addresses, after))
    for virtual in vfs:
        found += [_of_host(device, virtual, use.detail, use.vital) for use in facts.uses_of(virtual)]
    found += _management(facts, device)
    return tuple(found)


def _of_guest(facts: Facts, device: Device, guest: Vm, addresses: Sequence[Address], after: int) -> Finding:
    lines = tuple(f"guest {guest.vmid}: {address}" for address in addresses)
    said = f"Guest {guest.vmid} ({guest.name})"
    if guest.running is not False:
        how = "runs" if guest.running else "may be running (nobody could say)"
        return Finding(
            "plan.vf-running", Level.BLOCKS, str(device.address),
            f"{said} {how} with a virtual function of {device}: taking it away would hang until the guest stops.",
            lines, Actor.NOBODY, Fix("Stop it first.", Safety.SHOW, (f"qm shutdown {guest.vmid}",)), "never",
        )  # fmt: skip
    staying = {str(one) for one in device.virtual_functions[:after]}
    going = [address for address in addresses if str(address) not in staying]
    level = Level.HARMS if going else Level.NOTE
    what = "would not be there any more" if going else "is made anew at the same address"
    return Finding(
        "plan.vf-assigned", level, str(device.address),
        f"{said} is to get a virtual function of {device} that {what}.", lines, Actor.NOBODY, None,
        "vf-assigned" if going else "",
    )  # fmt: skip


def _of_host(device: Device, virtual: Address, detail: str, vital: bool) -> Finding:
    return Finding(
        "plan.vf-host", Level.BLOCKS if vital else Level.HARMS, str(device.address),
        f"The host itself uses the virtual function {virtual} of {device}.", (f"{virtual}: {detail}",), Actor.NOBODY,
        Fix("Let the host use another interface first."), "never" if vital else "vf-host",
    )  # fmt: skip


def _management(facts: Facts, device: Device) -> Iterator[Finding]:
    """Drivers close and open their interface to reserve queues (kernel: igb_main.c, igb_sriov_reinit)."""
    through = [use for use in facts.uses_of(device.address) if use.vital and "virtual function" not in use.detail]
    if through:
        yield Finding(
            "plan.pf-management", Level.HARMS, str(device.address),
            f"The host is reached through {device}: the link may go down for some seconds while the number changes.",
            tuple(f"{use.kind.value}: {use.detail}" for use in through), Actor.NOBODY,
            Fix("Have the machine's own screen at hand."), "pf-management",
        )  # fmt: skip


def _having(facts: Facts, addresses: Iterable[Address], *, whole: bool = False) -> list[tuple[Vm, tuple[Address, ...]]]:
    """Guests of this node whose configuration names some of these functions, by mapping or by address.

    `whole`: the functions themselves, not a share of them.
    """
    wanted = frozenset(addresses)
    found = []
    for guest in facts.guests or ():
        if facts.pve.node in (None, guest.node):
            entries = [entry.binds if whole else entry.addresses for entry in guest.hostpci]
            named = tuple(one for functions in entries for one in functions if one in wanted)
            found += [(guest, named)] if named else []
    return found


# -- what is wished ------------------------------------------------------------------------------


def _standing(facts: Facts, device: Device, pf: PhysicalFunction) -> SriovState:
    if pf.text is None:
        raise unknown(facts, f"sriov.{device.address}", f"what {device} has of virtual functions now")
    return parse_state(pf.text)


def _state(facts: Facts, device: Device, pf: PhysicalFunction, wanted: Wanted, seed: str) -> SriovState:
    earlier = _earlier(facts, device)
    named = (wanted.mac, wanted.vlan, wanted.trust, wanted.spoofcheck)
    if not pf.interface:
        if any(one not in (None, NONE) for one in named):
            raise Failure(
                "sriov.no-interface", f"Nothing was planned: {device} has no network interface, so its virtual "
                "functions have neither hardware address nor VLAN.",
                hint="Leave --mac, --vlan, --trust and --spoofcheck away.", code=Exit.USAGE,
            )  # fmt: skip
        macs: list[str | None] = [None] * wanted.count
    else:
        macs = _macs(device, wanted, earlier, seed)
    old = [earlier.vfs[index] if index < len(earlier.vfs) else VfSettings() for index in range(wanted.count)]
    vfs = tuple(_merged(wanted, mac, one) for mac, one in zip(macs, old, strict=True))
    return SriovState(
        wanted.count, device.id, True if pf.state is None or pf.state.autoprobe is not None else None, vfs
    )


def _earlier(facts: Facts, device: Device) -> SriovState:
    """What our file wishes for this very card; nothing where it is another's, or half a file."""
    try:
        conf = conf_of(facts, device.address)
    except ValueError:
        conf = None
    return conf if conf is not None and conf.id == device.id else SriovState(0)


def _merged(wanted: Wanted, mac: str | None, old: VfSettings) -> VfSettings:
    return VfSettings(
        mac,
        old.vlan if wanted.vlan is None else wanted.vlan,
        old.trust if wanted.trust is None else wanted.trust,
        old.spoofcheck if wanted.spoofcheck is None else wanted.spoofcheck,
        old.link,
        old.held if wanted.autoprobe is None else not wanted.autoprobe,
    )


def _macs(device: Device, wanted: Wanted, earlier: SriovState, seed: str) -> list[str | None]:
    if wanted.mac == NONE:
        return [None] * wanted.count
    made = [fixed_mac(seed, device.address, index) for index in range(wanted.count)]
    if wanted.mac == AUTO:
        return list(made)
    if wanted.mac is None:
        old = [one.mac for one in earlier.vfs]
        bare = bool(earlier.count) and not any(old)  # addresses were left to the driver on purpose
        return [None if bare else (old[i] if i < len(old) and old[i] else made[i]) for i in range(wanted.count)]
    listed = [one.lower() for one in wanted.mac]
    wrong = [one for one in listed if not is_mac(one)]
    if wrong or len(listed) != wanted.count or len(set(listed)) != len(listed):
        raise Failure(
            "sriov.mac", "Nothing was planned: --mac needs one hardware address for each virtual function, "
            "all different.",
            *(f"not the address of one station: {one}" for one in wrong),
            f"{len(listed)} named for {wanted.count} virtual functions",
            hint="Write them with commas between them, or --mac auto.", code=Exit.USAGE,
        )  # fmt: skip
    return list(listed)


def fixed_mac(seed: str, pf: Address, index: int) -> str:
    """A locally administered address of one station (IEEE 802: bit 1 of the first byte set, bit 0 clear)."""
    import hashlib  # costs start-up time, and only this needs it

    raw = bytearray(hashlib.sha256(f"pve-passthrough vf {seed} {pf} {index}".encode()).digest()[:6])
    raw[0] = raw[0] & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in raw)


# -- changes -------------------------------------------------------------------------------------


def unit_text(device: Device, program: str) -> str:
    """The unit of one physical function. Raises Failure where the program's path cannot stand in a unit.

    Guests under high availability are started by pve-ha-lrm, all others by pve-guests. An unfinished run goes first: it
    may be about to take all this away. The network is not waited for and does not wait: virtual
    functions are for guests.
    """
    if not _PROGRAM.fullmatch(program):
        raise Failure(
            "unit.not-installed", "Nothing was planned: the path of this program cannot stand in a unit.",
            ascii(program),
            hint="Put the program elsewhere.", code=Exit.REFUSED,
        )  # fmt: skip
    return f"""\
[Unit]
Description=Virtual functions of {device.address}
ConditionPathExists={conf_path(device.address)}
After=local-fs.target systemd-modules-load.service systemd-udev-trigger.service pve-passthrough-resume.service
Before=pve-guests.service pve-ha-lrm.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} sriov at-boot {device.address}
TimeoutStartSec={PATIENCE + 60}

[Install]
WantedBy=multi-user.target
"""


def _file(facts: Facts, path: str, after: str | None, why: str) -> list[Change]:
    directory = path.rpartition("/")[0]
    if f"{directory}/" not in facts.files or facts.gap(f"files.{path}"):
        raise unknown(facts, f"files.{path}", f"what {path} holds")
    before = facts.files.get(path)
    if before == after:
        return []
    made = (
        []
        if facts.files[f"{directory}/"]
        else [Change(Cell("dir", directory), None, "directory", "holds the new file")]
    )
    return [*made, Change(Cell("file", path), before, after, why)]


def _unit(pf: PhysicalFunction, after: str | None, why: str, *, enabled: bool) -> list[Change]:
    """The unit's file and whether it is enabled: the file first on the way there, last on the way back."""
    name = unit_name(pf.address)
    wanted = "enabled" if enabled else "disabled"
    text = [] if pf.unit_text == after else [Change(Cell("file", f"{UNITS}/{name}"), pf.unit_text, after, why)]
    state = [] if pf.unit == wanted else [Change(Cell("unit", name), pf.unit, wanted, why)]
    return [*text, *state] if enabled else [*state, *text]


def _cell(device: Device, before: SriovState, after: SriovState, why: str) -> list[Change]:
    if same_state(before, after):
        return []
    return [Change(Cell("sriov", str(device.address)), state_text(before), state_text(after), why)]


# -- what may go otherwise ------------------------------------------------------------------------


def _risks(
    facts: Facts, device: Device, pf: PhysicalFunction, before: SriovState, after: SriovState
) -> Iterator[Finding]:
    if facts.iommu.on is False:
        yield Finding(
            "platform.iommu", Level.HARMS, "host",
            "The IOMMU is off: the virtual functions can be made, and not be given to guests.",
            ("/sys/class/iommu: empty",), Actor.US,
            Fix("It is switched on by the first plan for a guest.", Safety.ASK),
        )  # fmt: skip
    if pf.placed is False and not before.count:
        yield Finding(
            "sriov.no-room", Level.HARMS, str(device.address),
            f"The kernel will probably refuse: there are no addresses for the virtual functions of {device}.",
            (f"/sys/bus/pci/devices/{device.address}/resource: lines 8 to 13",), Actor.FIRMWARE,
            Fix("Switch on SR-IOV and Above 4G Decoding in the firmware's setup, or add pci=realloc.", Safety.SHOW),
        )  # fmt: skip
    if before.count and before.count != after.count:
        yield Finding(
            "plan.vf-anew", Level.NOTE, str(device.address),
            f"All {before.count} virtual functions go before {after.count} are made: the kernel changes the number by "
            "way of 0 only.",
            (f"sriov_numvfs: {before.count} -> 0 -> {after.count}",),
        )  # fmt: skip
    if device.driver == "i915":
        yield Finding(
            "plan.igpu-guest", Level.NOTE, str(device.address),
            "A guest with Linux needs i915-sriov-dkms, too; one with Windows needs a ROM with a GOP driver for "
            "a picture.",
            ("source: i915-sriov-dkms README",),
        )  # fmt: skip
