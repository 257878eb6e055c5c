"""Whatever a device, a guest, a file or a capture says, the terminal gets printable text."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.errors import Failure
from pve_passthrough.face import cli
from pve_passthrough.face.printable import printable
from pve_passthrough.face.render import text
from pve_passthrough.model.facts import Facts, Kernel, Pve, Use, UseKind
from pve_passthrough.model.finding import Actor, Finding, Fix, Level
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.usb import UsbDevice

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp.\u2066\u200b\x00\udcff\x7f[/bold][red] :smile: \n✓ L3 seen"
HERE = Address(0, 1, 0, 0)


@given(st.text(st.characters()))
def test_nothing_unprintable_is_left_and_nothing_is_lost(given: str) -> None:
    shown = printable(given)
    assert shown.isprintable()
    assert given.isprintable() == (shown == given)
    shown.encode("utf-8")


def test_the_escapes_say_what_was_there() -> None:
    assert printable("a\x1b\u202e\udcff\n\U000e0001b") == "a\\x1b\\u202e\\xff\\n\\U000e0001b"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def _facts() -> Facts:
    card = Device(HERE, 0x10DE, 0x2684, 0x030000, name=EVIL, driver=EVIL, iommu_group=1)
    return Facts(
        host=EVIL,
        devices=(card,),
        usb=(UsbDevice(EVIL, 1, 2, 3, EVIL, HERE),),
        pve=Pve(True, EVIL, node=EVIL),
        kernel=Kernel(EVIL),
        uses=(Use(HERE, UseKind.CONSOLE, EVIL, True),),
    )


def _printed(shape: str) -> str:
    stream = io.StringIO()
    out = text.Terminal(file=stream, markup=False, emoji=False, highlight=False, width=200)
    facts = _facts()
    if shape == "finding":
        text.finding(out, Finding("x.y", Level.BLOCKS, EVIL, EVIL, (EVIL,), Actor.US, Fix(EVIL, commands=(EVIL,))))
    elif shape == "devices":
        text.devices(out, facts, facts.devices)
    else:
        {"groups": text.groups, "tree": text.tree, "usb": text.usb}[shape](out, facts)
    return stream.getvalue()


@pytest.mark.parametrize("shape", ["finding", "devices", "groups", "tree", "usb"])
def test_what_devices_say_neither_drives_the_terminal_nor_fakes_a_line(shape: str) -> None:
    said = _printed(shape)
    assert all(line.isprintable() for line in said.split("\n"))
    assert "\\x1b]0;owned" in said
    assert not any(line.strip().startswith("✓") for line in said.split("\n"))


def test_the_real_console_reads_no_markup() -> None:
    out = text.console()
    assert isinstance(out, text.Terminal)
    with out.capture() as caught:
        out.print("[/red] [bold]x :smile: \x1b[2J")
    assert caught.get() == "[/red] [bold]x :smile: \\x1b[2J\n"


def test_a_failure_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    cli._show_failure(Failure("a.b", EVIL, EVIL, "two\nrows", hint=EVIL))
    said = capsys.readouterr().err
    assert all(line.isprintable() for line in said.split("\n"))
    assert "    two\n    rows\n" in said
    assert said.startswith("a.b: \\x1b]0;owned")


def test_a_hostile_capture_name_and_content_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--host", "capture:/no/\x1b[31m\u202efile", "check"]) != 0
    assert "\x1b" not in capsys.readouterr().err
