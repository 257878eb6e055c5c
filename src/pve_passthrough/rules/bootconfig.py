"""Rules about the files that decide the next boot: GRUB's settings, /etc/kernel/cmdline, modprobe.d, module lists.

1. A line is quoted with its file and number, as it stands there.
2. Leftovers that do nothing are notes; lines that mean something else than their author thought are harms.
3. Nothing here is mended by us: these files belong to other people, so every fix is shown, never done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ..knowledge.arguments import MISSPELT, PROSE, RELEVANT, REPEATABLE, VFIO_PCI_OPTIONS, WITHOUT_EFFECT
from ..knowledge.binding import likely_driver
from ..knowledge.kernels import build_of
from ..model.facts import Facts, Loader
from ..model.finding import Actor, Finding, Fix, Level
from ..model.own import CLAIM_SCRIPT, GRUB_DROP_IN
from ..model.pci import Device
from ..model.texts import (
    GRUB_FILE,
    KERNEL_CMDLINE,
    MODPROBE_DIR,
    ModprobeLine,
    TextError,
    grub_files,
    modprobe_lines,
    module_lines,
    parse_grub,
    split_argument,
)
from .bootfiles import (
    GRUB_NAMES,
    RUNNING,
    Source,
    argument_fix,
    configured,
    early_ids,
    edit_fix,
    find,
    grub_lines,
    modprobe_ids,
    refreshes,
    sources,
    uses_grub,
    uses_systemd_boot,
    vendor_device,
)
from .subject import Request, are, guests, names, reason, show, taken, unknown

PACKAGE_BLACKLIST = f"{MODPROBE_DIR}pve-blacklist.conf"


def _harm(rule: str, subject: str, message: str, evidence: Iterable[str], fix: Fix | None = None) -> Finding:
    return Finding(f"bootconfig.{rule}", Level.HARMS, subject, message, tuple(evidence), Actor.US, fix)


def _note(rule: str, subject: str, message: str, evidence: Iterable[str], fix: Fix | None = None) -> Finding:
    return Finding(f"bootconfig.{rule}", Level.NOTE, subject, message, tuple(evidence), Actor.US, fix)


def _at(line: ModprobeLine) -> str:
    return f"{line.path}:{line.number}: {line.raw.strip()}"


# --- loaders ---------------------------------------------------------------------------------------------------------


def loader(facts: Facts, request: Request) -> Iterator[Finding]:
    """Which boot loader starts this host?

    Why: GRUB and systemd-boot read different files. An edit of the wrong one changes nothing, and everything after it
        is searched in the wrong place. That /etc/kernel/cmdline exists proves nothing: every ZFS or BTRFS
        installation has it.
    Look at: `proxmox-boot-tool status`; without /etc/kernel/proxmox-boot-uuids it is GRUB; `efibootmgr -v`.
    Fix: Edit the file that this loader reads; on a mixed host both. The proof is /proc/cmdline after the reboot.
    Source: Proxmox VE administration guide, Host Bootloader; proxmox-boot-tool, zz-proxmox-boot.
    """
    loaders = facts.boot.loaders
    if loaders is None:
        if facts.pve.installed is not False:
            yield unknown(
                "bootconfig.loader",
                "host",
                "Which boot loader starts this host, nobody could say.",
                reason(facts, "boot.loaders", "boot"),
            )
    elif Loader.SYSTEMD_BOOT in loaders and len(set(loaders)) > 1:
        yield _note(
            "loader",
            "host",
            f"This host may start through {names(one.value for one in loaders)}: "
            "kernel arguments belong into both files.",
            (f"{esp.uuid}: {names(one.value for one in esp.loaders)}" for esp in facts.boot.esps),
            show("Write both files, and clean up the ESPs.", "proxmox-boot-tool status", "proxmox-boot-tool clean"),
        )


def wrong_file(facts: Facts, request: Request) -> Iterator[Finding]:
    """Were kernel arguments written into a file that this boot loader does not read?

    Why: Guides name /etc/default/grub only. On a host that starts through systemd-boot (ZFS or BTRFS root with UEFI
        and without Secure Boot) that file is not read, and the arguments never reach the kernel; and the other way
        round. Of /etc/kernel/cmdline only the first line counts.
    Look at: `proxmox-boot-tool status`, /etc/default/grub, /etc/kernel/cmdline, `cat /proc/cmdline`.
    Fix: Write them into the right file and run its refresh: update-grub, or proxmox-boot-tool refresh.
    Source: Proxmox VE administration guide, Host Bootloader; proxmox-boot-tool, zz-proxmox-boot.
    """
    read = {_plain(token) for source in sources(facts) if source.used for token in source.tokens}
    for source in configured(facts):
        lost = [token for token in source.tokens if _name(token) in RELEVANT and _plain(token) not in read]
        if lost and source.used is False:
            yield _harm(
                "wrong-file",
                source.path,
                f"{names(lost)} {are(lost)} in {source.path}, which this host's boot loader does not read.",
                (f"{source.where}: {' '.join(source.tokens)}", f"boot loader: {_loader_names(facts)}"),
                argument_fix(facts, " ".join(lost)),
            )
    lines = (facts.files.get(KERNEL_CMDLINE) or "").splitlines()
    more = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if more and uses_systemd_boot(facts) is not False:
        yield _harm(
            "wrong-file",
            KERNEL_CMDLINE,
            f"{KERNEL_CMDLINE} has more than one line, and only the first is read.",
            (f"{KERNEL_CMDLINE}:{number}: {line.strip()}" for number, line in more[:4]),
            show("Put everything on the first line.", f"editor {KERNEL_CMDLINE}", "proxmox-boot-tool refresh"),
        )


def _void(token: str) -> bool:
    """An argument without any effect: whether the kernel got it is of no interest."""
    name, value = split_argument(token)
    return any(name == row.name and (value or "").lower() in row.values for row in WITHOUT_EFFECT)


def _loader_names(facts: Facts) -> str:
    return names(one.value for one in facts.boot.loaders or ())


def _name(token: str) -> str:
    return split_argument(token)[0]


def _plain(token: str) -> tuple[str, str | None]:
    return split_argument(token)


def no_root(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does /etc/kernel/cmdline still name the root?

    Why: Without root= proxmox-boot-tool refuses to refresh ("No root= parameter in /etc/kernel/cmdline found!"), and
        a system started from it would not find its root file system.
    Look at: the first line of /etc/kernel/cmdline.
    Fix: Put root=ZFS=… boot=zfs (or the root of this host, from /proc/cmdline) back onto the line.
    Source: proxmox-boot-tool, zz-proxmox-boot; recorded exchanges with Proxmox VE 9.2.
    """
    text = facts.files.get(KERNEL_CMDLINE)
    if text is None or not (facts.boot.managed or uses_systemd_boot(facts)):
        return
    first = text.split("\n")[0]
    if not any(token.startswith("root=") for token in first.split()):
        yield _harm(
            "no-root",
            KERNEL_CMDLINE,
            f"{KERNEL_CMDLINE} names no root: the boot files cannot be refreshed.",
            (f"{KERNEL_CMDLINE}:1: {first}",),
            show("Put the root back, as in /proc/cmdline.", f"editor {KERNEL_CMDLINE}", "proxmox-boot-tool refresh"),
        )


def not_running(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is what was written down also in effect?

    Why: Arguments work after the refresh and the reboot, not when the file is saved.
    Look at: the loader's file and `cat /proc/cmdline`.
    Fix: Run update-grub or proxmox-boot-tool refresh, then reboot.
    Source: Proxmox VE administration guide, Editing the Kernel Commandline.
    """
    running = next((set(map(_plain, source.tokens)) for source in sources(facts) if source.path == RUNNING), None)
    if running is None:
        return
    for source in configured(facts):
        if source.used:
            waiting = [
                token
                for token in source.tokens
                if _name(token) in RELEVANT and _plain(token) not in running and not _void(token)
            ]
            if waiting:
                yield _note(
                    "not-running",
                    source.path,
                    f"{names(waiting)} {are(waiting)} written down, but the running kernel was not started with it.",
                    (f"{source.where}: {' '.join(source.tokens)}", f"{RUNNING}: {facts.kernel.cmdline}"),
                    show("Refresh the boot loader and reboot.", *refreshes(facts), "reboot"),
                )


def stale_initramfs(facts: Facts, request: Request) -> Iterator[Finding]:
    """Has the initramfs been rebuilt since these files were made?

    Why: The initramfs holds a copy of /etc/modprobe.d, and the host's drivers are loaded from there. A file that was
        made after the last rebuild does nothing at the next boot, and one that was removed since still works.
    Look at: `lsinitramfs /boot/initrd.img-$(uname -r) | grep modprobe.d` beside `ls /etc/modprobe.d`. What was changed
        inside a file that is in both cannot be seen so.
    Fix: `update-initramfs -u -k all`, which rebuilds those of every kernel, then reboot.
    Source: Debian initramfs-tools, mkinitramfs; Proxmox VE administration guide, PCI(e) passthrough.
    """
    inside = facts.modules.initramfs_files
    if inside is None or facts.modules.initramfs_tool != "initramfs-tools":
        return
    image = f"/boot/initrd.img-{facts.kernel.release}"
    wanted = {line.path for line in modprobe_lines(facts.files)} | {CLAIM_SCRIPT}
    missing = [path for path in sorted(wanted) if facts.files.get(path) is not None and path not in inside]
    listed = facts.files.get(MODPROBE_DIR) == "directory"
    gone = [path for path in sorted(inside) if listed and path.startswith(MODPROBE_DIR) and path not in facts.files]
    gone += [CLAIM_SCRIPT] if CLAIM_SCRIPT in inside and facts.files.get(CLAIM_SCRIPT, "") is None else []
    rebuild = show("Rebuild it for every kernel and reboot.", "update-initramfs -u -k all", "reboot")
    if missing:
        yield _harm(
            "stale-initramfs",
            image,
            f"{names(missing)} {are(missing)} not in the initramfs: it was built before, and the next boot does not "
            "know of it.",
            [f"{image}: no {path}" for path in missing],
            rebuild,
        )
    if gone:
        yield _note(
            "stale-initramfs",
            image,
            f"{names(gone)} {are(gone)} gone, and still in the initramfs: it works until that is rebuilt.",
            [f"{image}: {path}" for path in gone],
            rebuild,
        )


def needless(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is intel_iommu=on still needed?

    Why: Since Proxmox' kernel 6.8 Intel's IOMMU is on by default. The argument does no harm where it stands, and an
        older kernel that is still installed needs it; but nobody has to add it, and "DMAR: IOMMU enabled" in the
        kernel log comes from it and proves nothing.
    Look at: `uname -r`, the loader's file.
    Fix: Leave it, or take it out when no kernel before 6.8 is left.
    Source: Proxmox VE administration guide, PCI(e) passthrough; kernel: drivers/iommu/intel/iommu.c.
    """
    build = build_of(facts.kernel.release)
    running = any(source.path == RUNNING for source, value in find(facts, "intel_iommu") if value == "on")
    if build is None or build[:2] < (6, 8) or not facts.iommu.on or not running:
        return
    for source in configured(facts):
        if source.used and source.path != GRUB_DROP_IN and source.values("intel_iommu") == ("on",):
            yield _note(
                "needless",
                source.path,
                f"intel_iommu=on is not needed any more: kernel {facts.kernel.release} has the IOMMU on by itself.",
                (f"{source.where}: {' '.join(source.tokens)}",),
            )


# --- GRUB's file -----------------------------------------------------------------------------------------------------


def broken_quote(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can GRUB's settings be read at all?

    Why: The file is shell. One missing quote, as a guide prints it, and update-grub ends with "Unterminated quoted
        string": no change reaches the boot loader any more, no new kernel either.
    Look at: `sh -n /etc/default/grub`.
    Fix: Close the quote on the line in question, then `update-grub`.
    Source: GRUB manual, Simple configuration handling; tried with dash: exit status 2.
    """
    for path in grub_files(facts.files):
        try:
            parse_grub(path, facts.files[path] or "")
        except TextError as error:
            text = (facts.files[path] or "").split("\n")
            yield _harm(
                "broken-quote",
                path,
                f"{path} cannot be read by the shell: line {error.line} opens a quote and does not close it.",
                (f"{path}:{error.line}: {text[error.line - 1].strip()}",),
                show("Close the quote.", f"editor {path}", f"sh -n {path}", "update-grub"),
            )


def lost_assignment(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is an assignment lost?

    Why: The last assignment of a variable counts, so a line appended with `>>` takes the words of the first one away.
        `+=` is no shell assignment: dash looks for a program of that name. And `A=quiet splash` without quotes sets
        nothing and starts a program called splash.
    Look at: `grep -n GRUB_CMDLINE /etc/default/grub /etc/default/grub.d/*`.
    Fix: One line with all words in quotes; a snippet extends it: "$GRUB_CMDLINE_LINUX_DEFAULT more".
    Source: POSIX shell command language, Simple Commands; GRUB manual, Simple configuration handling.
    """
    if uses_grub(facts) is False:
        return
    lines = [line for line in grub_lines(facts) if line.name in GRUB_NAMES and not line.conditional]
    for line in lines:
        where = f"{line.path}:{line.line}: {line.raw}"
        if line.operator == "+=":
            yield _harm(
                "lost-assignment",
                line.path,
                f"{line.name}+= at {line.path}:{line.line} is no assignment for the shell that reads it.",
                (where,),
                show(f'Write {line.name}="${line.name} …".', f"editor {line.path}", "update-grub"),
            )
        elif line.swallowed:
            yield _harm(
                "lost-assignment",
                line.path,
                f"{line.name} at {line.path}:{line.line} sets nothing: without quotes it starts {line.swallowed!r}.",
                (f"{where} {line.swallowed}",),
                show("Put the words in quotes.", f"editor {line.path}", "update-grub"),
            )
    for name in GRUB_NAMES:
        kept = [line for line in lines if line.name == name and line.effective]
        for earlier, later in pairwise(kept):
            gone = [word for word in earlier.value.split() if word not in later.value.split()]
            if any(_name(word) in RELEVANT for word in gone):
                yield _harm(
                    "lost-assignment",
                    later.path,
                    f"{name} is set twice: the second line takes {names(gone)} away.",
                    (f"{earlier.path}:{earlier.line}: {earlier.raw}", f"{later.path}:{later.line}: {later.raw}"),
                    show("Make one line of them.", f"editor {later.path}", "update-grub"),
                )


# --- arguments -------------------------------------------------------------------------------------------------------


def no_effect(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are there arguments that do nothing?

    Why: amd_iommu=on is no option (the AMD IOMMU is on by default), iommu=on is none either, and video=efifb:off
        speaks to a frame buffer that Proxmox kernels no longer use. They do no harm, but people rely on them.
    Look at: `cat /proc/cmdline`; "AMD-Vi: Unknown option - 'on'" in the kernel log.
    Fix: Remove them.
    Source: kernel: Documentation/admin-guide/kernel-parameters.txt; drivers/iommu/amd/init.c; Proxmox kernel
        changelog 5.15.19-2.
    """
    for row in WITHOUT_EFFECT:
        hits = [(s, v) for s in sources(facts) for v in s.values(row.name) if v.lower() in row.values]
        if hits:
            token = f"{row.name}={hits[0][1]}"
            yield _note(
                "no-effect",
                "host",
                f"{token} has no effect: it {row.why}."
                if row.why.startswith(("is ", "switches"))
                else f"{token} has no effect: {row.why}.",
                (f"{source.where}: {row.name}={value}" for source, value in hits),
                argument_fix(facts, token, remove=True),
            )


def duplicates(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is an argument given twice?

    Why: For most arguments the last one counts, and the first is read by people only. vfio-pci.ids given twice takes
        the second list alone.
    Look at: `cat /proc/cmdline`, the loader's file.
    Fix: Keep one of them; lists are joined by commas.
    Source: kernel: kernel/params.c, parse_args; Documentation/admin-guide/kernel-parameters.txt.
    """
    told: set[tuple[str, str]] = set()
    for source in _files_first(facts):
        if source.used is False:
            continue
        for name, text in _repeated(source):
            if (name, text) not in told:
                told.add((name, text))
                yield _note(
                    "duplicates",
                    source.path,
                    f"{name} is given more than once in {source.path}: {text}.",
                    (f"{source.where}: {' '.join(source.tokens)}",),
                    edit_fix(source.path, "Keep one of them."),
                )


def _files_first(facts: Facts) -> tuple[Source, ...]:
    """What stands in a file is told from there, and only the rest from /proc/cmdline."""
    found = sources(facts)
    return tuple(sorted(found, key=lambda source: source.path == RUNNING))


def _repeated(source: Source) -> Iterator[tuple[str, str]]:
    seen: dict[str, list[str]] = {}
    for token in source.tokens:
        if token == "--":  # what follows is for init
            break
        seen.setdefault(_name(token), []).append(token)
    for name, tokens in seen.items():
        same = len(set(tokens)) < len(tokens)
        adds_up = (name in REPEATABLE or name.startswith("rd.")) and not same
        if len(tokens) > 1 and not adds_up and ("=" in tokens[0] or name in RELEVANT):
            yield name, " ".join(tokens)


def prose(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there something on the kernel command line that is no argument?

    Why: The command line knows no comments: a # and all words behind it go to the kernel and on to init. Text pasted
        from a web page brings typographic quotes and no-break spaces along, which make one argument of two.
    Look at: `cat -A` on the loader's file, `cat /proc/cmdline`.
    Fix: Remove it.
    Source: kernel: lib/cmdline.c, next_arg; Documentation/admin-guide/kernel-parameters.txt.
    """
    told: set[str] = set()
    for source in _files_first(facts):
        odd = [token for token in source.tokens if _odd(token)]
        if odd and source.used is not False and not told.issuperset(odd):
            told.update(odd)
            yield _harm(
                "prose",
                source.path,
                f"{source.path} hands words to the kernel that are no arguments: {' '.join(odd[:8])}.",
                (f"{source.where}: {' '.join(source.tokens)}",),
                edit_fix(source.path, "Remove them."),
            )


def _odd(token: str) -> bool:
    return token.startswith("#") or not token.isascii() or token.lower().rstrip(".,:;!") in PROSE


def dark_console(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the boot console switched off on purpose?

    Why: initcall_blacklist=sysfb_init keeps the boot frame buffer away, so that it cannot hold a card's memory. Its
        price: the host shows nothing until a graphics driver loads; with that driver forbidden or the card with
        vfio-pci it shows nothing at all, also when it does not start. Guides spread it; vfio-pci evicts the frame
        buffer of VGA cards by itself (kernel 6.1 and later).
    Look at: `cat /proc/cmdline`, the file that this boot loader reads.
    Fix: Remove it unless a guest start fails with "BAR N: can't reserve" without it.
    Source: kernel: init/main.c, initcall_blacklisted; drivers/video/aperture.c; drivers/vfio/pci/vfio_pci_core.c;
        Proxmox kernel configuration, SYSFB_SIMPLEFB and DRM_SIMPLEDRM.
    """
    hits = [(s, v) for s in sources(facts) if s.used is not False for v in s.values("initcall_blacklist")]
    hits = [(source, value) for source, value in hits if "sysfb_init" in value.split(",")]
    if hits:
        yield _note(
            "dark-console",
            "host",
            "initcall_blacklist=sysfb_init keeps the host's screen dark until a graphics driver loads.",
            (f"{source.where}: initcall_blacklist={value}" for source, value in hits),
            argument_fix(facts, f"initcall_blacklist={hits[0][1]}", remove=True),
        )


# --- modprobe.d ------------------------------------------------------------------------------------------------------


def vfio_ids(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does vfio-pci understand its list of IDs?

    Why: The list is vendor:device, separated by commas, without a space. A space ends the list; a comma between
        vendor and device makes two invalid entries ("invalid id string"), as a known misprint in documentation has
        it. With several lines only the last ids= counts, because a module keeps the last value of an option.
    Look at: `modprobe -c | grep vfio_pci`; "vfio_pci: invalid id string" in the kernel log.
    Fix: One line: options vfio-pci ids=VVVV:DDDD,VVVV:DDDD
    Source: kernel: drivers/vfio/pci/vfio_pci.c, ids; kmod: libkmod/libkmod-module.c, kmod_module_get_options.
    """
    found = modprobe_ids(facts)
    for entry in early_ids(facts):
        wrong = [part for part in entry.entries if not vendor_device(part)]
        zero = [part for part in entry.ids if part == "0000:0000"]
        if wrong or zero or not entry.entries:
            yield _harm(
                "vfio-ids",
                entry.path,
                f"vfio-pci does not understand {names(wrong or zero) or 'an empty list'} in its list of IDs.",
                (f"{entry.where}: ids={entry.text}",),
                edit_fix(entry.path, "Write ids=VVVV:DDDD,VVVV:DDDD without spaces."),
            )
    for line in modprobe_lines(facts.files):
        if line.command == "options" and line.module == "vfio_pci":
            stray = [word for word in line.rest.split() if vendor_device(word.strip(",")) and "=" not in word]
            if stray:
                yield _harm(
                    "vfio-ids",
                    line.path,
                    f"A space ends the list of IDs: {names(stray)} {are(stray)} not taken by vfio-pci.",
                    (_at(line),),
                    edit_fix(line.path, "Write ids=VVVV:DDDD,VVVV:DDDD without spaces."),
                )
    lost = [name for entry in found if entry.replaced for name in entry.ids if name not in found[-1].ids]
    if lost:
        yield _harm(
            "vfio-ids",
            found[-1].path,
            f"ids= is given {len(found)} times and only the last counts: "
            f"{names(dict.fromkeys(lost))} {are(set(lost))} not taken.",
            (f"{entry.where}: ids={entry.text}" for entry in found),
            edit_fix(found[-1].path, "Make one list of them."),
        )


def vfio_ids_host(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does early binding take what the host needs?

    Why: ids= takes every device with that number at boot, before its own driver: also the twin that carries the
        host's disk or network. The next boot then ends without root, or without anybody reaching it.
    Look at: `lspci -nn` for each number of the list.
    Fix: Take the number off the list and claim the one device by its address.
    Source: kernel: drivers/vfio/pci/vfio_pci.c, ids; Documentation/ABI/testing/sysfs-bus-pci, driver_override.
    """
    asked = {device.address for device in taken(facts, request)} if request != Request() else set()
    # What the guest shall have is judged as a hazard of its own; here it is about what nobody wants to give away.
    needed = {use.address: use for use in facts.uses if use.vital or use.address not in asked}
    for entry in early_ids(facts):
        if entry.replaced:
            continue
        for device in facts.devices:
            use = needed.get(device.address)
            if use is not None and device.id in entry.ids:
                yield Finding(
                    "bootconfig.vfio-ids-host",
                    Level.BLOCKS if use.vital else Level.HARMS,
                    str(device.address),
                    f"The next boot gives {device} to vfio-pci, and the host needs it ({use.detail}).",
                    (f"{entry.where}: ids={entry.text}", f"{device.address}: {device.id}, {use.detail}"),
                    Actor.US,
                    edit_fix(entry.path, f"Take {device.id} off the list and claim the other device by its address.")
                    if entry.path != RUNNING
                    else argument_fix(facts, f"vfio-pci.ids={entry.text}", remove=True),
                    "never" if use.vital else "",
                )


def vfio_ids_stale(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does early binding name devices that this machine does not have?

    Why: Numbers of an earlier card, or of the guide's author, do nothing until a card with that number is put in.
        Subsystem numbers are taken for vendor and device.
    Look at: `lspci -nn -d VVVV:DDDD`.
    Fix: Remove them.
    Source: kernel: drivers/vfio/pci/vfio_pci.c, ids.
    """
    here = {device.id for device in facts.devices}
    subsystems = {device.subsystem for device in facts.devices}
    if not here:
        return
    for entry in early_ids(facts):
        gone = list(dict.fromkeys(name for name in entry.ids if name not in here and name != "0000:0000"))
        if gone and not entry.replaced:
            boards = [name for name in gone if name in subsystems]
            extra = f" ({names(boards)} {are(boards)} of a subsystem, which ids= does not look at)" if boards else ""
            yield _note(
                "vfio-ids-stale",
                entry.path,
                f"No device of this machine has {names(gone)}{extra}.",
                (f"{entry.where}: ids={entry.text}",),
                edit_fix(entry.path, "Remove them."),
            )


def vfio_options(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the options of vfio-pci spelt right?

    Why: An option that a module does not know is passed over with one line in the kernel log. On the kernel command
        line it is vfio-pci.ids=, in modprobe.d only ids=.
    Look at: `modinfo -p vfio-pci`; "unknown parameter" in the kernel log.
    Fix: Spell it as modinfo does.
    Source: kernel: drivers/vfio/pci/vfio_pci.c, module_param; kernel/module/main.c, unknown_module_param_cb.
    """
    for line in modprobe_lines(facts.files):
        if line.command != "options" or line.module != "vfio_pci":
            continue
        wrong = [
            word
            for word in line.rest.split("#")[0].split()
            if word.partition("=")[0].replace("-", "_") not in VFIO_PCI_OPTIONS and not vendor_device(word.strip(","))
        ]
        if wrong:
            yield _harm(
                "vfio-options",
                line.path,
                f"vfio-pci has no option {names(wrong)}.",
                (_at(line),),
                edit_fix(line.path, f"Its options are {names(sorted(VFIO_PCI_OPTIONS))}."),
            )


def disable_vga(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does disable_vga meet a guest that needs VGA?

    Why: disable_vga=1 opts out of VGA arbitration, which is right for guests with OVMF only. With SeaBIOS and x-vga,
        and with Intel's legacy mode, it takes away the region that they need, and the start fails.
    Look at: `grep -r disable_vga /etc/modprobe.d`; the lines `bios:` and `hostpciN:`.
    Fix: Remove disable_vga=1, or use OVMF.
    Source: Proxmox VE administration guide, PCI(e) passthrough; kernel: drivers/vfio/pci/vfio_pci_core.c.
    """
    lines = [
        _at(line)
        for line in modprobe_lines(facts.files)
        if line.command == "options"
        and line.module == "vfio_pci"
        and any(word.lower() in ("disable_vga=1", "disable_vga=y", "disable_vga") for word in line.rest.split())
    ]
    if not lines:
        return
    for guest in guests(facts, request):
        bios = guest.value("bios") or "seabios"
        needs = [e for e in guest.hostpci if (bios != "ovmf" and e.on("x-vga")) or e.on("legacy-igd")]
        if needs:
            yield _harm(
                "disable-vga",
                f"vm:{guest.vmid}",
                f"disable_vga=1 takes the VGA region away that {guest.name} ({guest.vmid}) needs for {needs[0].key}.",
                (*lines, f"vm:{guest.vmid}: {needs[0].key}: {guest.value(needs[0].key) or ''}, bios {bios}"),
                edit_fix(lines[0].split(":")[0], "Remove disable_vga=1."),
            )


def blacklist_glob(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a blacklist line use a pattern?

    Why: kmod compares blacklisted names letter by letter. `blacklist nvidia*` forbids a module of just that name,
        which does not exist. Patterns work in options, softdep and install lines only.
    Look at: `grep -rn 'blacklist.*[*?]' /etc/modprobe.d`.
    Fix: Name the modules, or write softdep lines: softdep nvidia* pre: vfio-pci.
    Source: kmod: libkmod/libkmod-module.c, module_is_blacklisted; modprobe.d(5).
    """
    for line in modprobe_lines(facts.files):
        if line.command == "blacklist" and any(letter in line.module for letter in "*?["):
            yield _note(
                "blacklist-glob",
                line.path,
                f"blacklist {line.module} does nothing: a blacklist knows no patterns.",
                (_at(line),),
                edit_fix(line.path, "Name the modules, or use softdep."),
            )


def blacklist_host(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a driver forbidden that the host itself needs?

    Why: A blacklist speaks about the driver, not about the card. `blacklist amdgpu`, copied from a recipe for one
        card, takes the host's own graphics away; xhci_hcd and snd_hda_intel serve other devices, too.
    Look at: `grep -rn blacklist /etc/modprobe.d`; modprobe.blacklist= and module_blacklist= on the command line;
        `lspci -k` for other devices of that driver.
    Fix: Use a softdep with ids, or claim the card by its address; both leave the other devices alone.
    Source: modprobe.d(5); Proxmox VE administration guide, PCI(e) passthrough.
    """
    leaving = {device.address for device in taken(facts, request)} if request.addresses or request.vmid else set()
    owner = facts.display.console_owner
    kept = {use.address for use in facts.uses} | ({owner} if owner else set())
    for module, where in _forbidden(facts):
        victims = [d for d in facts.devices if d.address in kept - leaving and module in _modules_of(d)]
        if victims:
            yield _harm(
                "blacklist-host",
                where.split(":")[0],
                f"{module} is forbidden, and the host needs it for {names(victims)}.",
                (where, *(f"{d.address}: driver {d.driver or 'none'}" for d in victims)),
                show("Claim the one card instead (softdep and ids, or by address), and remove the line."),
            )


def _modules_of(device: Device) -> set[str]:
    present = (device.driver or "").replace("-", "_")
    likely = (likely_driver(device) or "").replace("-", "_") if device.is_display else ""
    return {name for name in (present, {"xhci_hcd": "xhci_pci"}.get(present, ""), likely) if name}


def _forbidden(facts: Facts) -> Iterator[tuple[str, str]]:
    """(module, where) of every blacklist that is in force."""
    for line in modprobe_lines(facts.files):
        off = line.command == "install" and line.rest.split("#")[0].strip().endswith(("/bin/false", "/bin/true"))
        if line.command == "blacklist" or off:
            yield line.module, _at(line)
    for source in sources(facts):
        if source.used is not False:
            for name in ("modprobe.blacklist", "module_blacklist"):
                for value in source.values(name):
                    for module in value.split(","):
                        yield module.replace("-", "_"), f"{source.where}: {name}={value}"


def misspelt(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a module's name misspelt?

    Why: Nothing tells about a name that no module has: the line is read and does nothing.
    Look at: `modinfo NAME`.
    Fix: Use the real name.
    Source: kernel: the Makefiles of drivers/video/fbdev/nvidia, drivers/usb/host and sound/pci/hda; modprobe.d(5).
    """
    real = {wrong: right for wrong, right, _ in MISSPELT}
    for line in modprobe_lines(facts.files):
        if line.command in ("blacklist", "softdep", "options") and line.module in real:
            yield _note(
                "misspelt",
                line.path,
                f"There is no module {line.module}: it is called {real[line.module]}.",
                (_at(line),),
                edit_fix(line.path, f"Write {real[line.module]}."),
            )


def softdep(facts: Facts, request: Request) -> Iterator[Finding]:
    """Do the softdep lines say what they mean?

    Why: kmod looks for the separate word `pre:`. `softdep amdgpu pre:vfio-pci` names no dependency at all, and the
        driver comes first. `softdep vfio-pci pre: amdgpu` is the wrong way round: it loads amdgpu first on purpose.
    Look at: `modprobe -c | grep softdep`.
    Fix: softdep DRIVER pre: vfio-pci
    Source: kmod: libkmod/libkmod-config.c, kmod_config_add_softdep; modprobe.d(5).
    """
    for line in modprobe_lines(facts.files):
        if line.command != "softdep":
            continue
        words = line.rest.split("#")[0].split()
        if "pre:" not in words and "post:" not in words:
            yield _harm(
                "softdep",
                line.path,
                f"softdep {line.module} names no dependency: `pre:` must be a word of its own.",
                (_at(line),),
                edit_fix(line.path, f"Write softdep {line.module} pre: vfio-pci."),
            )
        elif line.module == "vfio_pci" and "pre:" in words:
            yield _harm(
                "softdep",
                line.path,
                f"softdep vfio-pci loads {names(word for word in words if word != 'pre:')} first: the wrong way round.",
                (_at(line),),
                edit_fix(line.path, "Write softdep DRIVER pre: vfio-pci."),
            )


def modprobe_comments(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there a comment behind a modprobe line?

    Why: A # is a comment at the beginning of a line only. Behind options its words are handed to the module as
        options; behind softdep they are modules to load; behind install they are a shell comment.
    Look at: `modprobe -c | grep '#'`.
    Fix: Put the comment on a line of its own.
    Source: kmod: libkmod/libkmod-config.c, kmod_config_parse; modprobe.d(5).
    """
    for line in modprobe_lines(facts.files):
        if line.command in ("options", "softdep") and any(word.startswith("#") for word in line.rest.split()):
            yield _harm(
                "modprobe-comments",
                line.path,
                f"The comment behind `{line.command} {line.module}` is read as part of it.",
                (_at(line),),
                edit_fix(line.path, "Put the comment on a line of its own."),
            )


def package_file(facts: Facts, request: Request) -> Iterator[Finding]:
    """Was a file of a package edited?

    Why: pve-blacklist.conf belongs to pve-manager and keeps nvidiafb away. Guides overwrite it; the next update then
        asks about it or brings the old text back, and the line for nvidiafb is lost.
    Look at: `cat /etc/modprobe.d/pve-blacklist.conf`; `dpkg -V pve-manager`.
    Fix: Move own lines to a file of one's own and put `blacklist nvidiafb` back.
    Source: pve-manager, configs/pve-blacklist.conf; Debian policy, configuration files.
    """
    if facts.files.get(PACKAGE_BLACKLIST) is None:
        return
    lines = [line for line in modprobe_lines(facts.files) if line.path == PACKAGE_BLACKLIST]
    own = [line for line in lines if (line.command, line.module) != ("blacklist", "nvidiafb")]
    if own or not lines:
        yield _note(
            "package-file",
            PACKAGE_BLACKLIST,
            f"{PACKAGE_BLACKLIST} belongs to a package and "
            + (f"carries {len(own)} lines of somebody else." if lines else "has lost its own line."),
            map(_at, own[:6]),
            edit_fix(PACKAGE_BLACKLIST, "Move own lines to a file of your own."),
        )


# --- module lists ----------------------------------------------------------------------------------------------------


def virqfd(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is vfio_virqfd still listed?

    Why: It was a module of its own up to the 6.2 kernels and is part of vfio since Proxmox' 6.5.11-5. The line only
        makes systemd-modules-load complain at every boot; the documentation dropped it in 2024.
    Look at: `grep -rn virqfd /etc/modules /etc/modules-load.d`.
    Fix: Remove the line.
    Source: Proxmox kernel changelog 6.5.11-5; kernel: drivers/vfio/Kconfig; Proxmox VE administration guide
        (2024-10-29).
    """
    version, build = facts.kernel.version, build_of(facts.kernel.release)
    if version is None or version < (6, 5) or (build is not None and build < (6, 5, 11, 5)):
        return
    lines = [line for line in module_lines(facts.files) if line.module == "vfio_virqfd"]
    if lines:
        yield _note(
            "virqfd",
            lines[0].path,
            "vfio_virqfd is no module any more; the line does nothing.",
            (f"{line.path}:{line.number}: {line.module}" for line in lines),
            edit_fix(lines[0].path, "Remove the line."),
        )


def module_list(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a module list have one module per line?

    Why: systemd takes the whole line for the name: `vfio vfio_pci ids=…` loads nothing. Options belong to modprobe.d.
    Look at: /etc/modules, /etc/modules-load.d; `journalctl -b -u systemd-modules-load`.
    Fix: One name per line.
    Source: modules-load.d(5); systemd: src/modules-load/modules-load.c.
    """
    for line in module_lines(facts.files):
        if line.rest:
            yield _harm(
                "module-list",
                line.path,
                f"{line.path}:{line.number} has more than one word: nothing of it is loaded.",
                (f"{line.path}:{line.number}: {line.module} {line.rest}",),
                show("One name per line; options belong to modprobe.d.", f"editor {line.path}"),
            )


def readable(facts: Facts, request: Request) -> Iterator[Finding]:
    """Could the boot files be read?

    Why: What is written in a file that nobody could read is unknown, and no plan may touch it.
    Look at: the gaps in the report.
    Fix: Run as root on the host.
    Source: Proxmox VE administration guide, Host Bootloader.
    """
    wanted = [GRUB_FILE] if uses_grub(facts) else []
    wanted += [KERNEL_CMDLINE] if uses_systemd_boot(facts) else []
    for path in wanted:
        if path not in facts.files:
            why = reason(facts, f"files.{path}", "files")
            yield unknown("bootconfig.readable", path, f"{path} could not be read.", why)
