"""What a Linux guest has to install for a card, as rows by system and family of cards.

1. Packages of the distribution's own signed archive only; what it lacks is said, with the maker's way, never fetched.
2. Every package name was looked up in the package index that its `source` names, on 2026-11-21.
3. NVIDIA's kernel modules come built and signed from Ubuntu, and as DKMS source from Debian: only the second needs a
   machine owner's key (MOK) under Secure Boot.
"""

from __future__ import annotations

from ..model.value import dataclass
from .compute_cards import AMD, INTEL, NVIDIA, OPEN, PROPRIETARY, Generation

AI, DESKTOP, TRANSCODE = "ai", "desktop", "transcode"
USES = (AI, DESKTOP, TRANSCODE)


@dataclass(frozen=True, slots=True)
class System:
    """One guest system.

    kernels  shell pattern of `uname -r` and the suffix that its packages have (`$kernel` in package names)
    refused  pattern of kernels that carry no graphics drivers, and what to use instead
    nvidia   NVIDIA's driver branch in its archive
    cuda     version of its package nvidia-cuda-toolkit
    non_free suites whose components contrib, non-free and non-free-firmware are needed; empty on Ubuntu
    desktop  the package that brings a desktop
    """

    name: str
    id: str
    version: str
    kernels: tuple[tuple[str, str], ...]
    refused: tuple[str, str]
    nvidia: int
    cuda: tuple[int, int]
    non_free: str
    desktop: str
    source: str


_CLOUD = ("*-cloud-*", "the cloud kernel has no graphics drivers; use Debian's image named generic, not genericcloud")
_UBUNTU = "Ubuntu package index, main to multiverse with updates"
_DEBIAN = "Debian package index, main to non-free-firmware"

SYSTEMS: tuple[System, ...] = (
    System(
        "Ubuntu 22.04", "ubuntu", "22.04", (("5.15.0-*-generic", "generic"), ("6.8.0-*-generic", "generic-hwe-22.04")),
        ("", ""), 580, (11, 5), "", "ubuntu-desktop-minimal", _UBUNTU,
    ),
    System(
        "Ubuntu 24.04", "ubuntu", "24.04", (("6.8.0-*-generic", "generic"), ("*-generic", "generic-hwe-24.04")),
        ("", ""), 580, (12, 0), "", "ubuntu-desktop-minimal", _UBUNTU,
    ),
    System(
        "Debian 12", "debian", "12", (("*-amd64", "amd64"),), _CLOUD, 535, (11, 8), "bookworm", "task-gnome-desktop",
        _DEBIAN,
    ),
    System(
        "Debian 13", "debian", "13", (("*-amd64", "amd64"),), _CLOUD, 550, (12, 4), "trixie", "task-gnome-desktop",
        _DEBIAN,
    ),
)  # fmt: skip

OSES = tuple(f"{row.id}-{row.version}" for row in SYSTEMS)


def system(name: str) -> System:
    """The row of `ubuntu-24.04`. Raises KeyError for a name that is not in OSES."""
    for row in SYSTEMS:
        if f"{row.id}-{row.version}" == name:
            return row
    raise KeyError(name)


# -- families of cards ---------------------------------------------------------------------------

NVIDIA_PROPRIETARY, NVIDIA_OPEN = "nvidia-proprietary", "nvidia-open"
AMD_GPU, INTEL_GPU = "amd", "intel"
NVIDIA_FAMILIES = (NVIDIA_PROPRIETARY, NVIDIA_OPEN)


def family(vendor: int | None, generation: Generation | None, where: System, *, beside_old: bool) -> str | None:
    """Which rows a card takes on this system; None when the card is no graphics card of a known maker.

    beside_old  a card in the same guest works with the proprietary modules only, and a guest loads one flavour

    Ubuntu brings both flavours: the open one is NVIDIA's advice from Turing on, and from branch 620 on there is no
    other (NVIDIA Driver Installation Guide, Kernel Modules). Debian's nvidia-driver brings the proprietary one.
    """
    if vendor == NVIDIA and generation is not None:
        if generation.flavour == PROPRIETARY or (generation.flavour != OPEN and (beside_old or where.id == "debian")):
            return NVIDIA_PROPRIETARY
        return NVIDIA_OPEN
    return {AMD: AMD_GPU, INTEL: INTEL_GPU}.get(vendor or 0)


@dataclass(frozen=True, slots=True)
class Packages:
    """What one family needs for one use on some systems; `$kernel` stands for the kernel's suffix.

    uses     the uses that need the row; empty: every use
    modules  kernel modules one of which is loaded once the driver works
    """

    families: tuple[str, ...]
    oses: tuple[str, ...]
    uses: tuple[str, ...]
    names: tuple[str, ...]
    modules: tuple[str, ...]
    dkms: bool
    source: str


_U22, _U24, _D12, _D13 = OSES
_UBUNTUS, _DEBIANS = (_U22, _U24), (_D12, _D13)
_NV = ("nvidia",)
_EXTRA = "; amdgpu, i915 and xe are in linux-modules-extra, which linux-image-generic brings and the cloud image lacks"


def _ubuntu_nvidia(family_name: str, suffix: str) -> tuple[Packages, ...]:
    modules = (f"linux-modules-nvidia-580-server{suffix}-$kernel", f"nvidia-headless-no-dkms-580-server{suffix}")
    return (
        Packages(
            (family_name,), _UBUNTUS, (), ("linux-image-$kernel", *modules, "nvidia-utils-580-server"), _NV, False,
            f"{_UBUNTU}: restricted; the modules are signed (they depend on linux-signatures-nvidia)",
        ),
        Packages(
            (family_name,), _UBUNTUS, (DESKTOP,),
            ("libnvidia-gl-580-server", "xserver-xorg-video-nvidia-580-server"), _NV, False, f"{_UBUNTU}: restricted",
        ),
        Packages(
            (family_name,), _UBUNTUS, (DESKTOP, TRANSCODE),
            ("libnvidia-encode-580-server", "libnvidia-decode-580-server"), _NV, False, f"{_UBUNTU}: restricted",
        ),
    )  # fmt: skip


PACKAGES: tuple[Packages, ...] = (
    *_ubuntu_nvidia(NVIDIA_PROPRIETARY, ""),
    *_ubuntu_nvidia(NVIDIA_OPEN, "-open"),
    Packages(
        (NVIDIA_PROPRIETARY,), _DEBIANS, (),
        ("linux-image-amd64", "linux-headers-amd64", "nvidia-kernel-dkms", "nvidia-smi", "libcuda1"), _NV, True,
        f"{_DEBIAN}: 535 in Debian 12, 550 in Debian 13",
    ),
    Packages((NVIDIA_PROPRIETARY,), _DEBIANS, (DESKTOP,), ("nvidia-driver",), _NV, True, f"{_DEBIAN}: non-free"),
    Packages(
        (NVIDIA_PROPRIETARY,), _DEBIANS, (DESKTOP, TRANSCODE), ("libnvidia-encode1", "libnvcuvid1"), _NV, True,
        f"{_DEBIAN}: non-free",
    ),
    Packages(
        (AMD_GPU,), _UBUNTUS, (), ("linux-image-$kernel", "linux-firmware"), ("amdgpu",), False, f"{_UBUNTU}{_EXTRA}"
    ),
    Packages(
        (AMD_GPU,), _DEBIANS, (), ("linux-image-amd64", "firmware-amd-graphics"), ("amdgpu",), False,
        f"{_DEBIAN}: the firmware is in non-free-firmware",
    ),
    Packages(
        (AMD_GPU,), (_U24, _D12, _D13), (AI,), ("rocminfo", "rocm-smi", "hipcc", "libamdhip64-5"), ("amdgpu",), False,
        "Ubuntu and Debian package indexes: ROCm 5.7 in Ubuntu 24.04, 5.2 in Debian 12, 5.7 and 6.1 in Debian 13",
    ),
    Packages((INTEL_GPU,), _UBUNTUS, (), ("linux-image-$kernel", "linux-firmware"), ("i915", "xe"), False,
             f"{_UBUNTU}{_EXTRA}"),
    Packages((INTEL_GPU,), (_D12,), (), ("linux-image-amd64", "firmware-misc-nonfree"), ("i915", "xe"), False, _DEBIAN),
    Packages((INTEL_GPU,), (_D13,), (), ("linux-image-amd64", "firmware-intel-graphics"), ("i915", "xe"), False,
             _DEBIAN),
    Packages((INTEL_GPU,), (_U22, _D12), (AI,), ("intel-opencl-icd", "clinfo"), ("i915", "xe"), False,
             "Ubuntu and Debian package indexes; no Level Zero driver there"),
    Packages((INTEL_GPU,), (_U24,), (AI,), ("intel-opencl-icd", "libze-intel-gpu1", "libze1", "clinfo"),
             ("i915", "xe"), False, f"{_UBUNTU}: universe"),
    Packages((INTEL_GPU,), OSES, (TRANSCODE,),
             ("intel-media-va-driver-non-free", "libmfx-gen1.2", "libvpl2", "vainfo"), ("i915", "xe"), False,
             "Ubuntu (multiverse) and Debian (non-free) package indexes"),
    Packages((AMD_GPU,), OSES, (TRANSCODE,), ("mesa-va-drivers", "vainfo"), ("amdgpu",), False,
             "Ubuntu and Debian package indexes"),
    Packages((AMD_GPU, INTEL_GPU), OSES, (DESKTOP,),
             ("mesa-vulkan-drivers", "mesa-va-drivers", "mesa-utils", "vulkan-tools"), ("amdgpu", "i915", "xe"), False,
             "Ubuntu and Debian package indexes"),
    Packages((*NVIDIA_FAMILIES, AMD_GPU, INTEL_GPU), OSES, (TRANSCODE,), ("ffmpeg",), (), False,
             "Ubuntu and Debian package indexes"),
)  # fmt: skip

CUDA_TOOLKIT = "nvidia-cuda-toolkit"
"""Ubuntu multiverse: 11.5 in 22.04, 12.0 in 24.04; Debian non-free: 11.8 in 12, 12.4 in 13 (package indexes)."""

AGENT = "qemu-guest-agent"


def rows_for(family_name: str, os_name: str, use: str) -> tuple[Packages, ...]:
    """The rows that this card needs for this use on this system."""
    return tuple(
        row for row in PACKAGES
        if family_name in row.families and os_name in row.oses and (not row.uses or use in row.uses)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lack:
    """What the archive does not have for a family and a use, and the maker's own way."""

    families: tuple[str, ...]
    oses: tuple[str, ...]
    uses: tuple[str, ...]
    what: str
    maker: tuple[str, ...]
    source: str


_NVIDIA_REPO = "NVIDIA Driver Installation Guide, Debian (the repository itself could not be reached from here)"


def _nvidia_repo(debian: str) -> tuple[str, ...]:
    base = f"https://developer.download.nvidia.com/compute/cuda/repos/{debian}/x86_64"
    return (
        f"wget {base}/cuda-keyring_1.1-1_all.deb",
        "dpkg -i cuda-keyring_1.1-1_all.deb",
        "apt-get update && apt-get install nvidia-open",
    )


LACKS: tuple[Lack, ...] = (
    Lack((NVIDIA_OPEN,), (_D12,), (), "a driver branch that knows this card (it has 535, Blackwell needs 570)",
         _nvidia_repo("debian12"), _NVIDIA_REPO),
    Lack((NVIDIA_OPEN,), (_D13,), (), "a driver branch that knows this card (it has 550, Blackwell needs 570)",
         _nvidia_repo("debian13"), _NVIDIA_REPO),
    Lack((AMD_GPU,), (_U22,), (AI,), "the HIP runtime of ROCm",
         ("AMD's own repository: repo.radeon.com, see ROCm installation on Linux, Ubuntu",),
         "Ubuntu package index: 22.04 has rocminfo only"),
    Lack((INTEL_GPU,), (_D13,), (AI,), "Intel's compute runtime (intel-opencl-icd)",
         ("Intel's own packages: github.com/intel/compute-runtime, releases",),
         "Debian package index: in 12, not in 13"),
)  # fmt: skip


def lack(family_name: str, os_name: str, use: str) -> Lack | None:
    """What stands in the way of this card on this system for this use."""
    return next(
        (row for row in LACKS
         if family_name in row.families and os_name in row.oses and (not row.uses or use in row.uses)),
        None,
    )  # fmt: skip


def toolkit_compiles(where: System, generation: Generation) -> bool:
    """Whether the archive's CUDA toolkit compiles for the generation.

    Source: NVIDIA CUDA Toolkit, Driver, and Architecture Matrix.
    """
    return where.cuda >= generation.cuda and (generation.cuda_before is None or where.cuda < generation.cuda_before)


CHECKS: dict[str, tuple[str, ...]] = {
    NVIDIA_PROPRIETARY: ("nvidia-smi",),
    NVIDIA_OPEN: ("nvidia-smi",),
    AMD_GPU: ("lspci -nnk -d 1002:", "ls -l /dev/dri"),
    INTEL_GPU: ("lspci -nnk -d 8086:", "ls -l /dev/dri"),
}
"""Commands that show whether the driver has the card."""

USE_CHECKS: dict[tuple[str, str], str] = {
    (AMD_GPU, AI): "rocminfo",
    (INTEL_GPU, AI): "clinfo -l",
    (AMD_GPU, TRANSCODE): "vainfo",
    (INTEL_GPU, TRANSCODE): "vainfo",
}

MOK = (
    "mokutil --import /var/lib/dkms/mok.pub",
    "reboot, choose Enroll MOK on the guest's console, and enter the password that mokutil asked for",
)
"""How a key for DKMS modules is enrolled. The console must be visible: keep a virtual display until it is done.
Source: dkms(8), section on module signing (it makes /var/lib/dkms/mok.pub by itself)."""
