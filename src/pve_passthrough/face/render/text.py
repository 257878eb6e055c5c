"""Results for people, in a terminal of any width, with or without colour.

Nothing here trusts a word: what is to be one line passes `_one`, and whatever else is printed passes `Terminal`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ...app import Checked, Planned, Proof
from ...change import Listing, boot_unit
from ...guest import Outcome, Rung
from ...model.facts import Facts
from ...model.finding import Finding, Level, Verdict
from ...model.pci import NO_GROUP, Address, Device
from ...model.plan import Plan
from ...model.run import Kind, Run
from ..printable import printable
from . import data

_LEVELS = {
    Level.BLOCKS: ("✗", "bold red"),
    Level.HARMS: ("!", "bold yellow"),
    Level.UNKNOWN: ("?", "bold magenta"),
    Level.NOTE: ("·", "cyan"),
    Level.FINE: ("✓", "green"),
}
_VERDICTS = {
    Verdict.READY: ("READY", "bold green"),
    Verdict.CHANGES_NEEDED: ("CHANGES NEEDED", "bold yellow"),
    Verdict.BLOCKED: ("BLOCKED", "bold red"),
    Verdict.UNKNOWN: ("UNKNOWN", "bold magenta"),
}
_OUTCOMES = {
    Outcome.PASSED: ("✓", "green"),
    Outcome.FAILED: ("✗", "bold red"),
    Outcome.UNKNOWN: ("?", "bold magenta"),
    Outcome.SKIPPED: ("–", "dim"),
}
_PHASES = {
    "APPLYING": "stopped halfway; `pve-passthrough resume` brings it to an end",
    "REBOOT": "changes are written; they take effect at the next boot",
    "VERIFYING": "changes are in effect and are being proven",
    "KEPT": "done: every change is in effect",
    "UNDOING": "on the way back; `pve-passthrough resume` brings it to an end",
    "UNDO_REBOOT": "taken back on disk; the running kernel forgets it at the next boot",
    "UNDONE": "taken back, every file as it was",
    "STUCK": "stopped: something else has changed a place of this run",
}


class Terminal(Console):
    """A console that shows what is not printable as its escape."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text
            clean = segment.control or text.isprintable() or text == "\n"
            yield segment if clean else Segment(printable(text, keep="\n"), segment.style)


def console(*, err: bool = False) -> Console:
    return Terminal(highlight=False, markup=False, emoji=False, stderr=err, soft_wrap=False)


def _one(text: str, style: str = "") -> Text:
    """One line: a line feed in it is shown, not obeyed, so that no text can pretend to be the next line."""
    return Text(printable(text, keep="\t"), style=style)


# -- check ---------------------------------------------------------------------------------------


def checked(out: Console, result: Checked, next_step: str, *, all_findings: bool = False) -> None:
    """Verdict first, then what is wrong, then what to do next."""
    out.print(_one(machine_line(result.facts), style="dim"))
    word, style = _VERDICTS[result.verdict]
    about = cards(result.facts, result.addresses)
    out.print(Text.assemble((f"{word}", style), f"  {printable(about)}" if about else ""))
    shown = [one for one in result.findings if all_findings or one.level not in (Level.FINE,)]
    for one in shown:
        finding(out, one, said_below=" up " in next_step)
    hidden = len(result.findings) - len(shown)
    if hidden:
        out.print(Text(f"\n✓ {hidden} more look fine (--all shows them)", style="green"))
    if result.facts.gaps:
        count = len(result.facts.gaps)
        out.print(Text(f"? {count} question(s) had no answer; --output-format json lists them as gaps", style="dim"))
    if next_step:
        out.print(Text.assemble(("\n→ next: ", "bold cyan"), printable(next_step)))


def cards(facts: Facts, addresses: Iterable[Address]) -> str:
    """One name per card: its first function, and how many more of it are meant."""
    slots: dict[str, list[Address]] = defaultdict(list)
    for address in addresses:
        slots[address.slot].append(address)
    named = []
    for members in slots.values():
        more = len(members) - 1
        name = str(facts.device(members[0]) or members[0])
        named.append(name if not more else f"{name} and {more} more function{'s' if more > 1 else ''} of it")
    return ", ".join(named)


def machine_line(facts: Facts) -> str:
    pve, kernel = facts.pve, facts.kernel
    without = "no Proxmox VE" if pve.installed is False else "Proxmox VE unknown"
    version = f"Proxmox VE {pve.version}" if pve.version else without
    parts = [pve.node or facts.host, version, f"kernel {kernel.release or 'unknown'}"]
    loaders = facts.boot.loaders
    parts.append("boots with " + " and ".join(one.value for one in loaders) if loaders else "boot loader unknown")
    return " · ".join(parts)


def finding(out: Console, one: Finding, *, said_below: bool = False) -> None:
    """Message, rule, evidence, the way out. `said_below`: the plain `up` command stands once, at the page's end."""
    mark, style = _LEVELS[one.level]
    body = _one(one.message, style="bold" if one.level in (Level.BLOCKS, Level.HARMS) else "")
    body.append(f"  {one.rule}", style="not bold dim")
    lead = Table.grid(padding=0)
    lead.add_column(width=2, no_wrap=True)
    lead.add_column(ratio=1)
    lead.add_row(Text(mark, style=style), body)
    out.print()
    out.print(lead)
    for line in one.evidence:
        _line(out, _one(line, style="dim"), 4)
    if one.fix is not None:
        _line(out, Text.assemble(("fix: ", "cyan"), printable(one.fix.text)), 4)
        for command in one.fix.commands:
            if said_below and command.startswith("pve-passthrough up ") and " --tweak " not in command:
                continue
            _line(out, _one(f"$ {command}"), 6)
    if one.hazard and one.hazard != "never":
        _line(out, Text.assemble(("accepted by: ", "cyan"), f"--accept {one.hazard}"), 4)


def _line(out: Console, body: Text, left: int) -> None:
    out.print(Padding(body, (0, 0, 0, left), expand=False))


# -- devices -------------------------------------------------------------------------------------


def devices(out: Console, facts: Facts, chosen: Iterable[Device]) -> None:
    """One function after the other: address, group, driver, name, and below it who needs it."""
    takes = data.companions(facts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("address", "group", "driver"):
        table.add_column(title, no_wrap=True)
    table.add_column("device", ratio=1)
    for one in chosen:
        name = _one(one.name or one.id, style="bold" if one.is_display else "")
        needs = _needs(facts, one, takes.get(one.address, ()))
        table.add_row(
            str(one.address), _group(one), "?" if one.driver is None else printable(one.driver) or "–", name + needs
        )
    out.print(table)


def _group(one: Device) -> str:
    return {None: "?", NO_GROUP: "none"}.get(one.iommu_group, str(one.iommu_group))


def _needs(facts: Facts, one: Device, takes: Iterable[Address]) -> Text:
    """Who needs the function, and which other cards a guest start with it would take: a line each, or nothing."""
    text = Text(style="not bold")
    for use in facts.uses_of(one.address):
        text.append(f"\n← {use.kind.value}: {printable(use.detail)}", style="red" if use.vital else "yellow")
    for vmid in data.claims(facts, one.address):
        text.append(f"\n← guest {vmid}", style="cyan")
    others = [address for address in takes if address.slot != one.address.slot]
    if others:
        text.append("\n⇄ takes along " + " ".join(map(str, others)), style="magenta")
    return text


def groups(out: Console, facts: Facts) -> None:
    members: dict[int | None, list[Device]] = defaultdict(list)
    for one in facts.devices:
        members[one.iommu_group].append(one)
    for number in sorted(members, key=lambda key: (key is None, key if key is not None else 0)):
        title = {None: "group unknown", NO_GROUP: "in no group"}.get(number, f"group {number}")
        out.print(Text(title, style="bold"))
        for one in members[number]:
            label = " (bridge)" if one.bridge else ""
            _line(out, _one(f"{one.address}  {one.id}  {one.name or one.id}{label}  [{one.driver or '–'}]"), 2)


def tree(out: Console, facts: Facts) -> None:
    root = Tree(_one(machine_line(facts), style="bold"))
    nodes: dict[Address, Tree] = {}
    present = {one.address for one in facts.devices}

    def place(one: Device) -> Tree:
        if one.address not in nodes:
            parent = facts.device(one.parent) if one.parent in present and one.parent != one.address else None
            above = place(parent) if parent is not None else root
            nodes[one.address] = above.add(_one(f"{one.address}  {one.name or one.id}  [{one.driver or '–'}]"))
        return nodes[one.address]

    for one in facts.devices:
        place(one)
    out.print(root)


def usb(out: Console, facts: Facts) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("port", "id", "device", "controller", ""):
        table.add_column(title)
    for one in facts.usb:
        kind = " ".join(word for word, is_so in (("keyboard", one.keyboard), ("storage", one.storage)) if is_so)
        table.add_row(
            printable(one.port),
            one.id,
            printable(one.name) or "–",
            "?" if one.controller is None else str(one.controller),
            kind,
        )
    out.print(table)


# -- plan and run --------------------------------------------------------------------------------


def plan(out: Console, made: Plan) -> None:
    """The diffs, what is rebuilt, and what it costs."""
    from ...planning import unified

    out.print(Text.assemble(("PLAN  ", "bold"), printable(made.goal)))
    if not made.changes:
        out.print(Text("Nothing has to be changed.", style="green"))
        return
    for change in made.changes:
        out.print()
        out.print(_one(f"# {change.why}", style="cyan"))
        for line in unified(change).removesuffix("\n").split("\n"):
            out.print(_one(line, style=_diff_style(line)))
    out.print()
    for name in made.refreshes:
        out.print(Text.assemble(("rebuild  ", "bold"), printable(name)))
    out.print(Text.assemble(("reboot   ", "bold"), "one" if made.reboot else "none"))
    out.print(Text(f"While the run is unfinished, {boot_unit.NAME} stands by at boot.", style="dim"))
    for one in made.irreversible:
        out.print(Text.assemble(("not undone  ", "bold red"), printable(one)))
    for risk in made.risks:
        finding(out, risk)


def _diff_style(line: str) -> str:
    if line.startswith(("---", "+++")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def planned(out: Console, result: Planned) -> None:
    out.print(_one(machine_line(result.checked.facts), style="dim"))
    plan(out, result.plan)


def way_home(out: Console, made: Plan) -> None:
    if made.way_home:
        out.print(Text("\nIf the machine does not come up, the way home (write it down):", style="bold yellow"))
        for line in made.way_home:
            _line(out, _one(line), 2)


def run(out: Console, one: Run) -> None:
    phase = one.phase.name
    style = {"KEPT": "bold green", "UNDONE": "bold green", "STUCK": "bold red"}.get(phase, "bold yellow")
    out.print(Text.assemble((f"{phase:<12}", style), f" {printable(one.plan.id)}  {printable(one.plan.goal)}"))
    _line(out, Text(_PHASES.get(phase, ""), style="dim"), 13)
    for event in one.events:
        if event.kind in (Kind.RETREATED, Kind.STUCK) and phase not in ("KEPT", "REBOOT"):
            for line in event.detail.splitlines():
                _line(out, _one(line, style="red"), 13)


def history(out: Console, listing: Listing) -> None:
    if not listing.runs and not listing.problems:
        out.print("No runs on this host.")
    for one in listing.runs:
        run(out, one)
    for problem in listing.problems:
        out.print(Text.assemble(("? ", "bold magenta"), printable(problem.message)))


def proof(out: Console, result: Proof) -> None:
    rungs(out, result.rungs)


def rungs(out: Console, climbed: Iterable[Rung]) -> None:
    for rung in climbed:
        mark, style = _OUTCOMES[rung.outcome]
        out.print(Text.assemble((f"{mark} L{rung.level} {rung.name:<7}", style), printable(rung.message)))
        for line in rung.evidence:
            _line(out, _one(line, style="dim"), 13)
        if rung.hint:
            _line(out, Text.assemble(("→ ", "cyan"), printable(rung.hint)), 13)
