"""One line of a log, freed of what surrounds its words.

1. Colours, control characters, quotation marks of mails, mark-up, line numbers of pastebins, and the prefixes of dmesg,
   journalctl, syslog, containers' logs and Proxmox VE's task logs are taken off; time and machine are kept.
2. Any bytes give a line: UTF-8, else Latin-1. Nothing raises.
3. Times of one clock can be compared: seconds since the boot below `WALL`, dates above it. Times of two clocks cannot.

The layouts: dmesg(1) (--time-format, --decode, --show-delta), journalctl(1) (--output), RFC 3164, RFC 5424, and the
kernel's Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import html
import json
import re

from ..model.value import dataclass

WIDTH = 2000
"""Characters of a line that anybody looks at."""
WALL = 1e9
"""Seconds from here on are of a calendar, below they are since the boot."""
_DATELESS = 2e9
_DATED = 3e9

_COLOUR = re.compile(r"(?:\x1b|#033|\^\[)(?:\[[0-9;?]*[ -/]*[@-~]|[@-_](?!\[))|\[(?:\d{1,2};){0,4}\d{1,2}m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u200b\u2028]+")
_MARK_UP = re.compile(
    r"</?(?:br|pre|code|p|div|span|b|i|u|em|strong|font|td|tr|th|li|ul|blockquote|a|h\d)\b[^<>]{0,300}>", re.I
)
_QUOTED = re.compile(r"^(?:(?:[>|│┃]|&gt;)\s?)+")
_QUOTES = (">", "|", "│", "┃", "&")
_NUMBERED = re.compile(
    r"^#?\d{1,7}(?:[.:|)]\s|\t|\s*│\s?)\s*(?=\S)"
    r"|^\d{1,7}\s+(?=\[\s*\d+\.\d|<\d>|[A-Z][a-z]{2} [ \d]\d \d\d:|\d{4}-\d\d-\d\d[T ])"
)
_FACILITY = re.compile(
    r"^(?:kern|user|daemon|syslog|auth)\s*:\s?(?:emerg|alert|crit|err|warn|notice|info|debug)\s*:\s?"
)
_LEADS = ("<", "M", '"', "k", "u", "d", "s", "a")
"""First letters of what `_FIELD`, `_FACILITY` and `_LEVEL` match."""
_LEVEL = re.compile(r"^<\d{1,3}>(?:1 (?=\d{4}-))?\s?")
_RAW_KMSG = re.compile(r"^\d{1,3},\d{1,12},(\d{1,18}),[^;]{0,40};")
_KERNEL_TIME = re.compile(r"^\[\s*(\d{1,9})\.(\d{1,9})(?:\s*<[\s\d.+]*>)?\]\s?")
_DELTA = re.compile(r"^\[(?:<[\s\d.+]*>|\s*\+\d+\.\d+|[A-Z][a-z]{2}\s?\d\d? \d\d:\d\d)\]\s?")
_WALL_TIME = re.compile(
    r"^\[[^\[\]]{2,16}?[ .](?P<day>[ \d]?\d) (?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d) (?P<year>\d{4})\]\s?"
)
_DATE = re.compile(
    r"^(?:[^\W\d_]{2,4}\.? )?(?P<date>\d{4}-\d\d-\d\d)[T ](?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
    r"(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?(?: [A-Z]{3,5})?:? "
)
_MONTH = re.compile(
    r"^(?P<month>[^\W\d_]{3,4})\.? (?P<day>[ \d]?\d) (?:\d{4} )?(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:\.\d{1,9})? "
)
_UNIX_TIME = re.compile(r"^(\d{10})\.\d{6} (?=\S+ \S+: )")
_STREAM = re.compile(r"^(?:stdout|stderr) [FP] ")
_LIBVIRT = re.compile(r"^\d{1,9}: (?:error|warning|info|debug) : ")
_RFC5424 = re.compile(r"^(?P<host>[\w.-]{1,255}) (?P<tag>[\w./@()-]{1,48}) (?:\d{1,9}|-) \S{1,32} (?:-|\[.{0,400}?\]) ")
_SENDER = re.compile(r"^(?P<host>[\w.-]{1,64}) (?P<tag>[\w./@()-]{1,64}(?: \w+)?)(?:\[\d{1,9}\])?:(?: |$)")
_LATE_SENDER = re.compile(
    r"^(?P<host>[A-Za-z][\w.-]{0,63}) (?:(?P<kernel>kernel)|(?P<tag>[\w./@()-]{1,64})\[\d{1,9}\]): ?"
)
"""After a time since the boot, as `journalctl -o short-monotonic` prints it; a driver and its device are no sender."""
_UNSENT = re.compile(r"^(?P<tag>kernel|[A-Za-z][\w./@-]{0,62}\[\d{1,9}\]): ")
_TALOS = re.compile(
    r"^[\w.:-]{1,64}: kern:\s+\w+: \[(?P<date>\d{4}-\d\d-\d\d)T(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)[.\d]*Z\]: "
)
_CALLER = re.compile(r"^(?:\[\s*[TC]\d+\]\s*)+")
_FIELD = re.compile(r"^(?:MESSAGE=|\"MESSAGE\" ?: ?\")")
_QEMU = re.compile(r"^(?:kvm|qemu-system-x86_64|QEMU\[\d+\]): ")
_MONTHS = dict(jan=1, feb=2, mar=3, apr=4, may=5, jun=6, jul=7, aug=8, sep=9, oct=10, nov=11, dec=12)  # noqa: C408

TIMED = re.compile(
    r"^(?:[>|│\s]|&gt;)*(?:#?\d{1,7}[.:|)\s]\s*)?(?:<\d{1,3}>(?:1 )?)?(?:kern\s*:\w+\s*:\s?)?(?:"
    r"\[\s*\d{1,9}\.\d{3,9}(?:\s*<[\s\d.+]*>)?\]|\[\s*\+\d+\.\d+\]|\[[^\[\]]{2,16}?[ .][ \d]?\d \d\d:\d\d:\d\d \d{4}\]"
    r"|(?:[^\W\d_]{2,4}\.? )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d|[A-Z][^\W\d_]{2,3}\.? [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d"
    r"|\d{1,3},\d{1,12},\d{1,18},[^;]{0,40};)"
)
"""A line of a log that says when."""


@dataclass(frozen=True, slots=True)
class Line:
    """text: the words · seconds: time on the log's own clock · machine: host name"""

    text: str
    seconds: float | None = None
    machine: str = ""
    tag: str = ""
    """Program in a syslog prefix: `kernel`, `pvedaemon`, `QEMU`."""


def decode(raw: bytes) -> str:
    """Bytes of one line as text; a line that is not UTF-8 is read as Latin-1, which takes anything."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def unmarked(text: str) -> str:
    """Text without colours, control characters, mark-up, marks of quotation and the ticks of code."""
    if "\x1b" in text or "[0m" in text or "[m" in text or "#033" in text or "^[" in text:
        text = _COLOUR.sub("", text)
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    if "<" in text:
        text = _MARK_UP.sub("", text)
    if "&" in text:
        text = html.unescape(text).replace("\xa0", " ")
    text = text.strip()
    return (_QUOTED.sub("", text) if text[:1] in _QUOTES else text).strip("` \t")


def clean(raw: bytes) -> Line:
    """The words of one line, without what surrounds them."""
    text = unmarked(decode(raw[: 4 * WIDTH]))[:WIDTH]
    if text.startswith("{") and '"MESSAGE"' in text:
        return _from_json(decode(raw))
    if (text[:1].isdigit() or text[:1] == "#") and (match := _NUMBERED.match(text)):
        text = text[match.end() :]
    seconds, machine, tag = None, "", ""
    if text[:1] in _LEADS:
        text = _LEVEL.sub("", _FACILITY.sub("", _FIELD.sub("", text)))
    if ": kern:" in text[:80] and (match := _TALOS.match(text)):
        seconds, text = _calendar(match), text[match.end() :]
    elif text[:1] != "[" and (match := _DATE.match(text) or _MONTH.match(text) or _UNIX_TIME.match(text)):
        seconds, text = _calendar(match), text[match.end() :]
        if unsent := _STREAM.match(text) or _LIBVIRT.match(text):
            text = text[unsent.end() :]
        elif "," not in match[0] and (sender := _RFC5424.match(text) or _SENDER.match(text)):
            machine, tag, text = sender["host"], sender["tag"], text[sender.end() :]
    text = _LEVEL.sub("", text) if text[:1] == "<" else text
    time, sender_host, sender_tag, text = _since(text, bool(machine))
    seconds = seconds if time is None else time
    if not machine:
        machine, tag = sender_host, sender_tag or tag
    text = _CALLER.sub("", text) if text[:1] == "[" else text
    if not tag and (match := _UNSENT.match(text)):
        tag, text = match["tag"].partition("[")[0], text[match.end() :]
    return Line(_QEMU.sub("", text), seconds, machine, tag)


def _since(text: str, known: bool) -> tuple[float | None, str, str, str]:
    """What dmesg puts before a line: (time, machine, program, the rest)."""
    if match := _KERNEL_TIME.match(text):
        seconds, rest = float(f"{match[1]}.{match[2]}"), text[match.end() :]
        if not known and (sender := _LATE_SENDER.match(rest)):
            return seconds, sender["host"], sender["kernel"] or sender["tag"], rest[sender.end() :]
        return seconds, "", "", rest
    if match := _RAW_KMSG.match(text):
        return int(match[1]) / 1e6, "", "", text[match.end() :]
    if match := _WALL_TIME.match(text):
        return _calendar(match), "", "", text[match.end() :]
    match = _DELTA.match(text)
    return None, "", "", text[match.end() :] if match else text


def _calendar(match: re.Match[str]) -> float:
    """Seconds that grow with the calendar; a date without a year counts in a year of its own."""
    parts = match.groupdict()
    if "h" not in parts:
        return float(match[1])
    clock = int(parts["h"]) * 3600 + int(parts["m"]) * 60 + int(parts["s"])
    if date := parts.get("date"):
        year, month, day = (int(word) for word in date.split("-"))
        return _DATED + ((year * 12 + month) * 31 + day) * 86400.0 + clock
    if parts.get("year"):
        # dmesg -T names the month in the writer's language, so that the line's place tells more than its date.
        return _DATELESS + int(parts["day"]) * 86400.0 + clock
    month = _MONTHS.get((parts.get("month") or "")[:3].lower(), 0)
    return _DATELESS + (month * 31 + int(parts["day"])) * 86400.0 + clock


def _from_json(text: str) -> Line:
    """A line of `journalctl -o json`: MESSAGE is text, or a list of bytes where it is not UTF-8.

    Source: systemd.journal-fields(7), and systemd's docs/JOURNAL_EXPORT_FORMATS.
    """
    try:
        entry = json.loads(text)
        said = entry["MESSAGE"]
        message = bytes(said).decode("utf-8", "replace") if isinstance(said, list) else str(said)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return Line(unmarked(text)[:WIDTH])
    since = str(entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry.get("__MONOTONIC_TIMESTAMP") or "")
    seconds = int(since) / 1e6 if since.isascii() and since.isdecimal() and len(since) < 19 else None
    machine, tag = str(entry.get("_HOSTNAME") or "")[:64], str(entry.get("SYSLOG_IDENTIFIER") or "")[:64]
    return Line(_QEMU.sub("", unmarked(message.partition("\n")[0])[:WIDTH]), seconds, machine, tag)
