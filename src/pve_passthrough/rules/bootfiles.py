"""Where this host's next kernel command line comes from, and how to change it. Pure reading of `Facts.files`.

1. The right file is the loader's: /etc/default/grub for GRUB, the first line of /etc/kernel/cmdline for systemd-boot.
   Source: Proxmox VE administration guide, Host Bootloader; proxmox-boot-tool, zz-proxmox-boot.
2. A text that cannot be read is passed over here; the rule about broken files speaks about it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..model.facts import Facts, Loader
from ..model.finding import Fix, Safety
from ..model.own import CLAIM_SCRIPT
from ..model.texts import (
    GRUB_DIR,
    GRUB_FILE,
    KERNEL_CMDLINE,
    MODPROBE_DIR,
    Assignment,
    TextError,
    final_value,
    grub_assignments,
    grub_files,
    modprobe_lines,
    split_argument,
    split_cmdline,
)
from ..model.value import dataclass

GRUB_NAMES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
RUNNING = "/proc/cmdline"


@dataclass(frozen=True, slots=True)
class Source:
    """Kernel arguments written in one place. `used`: this host's loader reads it; None: nobody could say."""

    path: str
    line: int
    tokens: tuple[str, ...]
    used: bool | None

    @property
    def where(self) -> str:
        return self.path if self.path == RUNNING else f"{self.path}:{self.line}"

    def values(self, name: str) -> tuple[str, ...]:
        """Values of the argument `name` (underscores), in order."""
        pairs = (split_argument(token) for token in self.tokens)
        return tuple(value or "" for found, value in pairs if found == name)


def grub_lines(facts: Facts) -> tuple[Assignment, ...]:
    """GRUB's assignments, none when a file cannot be read as shell."""
    return _grub_lines(tuple((path, facts.files[path] or "") for path in grub_files(facts.files)))


@lru_cache(maxsize=4)
def _grub_lines(files: tuple[tuple[str, str], ...]) -> tuple[Assignment, ...]:
    """A dozen rules ask for the same few texts; the last few are remembered."""
    try:
        return tuple(grub_assignments(dict(files)))
    except TextError:
        return ()


def sources(facts: Facts) -> tuple[Source, ...]:
    """Every place that names kernel arguments: the running kernel, GRUB's files, /etc/kernel/cmdline."""
    found: list[Source] = []
    if facts.kernel.cmdline is not None:
        found.append(Source(RUNNING, 1, tuple(split_cmdline(facts.kernel.cmdline)), True))
    return (*found, *configured(facts))


def configured(facts: Facts) -> tuple[Source, ...]:
    """The places that the next boot's arguments are written in."""
    found: list[Source] = []
    lines = grub_lines(facts)
    for name in GRUB_NAMES:
        if value := final_value(lines, name):
            found.append(Source(value.path, value.line, tuple(split_cmdline(value.value)), uses_grub(facts)))
    text = facts.files.get(KERNEL_CMDLINE)
    if text:
        found.append(Source(KERNEL_CMDLINE, 1, tuple(split_cmdline(text.split("\n")[0])), uses_systemd_boot(facts)))
    return tuple(found)


def uses_grub(facts: Facts) -> bool | None:
    loaders = facts.boot.loaders
    return None if loaders is None else bool({Loader.GRUB, Loader.GRUB_ESP} & set(loaders))


def uses_systemd_boot(facts: Facts) -> bool | None:
    loaders = facts.boot.loaders
    return None if loaders is None else Loader.SYSTEMD_BOOT in loaders


def find(facts: Facts, name: str) -> list[tuple[Source, str]]:
    """(place, value) of every mention of the argument `name`."""
    return [(source, value) for source in sources(facts) for value in source.values(name)]


def argument_fix(facts: Facts, token: str, *, remove: bool = False) -> Fix:
    """How a person gives this host a kernel argument (or takes it away): the loader's own file and its own refresh."""
    verb = f"Take {token} out of" if remove else f"Add {token} to"
    steps: list[str] = []
    commands: list[str] = []
    if uses_grub(facts):
        path, name = _grub_place(facts, token) if remove else (GRUB_FILE, GRUB_NAMES[-1])
        steps.append(f"{verb} {name} in {path}, then run update-grub")
        commands += [f"editor {path}", "update-grub"]
    if uses_systemd_boot(facts):
        steps.append(f"{verb} the one line of {KERNEL_CMDLINE}, then run proxmox-boot-tool refresh")
        commands += [f"editor {KERNEL_CMDLINE}", "proxmox-boot-tool refresh"]
    if not steps:
        text = f"{verb} the kernel command line in this boot loader's file (which loader it is, nobody could say)"
        return Fix(f"{text} and reboot.", Safety.SHOW)
    return Fix(f"{'; '.join(steps)}; and reboot.", Safety.ASK, (*commands, "reboot"))


def refreshes(facts: Facts) -> tuple[str, ...]:
    """Commands that rebuild this host's boot entries.

    Source: Proxmox VE administration guide, Editing the Kernel Commandline (update-grub refreshes the ESPs, too).
    """
    wanted = ((uses_grub(facts), "update-grub"), (uses_systemd_boot(facts), "proxmox-boot-tool refresh"))
    return tuple(command for used, command in wanted if used)


def _grub_place(facts: Facts, token: str) -> tuple[str, str]:
    """File and variable in which the token stands; GRUB's main file when it stands in none of them."""
    words = set(token.split())
    for line in grub_lines(facts):
        if line.name in GRUB_NAMES and words & set(line.value.split()):
            return line.path, line.name
    return GRUB_FILE, GRUB_NAMES[-1]


def planned_argument_fix(facts: Facts, token: str, command: str, *, remove: bool = False) -> Fix:
    """A kernel argument that a plan of ours sets (or takes away): the command, and in words how to do it by hand."""
    by_hand = argument_fix(facts, token, remove=remove)
    if by_hand.safety is Safety.SHOW:
        return by_hand
    text = f"`pve-passthrough up` does it together with the rest. By hand: {by_hand.text[0].lower()}{by_hand.text[1:]}"
    return Fix(text, Safety.ASK, (command,))


def edit_fix(path: str, text: str) -> Fix | None:
    """How a person mends one of the boot files, and what is rebuilt from it; None for the running kernel's words.

    Source: Proxmox VE administration guide, Editing the Kernel Commandline; Debian initramfs-tools, mkinitramfs (copies
    modprobe.d, but not /etc/modules).
    """
    if path == RUNNING:
        return None
    rebuild: tuple[str, ...] = ()
    if path == GRUB_FILE or path.startswith(GRUB_DIR):
        rebuild = ("update-grub", "reboot")
    elif path == KERNEL_CMDLINE:
        rebuild = ("proxmox-boot-tool refresh", "reboot")
    elif path.startswith((MODPROBE_DIR, "/etc/initramfs-tools/")):
        rebuild = ("update-initramfs -u -k all", "reboot")
    return Fix(text, Safety.SHOW, (f"editor {path}", *rebuild))


@dataclass(frozen=True, slots=True)
class EarlyIds:
    """One `ids=` that vfio-pci reads: where it stands, its text, and whether a later one replaces it."""

    path: str
    line: int
    text: str
    replaced: bool = False

    @property
    def where(self) -> str:
        return self.path if self.path == RUNNING else f"{self.path}:{self.line}"

    @property
    def entries(self) -> tuple[str, ...]:
        """The list's entries as written."""
        return tuple(part for part in self.text.split(",") if part)

    @property
    def ids(self) -> tuple[str, ...]:
        """`vendor:device` of the entries that the kernel would take, lower case, four digits each."""
        return tuple(name for part in self.entries if (name := vendor_device(part)))


def vendor_device(entry: str) -> str:
    """`10de:2684[:subvendor…]` as `10de:2684`; empty for what the kernel calls an invalid id string.

    Source: kernel, drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids (sscanf with two hexadecimal numbers at least).
    """
    vendor, _, rest = entry.strip().partition(":")
    product = rest.split(":")[0]
    try:
        return f"{int(vendor, 16):04x}:{int(product, 16):04x}"
    except ValueError:
        return ""


def modprobe_ids(facts: Facts) -> tuple[EarlyIds, ...]:
    """Every `options vfio-pci ids=` of modprobe.d. kmod joins all options of a module and the kernel keeps the last
    `ids=` (kmod: kmod_module_get_options; kernel: module_param_string in vfio_pci.c)."""
    found: list[EarlyIds] = []
    for line in modprobe_lines(facts.files):
        if line.command == "options" and line.module == "vfio_pci":
            words = [word for word in line.rest.split() if word.startswith("ids=")]
            found += [EarlyIds(line.path, line.number, word[4:].strip('"')) for word in words]
    return tuple(replace(entry, replaced=True) for entry in found[:-1]) + tuple(found[-1:])


def early_ids(facts: Facts) -> tuple[EarlyIds, ...]:
    """Every list of IDs that vfio-pci would take at boot: modprobe.d and kernel command lines that are read."""
    found = list(modprobe_ids(facts))
    for source in (*configured(facts), *sources(facts)[:1]):
        if source.used is not False:
            said = {entry.text for entry in found if source.path == RUNNING}  # what is on disk is told from there
            values = dict.fromkeys(source.values("vfio_pci.ids"))
            found += [EarlyIds(source.path, source.line, value) for value in values if value and value not in said]
    return tuple(found)


def address_claims(facts: Facts) -> dict[str, str]:
    """Functions that our own initramfs script claims: address to `vendor:device`."""
    text = facts.files.get(CLAIM_SCRIPT) or ""
    words = [line.split() for line in text.splitlines()]
    return {parts[1]: parts[2] for parts in words if len(parts) == 3 and parts[0] == "claim"}
