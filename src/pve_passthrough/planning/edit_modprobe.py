"""Our modprobe.d and modules-load.d files: claims by ID, the order of loading, module options. Text in, text out.

1. Both files are ours alone and the same wishes always give the same text; lines that we do not know are kept.
2. `options vfio-pci ids=` counts once: kmod joins the options of all files in the order of their names, then the
   kernel command line's, and the kernel keeps the last `ids=` (kmod, libkmod-config.c; kernel, kernel/params.c,
   param_set_charp). So a foreign `ids=` is never joined by a second one; it is refused here.
3. A softdep line is an order of loading, no ban: `softdep DRIVER pre: vfio-pci` (modprobe.d(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..model.own import MODPROBE
from ..model.texts import modprobe_lines, parse_modprobe
from .proof import MARK, Unprovable

_IDS = re.compile(r"ids=(\S*)")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def foreign_ids(files: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """`options vfio-pci ids=` of files that are not ours: IDs by `path:line`."""
    found: dict[str, tuple[str, ...]] = {}
    for line in modprobe_lines(files):
        if line.path != MODPROBE and line.command == "options" and line.module == "vfio_pci":
            for value in _IDS.findall(line.rest):
                found[f"{line.path}:{line.number}"] = tuple(value.lower().split(","))
    return found


def own_ids(text: str | None) -> tuple[str, ...]:
    """IDs that our file claims."""
    lines = parse_modprobe(MODPROBE, text or "")
    chosen = (line for line in lines if line.command == "options" and line.module == "vfio_pci")
    return tuple(identity for line in chosen for value in _IDS.findall(line.rest) for identity in value.split(","))


def edit(
    text: str | None,
    *,
    ids: Sequence[str] = (),
    before: Sequence[str] = (),
    options: Iterable[tuple[str, str]] = (),
) -> str | None:
    """Our modprobe.d file with these claims, orders and options and all that it had; None when it holds nothing."""
    for identity in ids:
        if not _ID.fullmatch(identity):
            raise Unprovable(MODPROBE, f"{identity!r} is no vendor:device pair")
    all_ids = tuple(dict.fromkeys((*own_ids(text), *ids)))
    lines = [f"options vfio-pci ids={','.join(all_ids)}"] if all_ids else []
    fresh = [f"softdep {module} pre: vfio-pci" for module in before]
    fresh += [f"options {module} {option}" for module, option in options]
    kept = [line for line in (text or "").split("\n") if line.strip() and line != MARK and not _is_ids(line)]
    lines += dict.fromkeys((*kept, *fresh))
    result = "\n".join((MARK, *lines, "")) if lines else None
    _prove(result, all_ids, fresh)
    return text if text is not None and result is not None and _same(text, result) else result


def _is_ids(line: str) -> bool:
    return any(parsed.command == "options" and parsed.module == "vfio_pci" and parsed.rest.startswith("ids=")
               and " " not in parsed.rest for parsed in parse_modprobe(MODPROBE, line))  # fmt: skip


def _same(left: str, right: str) -> bool:
    statements = [
        [(line.command, line.module, line.rest) for line in parse_modprobe("", text)] for text in (left, right)
    ]
    return statements[0] == statements[1]


def _prove(text: str | None, ids: Sequence[str], fresh: Sequence[str]) -> None:
    """The text, read again, claims exactly these IDs and holds every wanted statement."""
    if own_ids(text) != tuple(ids):
        raise Unprovable(MODPROBE, "this program's own file was changed so that its claims can no longer be told apart")
    present = {(line.command, line.module, line.rest) for line in parse_modprobe(MODPROBE, text or "")}
    for line in parse_modprobe(MODPROBE, "\n".join(fresh)):
        if (line.command, line.module, line.rest) not in present:
            raise Unprovable(MODPROBE, f"{line.raw!r} would not be read as it is written")


def modules_load(text: str | None) -> str:
    """Our modules-load.d file: vfio-pci, loaded early in the boot of the root file system (modules-load.d(5))."""
    if text is not None and any(line.strip() in ("vfio-pci", "vfio_pci") for line in text.split("\n")):
        return text
    return "\n".join(((text or MARK).rstrip("\n"), "vfio-pci", ""))
