"""Current, desired, plan: each file in golden/ is a machine, a wish and the whole plan that follows from them.

1. `current` names what differs from the plain host of worlds.py: one `key: value` a line, then files (`--- PATH`).
2. `desired` is `give DEVICE…`, or wishes one by one.
3. `plan` is what people would see. `PVE_PASSTHROUGH_GOLDEN=write pytest` writes it anew, for reading the difference.
4. Whatever the case, the plan's way back restores every text, and planning again after the plan changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Boot, Cpu, Facts, Firmware, Gap, Iommu, Kernel, Loader, Modules, Space
from pve_passthrough.model.pci import Device
from pve_passthrough.model.plan import Plan
from pve_passthrough.model.wish import ArgAbsent, ArgPresent, ClaimByAddress, ClaimById, ModuleOption, Text, Wish
from pve_passthrough.planning import give, make_plan, resolve, unified

from .worlds import DEVICES, GPU, TWIN, at, facts, files, guest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))


def _boot(known: Facts, value: str) -> Facts:
    loaders = tuple(Loader(name) for name in value.split())
    return replace(known, boot=Boot(loaders or None, managed=bool(loaders) and Loader.GRUB not in loaders))


def _devices(known: Facts, value: str) -> Facts:
    more: dict[str, Device] = {"twin": TWIN}
    return replace(known, devices=(*DEVICES, *(more[name] for name in value.split())))


def _guest(known: Facts, value: str) -> Facts:
    config = dict(pair.split("=", 1) for pair in value.split())
    running, node, lock = (config.pop(name, "") for name in ("running", "node", "lock"))
    made = guest(config=config | ({"lock": lock} if lock else {}))
    return replace(known, guests=(replace(made, running=running == "yes", node=node or "pve"),))


def _console(known: Facts, value: str) -> Facts:
    return replace(known, display=replace(known.display, console_owner=at(value)))


SETTINGS: dict[str, Callable[[Facts, str], Facts]] = {
    "loaders": _boot,
    "devices": _devices,
    "guest": _guest,
    "console": _console,
    "kernel": lambda known, value: replace(known, kernel=Kernel(value, known.kernel.cmdline)),
    "cmdline": lambda known, value: replace(known, kernel=Kernel(known.kernel.release, value)),
    "iommu": lambda known, value: replace(known, iommu=Iommu(units=("dmar0",) if value == "on" else ())),
    "cpu": lambda known, value: replace(known, cpu=Cpu(vendor=value)),
    "tables": lambda known, value: replace(known, firmware=Firmware(True, dmar="dmar" in value, ivrs="ivrs" in value)),
    "initramfs": lambda known, value: replace(known, modules=Modules(initramfs_tool=value)),
    "boot-free": lambda known, value: replace(known, spaces=(Space("/boot", 1 << 34, int(value) << 20),)),
    "gap": lambda known, value: replace(known, gaps=(*known.gaps, Gap(*value.split(" ", 1)))),
    "no-file": lambda known, value: replace(known, files={k: v for k, v in known.files.items() if k != value}),
    "absent": lambda known, value: replace(known, files={**known.files, value: None}),
}


def sections(text: str) -> dict[str, str]:
    parts = [part.partition("\n") for part in text.split("=== ") if part]
    return {head.strip(): body for head, _, body in parts}


def read_current(text: str) -> Facts:
    head, *bodies = text.split("--- ")
    more = {path.strip(): body for path, _, body in (body.partition("\n") for body in bodies)}
    known = facts(files=files(**more))
    for line in filter(None, head.splitlines()):
        key, _, value = line.partition(":")
        known = SETTINGS[key](known, value.strip())
    return known


WISHES: dict[str, Callable[[list[str]], Wish]] = {
    "arg": lambda words: ArgPresent(words[0], "wished"),
    "no-arg": lambda words: ArgAbsent(words[0], "wished away"),
    "claim-id": lambda words: ClaimById((words[0],), tuple(words[1:]), "claimed"),
    "claim-address": lambda words: ClaimByAddress(at(words[0]), words[1], "claimed"),
    "option": lambda words: ModuleOption(words[0], words[1], "wished"),
    "text": lambda words: Text(words[0], " ".join(words[1:]) + "\n", "mended"),
}


def read_desired(known: Facts, text: str) -> tuple[Wish, ...]:
    found: list[Wish] = []
    for line in filter(None, text.splitlines()):
        verb, *words = line.split()
        if verb == "give":
            found += give(known, resolve(known, words), 100)
        else:
            found.append(WISHES[verb](words))
    return tuple(found)


def show(plan: Plan) -> str:
    lines = [f"{plan.id}{' · reboot' if plan.reboot else ''} · refreshes: {' '.join(plan.refreshes) or 'none'}\n"]
    lines += [f"# {change.why}\n{unified(change)}" for change in plan.changes]
    lines += [f"expect {expected.cell} = {expected.text}\n" for expected in plan.expects]
    lines += [f"risk {risk.level.value} {risk.rule}: {risk.message} {risk.evidence}\n" for risk in plan.risks]
    return "".join(lines) + "".join(f"home {line}\n" for line in plan.way_home)


def planned(known: Facts, desired: str) -> Plan:
    wishes = read_desired(known, desired)
    return make_plan(
        known, wishes, goal="give gpu to guest 100", vmid=100, now="2026-11-21T14:05:01", machine="pve-0badcafe"
    )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    text = path.read_text()
    case = sections(text)
    known = read_current(case["current"])
    try:
        got = show(planned(known, case["desired"]))
    except Failure as failure:
        problem = failure.problem
        got = "\n".join((f"{failure.code.name} {problem.ref}", problem.message, *problem.context, problem.hint, ""))
    if os.environ.get("PVE_PASSTHROUGH_GOLDEN") == "write":
        path.write_text(f"{text.partition('=== plan')[0]}=== plan\n{got}")
    assert got == case.get("plan")


def _applied(known: Facts, plan: Plan) -> Facts:
    """The facts once the plan's changes have been made."""
    texts = dict(known.files)
    config = dict(known.guests[0].config) if known.guests else {}
    for change in plan.changes:
        if change.cell.kind in ("file", "script"):
            assert texts.get(change.cell.name) == change.before
            texts[change.cell.name] = change.after
        elif change.cell.kind == "dir":
            texts[f"{change.cell.name}/"] = change.after
        else:
            key = change.cell.name.partition("/")[2]
            assert config.get(key) == change.before
            config.pop(key, None)
            if change.after is not None:
                config[key] = change.after
    return replace(known, files=texts, guests=(guest(known=known.devices, config=config),))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_there_and_back_and_once_only(path: Path) -> None:
    case = sections(path.read_text())
    known = read_current(case["current"])
    try:
        plan = planned(known, case["desired"])
    except Failure:
        return
    there = _applied(known, plan)
    back = _applied(there, plan.inverse())
    assert back.files == known.files
    assert [dict(vm.config) for vm in back.guests or ()] == [dict(vm.config) for vm in known.guests or ()]
    again = planned(there, case["desired"])
    assert again.changes == ()
    assert again.refreshes == ()
    assert not again.reboot


def test_there_are_cases() -> None:
    assert len(GOLDEN) > 20
    assert GPU in DEVICES
