"""What a Linux guest installs for its cards: one script, told as commands, as cloud-init data, or in words. Pure.

1. One script is the source of all forms. It may run twice: packages that are there stay, and it asks for a reboot only
   while the driver is not loaded.
2. It holds no secret, adds no foreign key and fetches nothing but packages of the distribution's signed archive. What
   the archive lacks is refused by name, with the maker's own way.
3. A card's name comes from a list or a device, so it is cut down to printable ASCII before it enters a comment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import Exit, Failure
from ..knowledge.compute_cards import (
    AMD,
    INTEL,
    NVIDIA,
    OPEN,
    PROPRIETARY,
    Generation,
    compute_card,
    nvidia_generation,
)
from ..knowledge.guest_drivers import (
    AGENT,
    AI,
    CHECKS,
    CUDA_TOOLKIT,
    DESKTOP,
    MOK,
    NVIDIA_FAMILIES,
    OSES,
    USE_CHECKS,
    USES,
    System,
    family,
    lack,
    rows_for,
    system,
    toolkit_compiles,
)
from ..model.pci import Address, Device
from ..model.value import dataclass

SCRIPT = "/usr/local/sbin/install-gpu-driver"
REBOOT_MARK = "/run/gpu-driver-needs-reboot"
WINDOWS_PAGE = "guest-windows.md in the documentation says what to install there, and in which order."

_ACCELERATORS = (0x1200, 0x0B40)
"""Processing accelerators and co-processors (PCI code and ID assignment specification, classes 12 and 0b)."""

_INTEL_GRAPHICS = (
    range(0x4905, 0x490A), range(0x5690, 0x56C3), range(0x0B69, 0x0BDC), range(0xE20B, 0xE224)
)  # fmt: skip
"""Intel's cards by number: DG1, Arc A and Flex, Max, Arc B (pci.ids of 2025-06-09). Used where nobody saw the class."""


@dataclass(frozen=True, slots=True)
class Card:
    """One card that the guest has.

    seen    False: only its ID was named, and no device was looked at
    shared  a virtual function or a mediated device: the guest gets a share of the card
    """

    vendor: int
    product: int
    name: str
    address: str = ""
    seen: bool = True
    shared: bool = False

    @property
    def id(self) -> str:
        return f"{self.vendor:04x}:{self.product:04x}"

    def __str__(self) -> str:
        name = plain(self.name)
        return f"{self.id} {name}" if name and name != self.id else self.id


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one guest installs.

    packages   in the order of their installation; `$kernel` stands for the suffix of the guest's kernel
    modules    kernel modules one of which is loaded once the driver works, for each card's family
    notes      what a person should know, each a sentence
    checks     commands that show, inside the guest, that it worked
    dkms       a module is built in the guest: under Secure Boot it needs an enrolled key
    sources    where the rows come from
    """

    os: str
    use: str
    cards: tuple[Card, ...]
    packages: tuple[str, ...]
    modules: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    checks: tuple[str, ...]
    dkms: bool
    sources: tuple[str, ...]
    script: str


def plain(text: str) -> str:
    """Printable ASCII only: a name from a device must not end a comment."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)[:80]


# -- cards ---------------------------------------------------------------------------------------


def cards_of(devices: Sequence[Device], shared: Collection[Address] = ()) -> tuple[Card, ...]:
    """The graphics cards and accelerators among the devices; sound, USB and all else need nothing from here.

    shared  devices of which the guest gets a mediated device; virtual functions are known by themselves
    """
    return tuple(
        Card(
            device.vendor, device.product, device.name, str(device.address),
            shared=device.physical_function is not None or device.address in shared,
        )
        for device in devices
        if device.vendor is not None and device.product is not None and _computes(device)
    )  # fmt: skip


def _computes(device: Device) -> bool:
    return device.is_display or device.subclass in _ACCELERATORS


def card_by_id(identity: str, name: str = "") -> Card | None:
    """A card that is named by its ID alone; None when the number tells of no graphics card."""
    vendor, product = (int(part, 16) for part in identity.split(":"))
    known = {
        NVIDIA: nvidia_generation(product) is not None,
        AMD: product >> 8 not in (0xAA, 0xAB),  # their sound functions (pci.ids)
        INTEL: any(product in block for block in _INTEL_GRAPHICS),
    }
    row = compute_card(vendor, product)
    shown = name or (row.name if row else "")
    return Card(vendor, product, shown, seen=False) if known.get(vendor) else None


# -- the recipe ----------------------------------------------------------------------------------


def recipe(cards: Sequence[Card], os: str, use: str = AI, *, secure_boot: bool | None = None) -> Recipe:
    """What to install for these cards. Raises Failure for what the system's archive cannot serve.

    secure_boot  whether the guest's firmware checks signatures, None when nobody knows
    """
    _known_words(os, use)
    if not cards:
        raise Failure(
            "inside.no-card", "Nothing was printed: there is no graphics card among these devices.",
            hint="Network cards, disks and USB controllers need no more than the guest's own kernel.", code=Exit.USAGE,
        )  # fmt: skip
    where = system(os)
    _refuse_shared(cards)
    _one_flavour(cards)
    families = tuple(dict.fromkeys(_family(card, where, use, _beside_old(cards)) for card in cards))
    rows = [row for name in families for row in rows_for(name, os, use)]
    toolkit, toolkit_notes = _toolkit(cards, where, use)
    names = (
        *(name for row in rows for name in row.names), *toolkit, *((where.desktop,) if use == DESKTOP else ())
    )  # fmt: skip
    packages = tuple(dict.fromkeys(names))
    modules = tuple(dict.fromkeys(row.modules for row in rows if row.modules and not row.uses))
    dkms = any(row.dkms for row in rows)
    notes = (*_notes(cards, where, families, use), *toolkit_notes, *_secure_boot(dkms, secure_boot))
    checks = tuple(dict.fromkeys(_checks(families, use)))
    sources = tuple(dict.fromkeys(row.source for row in rows))
    script = _script(cards, where, use, packages, modules)
    return Recipe(os, use, tuple(cards), packages, modules, notes, checks, dkms, sources, script)


def _known_words(os: str, use: str) -> None:
    if os.startswith("windows"):
        raise Failure(
            "inside.windows", "Nothing was printed: Windows takes no such snippet.",
            hint=WINDOWS_PAGE, code=Exit.USAGE,
        )  # fmt: skip
    for word, known, what in ((os, OSES, "system"), (use, USES, "use")):
        if word not in known:
            raise Failure(
                "inside.unknown", f"Nothing was printed: no {what} named {plain(word)!r} is known.",
                hint=f"Known: {', '.join(known)}.", code=Exit.USAGE,
            )  # fmt: skip


def _family(card: Card, where: System, use: str, beside_old: bool) -> str:
    """The card's rows. Raises Failure when the archive has no driver for it."""
    generation = _generation(card)
    name = family(card.vendor, generation, where, beside_old=beside_old)
    if name is None:
        raise Failure(
            "inside.unknown-card", f"Nothing was printed: nobody here knows what a guest needs for {card}.",
            hint="Known are AMD's and Intel's graphics, and NVIDIA's from Maxwell on.", code=Exit.USAGE,
        )  # fmt: skip
    if generation is not None and generation.last_branch is not None and generation.last_branch < where.nvidia:
        raise Failure(
            "inside.too-old",
            f"Nothing was printed: {where.name} has NVIDIA's driver branch {where.nvidia}, "
            f"and {generation.last_branch} is the last that knows {card} ({generation.name}).",
            hint=f"Install a driver of branch {generation.last_branch} by hand, on a kernel that it still builds for.",
        )  # fmt: skip
    _refuse_lack(card, name, where, use)
    return name


def _refuse_lack(card: Card, name: str, where: System, use: str) -> None:
    missing = lack(name, _os(where), use)
    if missing is None:
        return
    others = [os for os in OSES if lack(name, os, use) is None]
    raise Failure(
        "inside.not-in-archive",
        f"Nothing was printed: {where.name}'s archive lacks {missing.what} for {card}.",
        *(f"the maker's own way: {line}" for line in missing.maker),
        hint=f"These have it: {', '.join(others)}." if others else "Take it from its maker.",
    )


def _refuse_shared(cards: Sequence[Card]) -> None:
    """A vGPU takes NVIDIA's own guest driver of the host's vGPU release, with a licence: no archive has it.

    Source: NVIDIA vGPU documentation, guest drivers; client licensing user guide.
    """
    parts = [card for card in cards if card.shared and card.vendor == NVIDIA]
    if parts:
        raise Failure(
            "inside.vgpu", f"Nothing was printed: {parts[0]} is given as a vGPU, not as a whole card.",
            hint="Install the guest driver that came with the host's vGPU release, and its licence token.",
        )  # fmt: skip


def _one_flavour(cards: Sequence[Card]) -> None:
    if {PROPRIETARY, OPEN} <= _flavours(cards):
        raise Failure(
            "inside.two-flavours",
            "Nothing was printed: these cards need different kernel modules of NVIDIA's, and a guest loads one.",
            *(f"{card}: {one.flavour}" for card in cards if (one := _generation(card))),
            hint="Give them to different guests.", code=Exit.USAGE,
        )  # fmt: skip


def _flavours(cards: Sequence[Card]) -> set[str]:
    return {one.flavour for card in cards if (one := _generation(card))}


def _beside_old(cards: Sequence[Card]) -> bool:
    return PROPRIETARY in _flavours(cards)


def _generation(card: Card) -> Generation | None:
    return nvidia_generation(card.product) if card.vendor == NVIDIA else None


def _os(where: System) -> str:
    return f"{where.id}-{where.version}"


# -- notes ---------------------------------------------------------------------------------------


def _toolkit(cards: Sequence[Card], where: System, use: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The CUDA toolkit where it serves, and a note where it does not."""
    generations = [generation for card in cards if (generation := _generation(card))]
    if use != AI or not generations:
        return (), ()
    version = ".".join(str(part) for part in where.cuda)
    strangers = sorted({one.name for one in generations if not toolkit_compiles(where, one)})
    if strangers:
        return (), (
            f"The archive's CUDA toolkit {version} does not compile for {' and '.join(strangers)}, so it is left out. "
            "Programs that bring their own CUDA (containers, Python wheels) need the driver only.",
        )
    return (CUDA_TOOLKIT,), (
        f"{CUDA_TOOLKIT} is version {version}; programs that bring their own CUDA (containers, Python wheels) "
        "do not need it.",
    )


def _notes(cards: Sequence[Card], where: System, families: Sequence[str], use: str) -> tuple[str, ...]:
    found: list[str] = []
    for card in cards:
        generation = _generation(card)
        if not card.seen:
            found.append(f"No device was looked at for {card.id}: what it is was told from its number.")
        if card.shared and card.vendor == INTEL:
            found.append(
                f"{card.id} is a virtual function: where the host uses i915-sriov-dkms, the guest needs it, too "
                "(its README)."
            )
        if generation is not None:
            found.append(_branch(card, generation, where, _beside_old(cards)))
        row = compute_card(card.vendor, card.product)
        if row is not None and row.outputs is False:
            found.append(f"{row.name} has no monitor outputs: keep the guest's virtual display.")
        if row is not None and row.fabric:
            found.append(
                f"{row.name} belongs to a board with NVLink. Whoever has its NVSwitches, this guest or the host, runs "
                "NVIDIA's fabric manager of exactly the driver's version (nvidia-fabricmanager-580 in Ubuntu)."
            )
    if where.id == "debian":
        found.append(f"{where.refused[1][0].upper()}{where.refused[1][1:]}.")
        if set(families) - set(NVIDIA_FAMILIES):
            found.append(f"Cards that are newer than {where.name}'s kernel may need the one in backports (unverified).")
    if "amd" in families and use == AI:
        found.append("Whether the archive's ROCm knows this card is unverified: look for it in the output of rocminfo.")
    if use == DESKTOP:
        found.append("A picture over the network needs a server in the guest (Sunshine, xrdp); none is installed here.")
    return tuple(dict.fromkeys(found))


def _branch(card: Card, generation: Generation, where: System, beside_old: bool) -> str:
    if generation.last_branch is not None:
        return (
            f"{card.id} is {generation.name}: proprietary modules only, and branch {generation.last_branch} is the "
            f"last that knows it ({where.name} installs {where.nvidia})."
        )
    if generation.flavour == OPEN:
        return f"{card.id} is {generation.name}: it works with the open kernel modules only."
    if beside_old:
        return (
            f"{card.id} is {generation.name}: both flavours work; the older card beside it needs the proprietary one."
        )
    if where.id == "ubuntu":
        return f"{card.id} is {generation.name}: both flavours work; the open one is installed, as NVIDIA advises."
    return f"{card.id} is {generation.name}: both flavours work; {where.name} brings the proprietary one."


def _secure_boot(dkms: bool, secure_boot: bool | None) -> tuple[str, ...]:
    if secure_boot is False:
        return ()
    state = "The guest's Secure Boot keys are enrolled" if secure_boot else "If the guest uses Secure Boot"
    if not dkms:
        return (f"{state}: these modules come signed, so no key of your own is needed.",) if secure_boot else ()
    joint = " and" if secure_boot else ","
    return (
        f"{state}{joint} the module that is built there loads only after its key is enrolled: "
        f"{MOK[0]}; then {MOK[1]}. Or make the EFI disk anew with pre-enrolled-keys=0.",
    )


def _checks(families: Sequence[str], use: str) -> list[str]:
    found = [command for name in families for command in CHECKS[name]]
    return found + [USE_CHECKS[name, use] for name in families if (name, use) in USE_CHECKS]


# -- the script ----------------------------------------------------------------------------------


def _script(
    cards: Sequence[Card], where: System, use: str, packages: Sequence[str], modules: Sequence[tuple[str, ...]]
) -> str:
    lines = [
        "#!/bin/sh",
        *(f"# {card}" for card in cards),
        f"# {where.name}, use: {use}. It may run again: what is there stays.",
        "set -eu",
        "export DEBIAN_FRONTEND=noninteractive",
        *_right_system(where),
        *_non_free(where),
        'get() { apt-get -o DPkg::Lock::Timeout=300 -y install "$@"; }',
        "apt-get -o DPkg::Lock::Timeout=300 update",
        f"get {AGENT}",
        f"systemctl start {AGENT} || echo 'the guest agent does not run: is it enabled in the VM options?' >&2",
        "get " + " \\\n    ".join(_quoted(name) for name in packages),
        *_groups(),
        *_reboot(modules),
    ]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return f'"{name}"' if "$" in name else name


def _right_system(where: System) -> list[str]:
    """Stop on another system or kernel, before anything is changed."""
    cases = [f"{pattern}) kernel={suffix} ;;" for pattern, suffix in where.kernels]
    pattern, reason = where.refused
    if pattern:
        cases.insert(0, f'{pattern}) echo "{reason}" >&2; exit 1 ;;')
    return [
        '[ "$(id -u)" = 0 ] || { echo "run this as root, inside the guest" >&2; exit 1; }',
        ". /etc/os-release",
        f'[ "$ID-$VERSION_ID" = "{_os(where)}" ] || {{ echo "this is for {where.name}" >&2; exit 1; }}',
        'case "$(uname -r)" in',
        *cases,
        '*) echo "no package names are known for kernel $(uname -r)" >&2; exit 1 ;;',
        "esac",
    ]


def _non_free(where: System) -> list[str]:
    """A file of its own for Debian's components beside main; the key is Debian's own and came with the system."""
    if not where.non_free:
        return []
    suite, keyring = where.non_free, "/usr/share/keyrings/debian-archive-keyring.gpg"
    parts = "contrib non-free non-free-firmware"
    return [
        "cat > /etc/apt/sources.list.d/gpu-driver.sources <<'END'",
        "Types: deb",
        "URIs: http://deb.debian.org/debian",
        f"Suites: {suite} {suite}-updates",
        f"Components: {parts}",
        f"Signed-By: {keyring}",
        "",
        "Types: deb",
        "URIs: http://security.debian.org/debian-security",
        f"Suites: {suite}-security",
        f"Components: {parts}",
        f"Signed-By: {keyring}",
        "END",
    ]


def _groups() -> list[str]:
    """The first user may open /dev/dri: render nodes belong to the group render (systemd, 50-udev-default.rules)."""
    return [
        "user=$(getent passwd 1000 | cut -d: -f1)",
        '[ -z "$user" ] || usermod -aG render,video "$user"',
    ]


def _reboot(modules: Sequence[tuple[str, ...]]) -> list[str]:
    tests = ["{ " + " || ".join(f"[ -d /sys/module/{name} ]" for name in names) + "; }" for names in modules]
    return [
        f"if {' && '.join(tests)}; then",
        "    echo 'the driver is loaded'",
        "else",
        f"    touch {REBOOT_MARK}",
        "    echo 'reboot the guest once: the driver is installed, and not loaded yet'",
        "fi",
    ]


# -- forms ---------------------------------------------------------------------------------------


def shell(made: Recipe) -> str:
    """The script, with the notes as comments below its first line."""
    first, rest = made.script.split("\n", 1)
    return "\n".join((first, *_comments(made), rest))


def cloud_init(made: Recipe) -> str:
    """User data for cloud-init: the script as a file, run once when the guest's first boot comes to its end.

    Keys as in cloud-init's reference (modules write-files, package-update-upgrade-install, runcmd, power-state-change).
    """
    body = "\n".join(f"      {line}".rstrip() for line in made.script.rstrip("\n").split("\n"))
    return "\n".join(
        (
            "#cloud-config",
            *_comments(made),
            "package_update: true",
            "packages:",
            f"  - {AGENT}",
            "write_files:",
            f"  - path: {SCRIPT}",
            '    permissions: "0755"',
            "    content: |",
            body,
            "runcmd:",
            f"  - [{SCRIPT}]",
            "power_state:",
            "  mode: reboot",
            '  delay: "now"',
            f"  condition: test -e {REBOOT_MARK}",
            "",
        )
    )


def _comments(made: Recipe) -> list[str]:
    import textwrap

    lines = [f"Inside the guest: {made.os}, {made.use}, for {', '.join(map(str, made.cards))}", *made.notes]
    lines.append(f"Afterwards: {'; '.join(made.checks)}")
    return [row for line in lines for row in textwrap.wrap(line, 116, initial_indent="# ", subsequent_indent="#   ")]
