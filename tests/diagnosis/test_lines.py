"""A line of a log in every layout in which people paste it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.diagnosis.lines import TIMED, WALL, clean

WORDS = "vfio-pci 0000:01:00.0: not ready 1023ms after bus reset; waiting"

SINCE_BOOT = (
    "[   12.345678] ", "[   12.345678][    T1] ", "[   12.345678][   C12] ", "<4>[   12.345678] ",
    "[   12.345678] pve kernel: ",
    "kern  :warn  : [   12.345678] ", "4,1234,12345678,-;", "> [   12.345678] ", "&gt; [   12.345678] ",
    "  12. [   12.345678] ",
    "12 [   12.345678] ", "12\t[   12.345678] ", "12: [   12.345678] ", "\x1b[33m[   12.345678] \x1b[0m",
    "[33m[   12.345678] [0m",
    "#033[1m[   12.345678] ", "<br><code>[   12.345678] ", "[   12.345678 <    0.000100>] ",
    "Nov 22 00:08:02 pve kernel: [   12.345678] ",
    "2026-11-22T00:08:02.123456+01:00 pve kernel: [   12.345678] ",
)  # fmt: skip
CALENDAR = (
    "[Sun Nov 22 00:08:02 2026] ", "[So Nov 22 00:08:02 2026] ", "[dim. nov. 22 00:08:02 2026] ",
    "Nov 22 00:08:02 pve kernel: ",
    "Nov  2 00:08:02.123456 pve kernel: ", "2026-11-22T00:08:02+0100 pve kernel: ", "2026-11-22T00:08:02,123456+01:00 ",
    "Sun 2026-11-22 00:08:02 CET pve kernel: ", "1700000000.123456 pve kernel: ",
    "<4>1 2026-11-22T00:08:02.003Z pve kernel - - - ",
    '<165>1 2026-11-22T00:08:02.003Z pve kernel 12 ID47 [x@1 a="b"] ', ">> > Nov 22 00:08:02 pve kernel: ",
    "12: Nov 22 00:08:02 pve kernel: ", "node1: kern: warning: [2026-11-22T00:08:02.123Z]: ",
    "2026-11-22T00:08:02.123456789Z stderr F ", "2026-11-22T00:08:02.123456Z qemu-system-x86_64: ",
    "2026-11-22 00:08:02.123+0000: 1234: error : ", "Nov 22 00:08:02 pve QEMU[1234]: kvm: ",
    "Mär 22 00:08:02 pve kernel: ",
)  # fmt: skip
TIMELESS = (
    "",
    "kvm: ",
    "QEMU[123]: kvm: ",
    "kernel: ",
    "MESSAGE=",
    "│ ",
    "`",
    "[Nov22 00:08] ",
    "[  +0.000012] ",
    "\ufeff",
)


@pytest.mark.parametrize("prefix", SINCE_BOOT)
def test_since_boot(prefix: str) -> None:
    line = clean((prefix + WORDS).encode())
    assert (line.text, line.seconds) == (WORDS, 12.345678)


@pytest.mark.parametrize("prefix", CALENDAR)
def test_calendar(prefix: str) -> None:
    line = clean((prefix + WORDS).encode())
    assert line.text == WORDS
    assert line.seconds is not None and line.seconds >= WALL


@pytest.mark.parametrize("prefix", TIMELESS)
def test_timeless(prefix: str) -> None:
    line = clean((prefix + WORDS).encode())
    assert (line.text, line.seconds) == (WORDS, None)


@pytest.mark.parametrize(
    "prefix", [prefix for prefix in (*SINCE_BOOT, *CALENDAR) if "m[" not in prefix and "<br>" not in prefix]
)
def test_lines_with_a_time_are_told(prefix: str) -> None:
    told = TIMED.match(prefix + WORDS) is not None
    assert told or prefix.startswith(("node1", "1700000000"))


@pytest.mark.parametrize(
    "line",
    [
        "usb 1-1: new high-speed USB device",
        "[    1.500000] usb 1-1: new high-speed USB device",
        "[ 1.5] usb 1-1: new high-speed USB device",
    ],
)
def test_a_driver_and_its_device_are_no_host_name(line: str) -> None:
    assert clean(line.encode()).text == "usb 1-1: new high-speed USB device"
    assert clean(line.encode()).machine == ""


@pytest.mark.parametrize(
    "line",
    [
        "00:02.0 VGA compatible controller [0300]: Intel",
        "01:00.0 VGA",
        "<TASK>",
        "<ffffffff81> call",
        "hostpci0: 01:00.0,pcie=1",
    ],
)
def test_what_is_no_prefix_stays(line: str) -> None:
    assert clean(line.encode()).text == line


def test_who_says_it() -> None:
    line = clean(b"Nov 22 00:08:02 pve1 pvedaemon[1234]: start failed")
    assert (line.machine, line.tag, line.text) == ("pve1", "pvedaemon", "start failed")


@pytest.mark.parametrize("message", [WORDS, list(WORDS.encode())])
def test_journal_in_json(message: object) -> None:
    entry = {"__MONOTONIC_TIMESTAMP": "12345678", "_HOSTNAME": "pve", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": message}
    line = clean(json.dumps(entry).encode())
    assert (line.text, line.seconds, line.machine, line.tag) == (WORDS, 12.345678, "pve", "kernel")


@pytest.mark.parametrize("text", ['{"MESSAGE": null}', '{"MESSAGE": [999]}', '{"MESSAGE"', '{"MESSAGE": ' + "[" * 5000])
def test_odd_json_is_a_line_like_any_other(text: str) -> None:
    assert isinstance(clean(text.encode()).text, str)


def test_times_of_a_calendar_grow() -> None:
    stamps = ("Nov 22 23:59:59 a b: x", "Nov 23 00:00:01 a b: x", "Dec  1 00:00:00 a b: x")
    seconds = [clean(stamp.encode()).seconds or 0.0 for stamp in stamps]
    assert seconds == sorted(seconds)
    dated = ("2025-12-31T23:59:59Z a b: x", "2026-01-01T00:00:00Z a b: x")
    seconds = [clean(stamp.encode()).seconds or 0.0 for stamp in dated]
    assert seconds[0] < seconds[1]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_line(raw: bytes) -> None:
    assert "\n" not in clean(raw.replace(b"\n", b"")).text


def test_a_line_without_end_costs_nothing() -> None:
    assert len(clean(b"[ 1.5] " + b"x[" * 1_000_000).text) <= 2000
