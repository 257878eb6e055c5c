"""What the host's kernel tells of a guest's links, interrupts, processors and memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pve_passthrough.host.base import Missing, Ran, Unreadable
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.model.pci import Address
from pve_passthrough.model.performance import LinkSample
from pve_passthrough.probe import performance as probe

CARD, SOUND = Address(0, 1, 0, 0), Address(0, 1, 0, 1)
HOME = f"/sys/bus/pci/devices/{CARD}"
TABLE = """\
            CPU0       CPU1
   9:          0          5  IR-IO-APIC    9-fasteoi   acpi
 131:         10         32  IR-PCI-MSI-0000:01:00.0    0-edge      vfio-msi[0](0000:01:00.0)
 132:          1          0  IR-PCI-MSIX-0000:03:00.0    0-edge      vfio-msix[0](0000:03:00.0)
  17:        700        300  IR-IO-APIC   17-fasteoi   vfio-intx(0000:01:00.1), snd_hda_intel:card0
"""


class _Kernel(Replay):
    """Files by path; a directory is the names below it."""

    def __init__(self, files: dict[str, str], log: Ran | Unreadable = Ran(0)) -> None:
        super().__init__(Answers(), "kernel")
        self.files, self.log = files, log

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise Missing(path, "not there")
        return self.files[path].encode()

    def names(self, path: str) -> tuple[str, ...]:
        found = {name[len(path) + 1 :].split("/")[0] for name in self.files if name.startswith(f"{path}/")}
        if not found:
            raise Missing(path, "not there")
        return tuple(sorted(found))

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if isinstance(self.log, Unreadable):
            raise self.log
        return self.log


def test_a_link() -> None:
    host = _Kernel({f"{HOME}/current_link_speed": "16.0 GT/s PCIe\n", f"{HOME}/current_link_width": "8\n"})
    assert probe.link(host, CARD) == LinkSample(16.0, 8)


@pytest.mark.parametrize(("speed", "width"), [("Unknown", "0"), ("Unknown speed", "255"), ("", "x"), ("9" * 99, "99")])
def test_a_link_that_does_not_say(speed: str, width: str) -> None:
    host = _Kernel({f"{HOME}/current_link_speed": speed, f"{HOME}/current_link_width": width})
    assert probe.link(host, CARD) == LinkSample(None, None)


def test_interrupts_by_kind_with_their_counts() -> None:
    silences: dict[str, str] = {}
    found = probe.interrupts(_Kernel({"/proc/interrupts": TABLE}), (CARD, SOUND), silences)
    assert found == {CARD: {"msi": 42}, SOUND: {"intx": 1000}}
    assert not silences


def test_an_unreadable_table_is_unknown() -> None:
    silences: dict[str, str] = {}
    assert probe.interrupts(_Kernel({}), (CARD,), silences) is None
    assert silences == {"interrupts": "/proc/interrupts: not there"}


TASKS = {
    "/proc/7/task/7/comm": "kvm\n", "/proc/7/task/7/schedstat": "1 999999 3\n",
    "/proc/7/task/8/comm": "CPU 0/KVM\n", "/proc/7/task/8/schedstat": "500 250 3\n",
    "/proc/7/task/9/comm": "CPU 1/KVM\n", "/proc/7/task/9/schedstat": "500 750 3\n",
}  # fmt: skip


def test_only_the_guests_processors_wait() -> None:
    assert probe.waits(_Kernel(TASKS), 7, {}) == {"CPU 0/KVM": 250, "CPU 1/KVM": 750}


def test_a_process_without_such_threads_is_unknown() -> None:
    silences: dict[str, str] = {}
    assert probe.waits(_Kernel({"/proc/7/task/7/comm": "kvm\n"}), 7, silences) is None
    assert "CPU N/KVM" in silences["waiting"]


STATUS = "Name:\tkvm\nVmLck:\t 8388608 kB\nVmPin:\t       0 kB\nVmSwap:\t     512 kB\nCpus_allowed_list:\t0-3,8\n"
ROLLED = "Rss:  4194304 kB\nAnonHugePages:  2097152 kB\nPrivate_Hugetlb:  1048576 kB\nShared_Hugetlb: 0 kB\n"
MAPS = (
    "7f00 bind:1 anon=1024 dirty=1024 N0=256 N1=768 kernelpagesize_kB=4\n"
    "7f10 default huge dirty=2 N1=2 kernelpagesize_kB=2048\n7f20 default file=/x mapped=3\n"
)


def test_where_the_memory_lies() -> None:
    files = {"/proc/7/status": STATUS, "/proc/7/smaps_rollup": ROLLED, "/proc/7/numa_maps": MAPS}
    seen = probe.pages(_Kernel(files), 7, by_node=True, silences={})
    assert seen.nodes == {0: 256 << 12, 1: (768 << 12) + (2 << 21)}
    assert (seen.huge, seen.total) == (3 << 30, 5 << 30)
    assert (seen.pinned, seen.swapped) == (8 << 30, 512 << 10)
    assert probe.allowed(_Kernel(files), 7) == frozenset({0, 1, 2, 3, 8})


def test_memory_that_nobody_tells_of() -> None:
    silences: dict[str, str] = {}
    seen = probe.pages(_Kernel({}), 7, by_node=True, silences=silences)
    assert (seen.nodes, seen.huge, seen.total, seen.pinned, seen.swapped) == (None, None, None, None, None)
    assert set(silences) == {"pages", "pinned", "node"}


def test_governors_with_their_drivers() -> None:
    home = "/sys/devices/system/cpu/cpufreq"
    files = {f"{home}/policy0/scaling_governor": "powersave\n", f"{home}/policy0/scaling_driver": "acpi-cpufreq\n"}
    assert probe.governors(_Kernel(files), {}) == {"powersave": "acpi-cpufreq"}
    assert probe.governors(_Kernel({}), {}) == {}


def test_the_aspm_policy_in_force() -> None:
    path = "/sys/module/pcie_aspm/parameters/policy"
    assert probe.aspm(_Kernel({path: "default performance [powersave] powersupersave \n"})) == "powersave"
    assert probe.aspm(_Kernel({})) == ""


def test_small_processors() -> None:
    assert probe.efficient(_Kernel({"/sys/devices/cpu_atom/cpus": "16-23\n"})) == frozenset(range(16, 24))
    assert probe.efficient(_Kernel({})) == frozenset()


LOG = """\
[ 10.0] x86/split lock detection: #AC: CPU 0/KVM/8 took a split_lock trap at address: 0x401231
[ 11.0] x86/split lock detection: #AC: CPU 1/KVM/9 (guest) took a split_lock trap at address: 0x401231
[ 12.0] x86/split lock detection: #AC: CPU 0/KVM/77 took a split_lock trap at address: 0x401231
[ 13.0] x86/split lock detection: #AC: firefox/5 took a split_lock trap at address: 0x401231
"""


def test_split_locks_of_this_guest_alone() -> None:
    assert probe.split_locks(_Kernel(TASKS, Ran(0, LOG)), 7, {}) == 2
    assert probe.split_locks(_Kernel(TASKS, Ran(0, LOG)), None, {}) == 3


def test_a_log_that_nobody_can_read_is_unknown() -> None:
    silences: dict[str, str] = {}
    assert probe.split_locks(_Kernel({}, Unreadable("journalctl", "no such program")), 7, silences) is None
    assert silences["split-locks"] == "journalctl: no such program"
