"""What every scenario starts from: a lab host that is switched on, and the program in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .hardware import Hardware
from .images import Workshop
from .machine import Machine
from .programs import LabError
from .report import Report

PROGRAM_SECONDS = 240.0
CHANGE_SECONDS = 900.0
"""An initramfs takes a minute to build on an idle machine under TCG, and several on a busy one."""


@dataclass(slots=True)
class Lab:
    """The workshop where images come from, and the report to which scenarios speak."""

    workshop: Workshop
    report: Report

    @contextmanager
    def host(self, name: str, hardware: Hardware, suite: str, arguments: str = "") -> Iterator[Machine]:
        """A running lab host. `arguments`: what its boot loader passes besides the usual ones."""
        with self.report.step(f"Debian tree and disk image: {suite}"):
            image, qemu = self.workshop.image(suite, arguments), self.workshop.qemu
        machine = Machine(self.workshop.folder / name, hardware, image, qemu)
        try:
            with self.report.step("boots with UEFI and GRUB to the agent"):
                machine.start()
            yield machine
        finally:
            machine.power_cut()
            if machine.stalls:
                self.report.say(f"  note: the emulator stood still at {machine.stalls} start(s) and was started again")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call of pve-passthrough in a lab host ended."""

    rc: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON on standard output. Raises LabError with what was said instead."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise LabError(f"no JSON (exit {self.rc}): {(self.err or self.out)[-1500:]}") from None

    def says(self, *words: str) -> bool:
        text = " ".join((self.out + self.err).split())
        return all(word in text for word in words)


def program(machine: Machine, *words: str, seconds: float = PROGRAM_SECONDS) -> Ended:
    """pve-passthrough, as installed in the lab host."""
    said = machine.run("/usr/bin/pve-passthrough", *words, seconds=seconds)
    return Ended(said.rc, said.out, said.err)


def changing(machine: Machine, *words: str) -> Ended:
    """A verb that changes the host and says how the run came out as JSON."""
    return program(machine, *words, "--yes", "--output-format", "json", seconds=CHANGE_SECONDS)


def phase(machine: Machine) -> str:
    """The phase of the newest run in the lab host, empty without one."""
    runs = program(machine, "status", "--output-format", "json").data["runs"]
    return str(runs[-1]["phase"]) if runs else ""
