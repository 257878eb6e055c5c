"""What a guest says of its speed becomes numbers, or silence; never a crash, and never more than a bounded answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.guest.agent import Silence
from pve_passthrough.guest.performance import LINUX, WINDOWS, WINDOWS_SCRIPT, inside, read_linux, read_windows
from pve_passthrough.host.base import Ran
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.model.performance import Inside

SMI = """
==============NVSMI LOG==============

Attached GPUs                             : 1
GPU 00000000:01:00.0
    Product Name                          : NVIDIA
    PCI
        Bus                               : 0x01
        Device Id                         : 0x220610DE
        GPU Link Info
            PCIe Generation
                Current                   : 4
    Performance State                     : P2
    Clocks Event Reasons
        Idle                              : Not Active
        SW Power Cap                      : Active
        HW Slowdown                       : Active
            HW Thermal Slowdown           : Active
        SW Thermal Slowdown               : Not Active
    Clocks Event Reasons Counters
        SW Power Capping                  : 1 us
    FB Memory Usage
        Total                             : 10240 MiB
    BAR1 Memory Usage
        Total                             : 16384 MiB
    Utilization
        Gpu                               : 88 %
        Memory                            : 12 %
        Encoder                           : 7 %
    Encoder Stats
        Active Sessions                   : 2
"""
LINUX_SAID = f"""@stat
cpu  100 0 50 1000 10 0 5 35 9 0
@cpu
model name\t: QEMU Virtual CPU
flags\t\t: fpu aes avx
@clock
hpet
@drm
card1 vendor 0x1002
card1 device 0x73df
card1 gpu_busy_percent 41
card1 mem_info_vram_total 12868124672
card1 mem_info_vis_vram_total 268435456
card1 power_dpm_force_performance_level low
@engines
/proc/10/fdinfo/5:drm-driver:\tamdgpu
/proc/10/fdinfo/5:drm-pdev:\t0000:01:00.0
/proc/10/fdinfo/5:drm-client-id:\t7
/proc/10/fdinfo/5:drm-engine-enc:\t900 ns
/proc/10/fdinfo/5:drm-engine-capacity-enc:\t2
/proc/10/fdinfo/6:drm-pdev:\t0000:01:00.0
/proc/10/fdinfo/6:drm-client-id:\t7
/proc/10/fdinfo/6:drm-engine-enc:\t900 ns
/proc/11/fdinfo/3:drm-pdev:\t0000:01:00.0
/proc/11/fdinfo/3:drm-client-id:\t9
/proc/11/fdinfo/3:drm-engine-enc:\t50 ns
@nvidia
{SMI}"""


def linux(text: str = LINUX_SAID) -> Inside:
    found = read_linux(text)
    assert isinstance(found, Inside)
    return found


def test_a_linux_guest() -> None:
    found = linux()
    assert found.flags == frozenset({"fpu", "aes", "avx"})
    assert (found.model, found.clock) == ("QEMU Virtual CPU", "hpet")
    assert found.steal == (35, 1200)  # guest time is counted in user time already


def test_the_card_of_nvidia_smi() -> None:
    card = (linux().gpus or ())[0]
    assert (card.id, card.use, card.encoder, card.sessions, card.state) == ("10de:2206", 88, 7, 2, "P2")
    assert card.brakes == ("SW Power Cap", "HW Slowdown", "HW Thermal Slowdown")
    assert (card.window, card.memory) == (16 << 30, 10 << 30)


def test_the_card_of_amdgpu() -> None:
    card = (linux().gpus or ())[1]
    assert (card.id, card.use, card.profile) == ("1002:73df", 41, "low")
    assert (card.window, card.memory) == (256 << 20, 12868124672)


def test_a_client_that_has_the_card_open_twice_is_counted_once() -> None:
    assert linux().engines == {"enc": 950}


def test_why_there_is_no_card_is_kept() -> None:
    found = linux(LINUX_SAID.partition("@nvidia")[0] + "@nvidia\n/bin/sh: 9: nvidia-smi: not found\n")
    assert found.silences["nvidia"] == "/bin/sh: 9: nvidia-smi: not found"


WINDOWS_SAID = {
    "cpu": "Common KVM processor",
    "plan": "GUID: A1841308-3541-4fab-bc81-f71556f20b4a  (Energiesparmodus)",
    "vbs": 2,
    "clock": "useplatformclock        Ja",
    "msi": [
        {"id": r"PCI\VEN_10DE&DEV_2206&SUBSYS_403F1458&REV_A1\4&0&0&0008", "msi": 1},
        {"id": r"PCI\VEN_10DE&DEV_1AEF&SUBSYS_403F1458&REV_A1\4&0&0&0108", "msi": None},
        {"id": "nonsense"},
        7,
    ],
    "smi": SMI,
}


def test_a_windows_guest() -> None:
    found = read_windows("\ufeff" + json.dumps(WINDOWS_SAID) + "\r\n")
    assert isinstance(found, Inside)
    assert (found.vbs, found.clock) == (True, "useplatformclock")
    assert found.plan == "a1841308-3541-4fab-bc81-f71556f20b4a"
    assert found.msi == {"10de:2206": True, "10de:1aef": None}
    assert (found.gpus or ())[0].use == 88


def test_a_windows_guest_that_says_nothing_is_unknown_not_no() -> None:
    found = read_windows('{"cpu": null, "vbs": null, "clock": "", "msi": null, "plan": "", "smi": ""}')
    assert isinstance(found, Inside)
    assert (found.vbs, found.clock, found.msi, found.plan, found.gpus) == (None, "", None, "", ())


@pytest.mark.parametrize("said", ["", "hello", "[" * 100_000, "null", "[]", "\x00" * 1000])
def test_no_answer_is_silence(said: str) -> None:
    assert isinstance(read_linux(said), Silence)
    assert isinstance(read_windows(said), Silence)


@given(st.text(st.characters(), max_size=400))
def test_anything_between_the_sections(noise: str) -> None:
    found = read_linux(
        f"@stat\n{noise}\n@cpu\n{noise}\n@drm\n{noise}\n@engines\n{noise}\n@nvidia\nGPU 0000:\n {noise}\n"
    )
    assert isinstance(found, Inside)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=30), st.lists, max_leaves=6))
def test_anything_as_a_windows_answer(value: object) -> None:
    said = dict.fromkeys(("cpu", "plan", "vbs", "clock", "msi", "smi"), value)
    assert isinstance(read_windows(json.dumps(said)), Inside)


def test_a_flood_is_cut() -> None:
    cards = "".join(f"GPU 0000:{number:02x}:00.0\n    PCI\n        Device Id : 0x220610DE\n" for number in range(500))
    clients = "".join(
        f"/proc/{number}/fdinfo/1:drm-client-id: {number}\n/proc/{number}/fdinfo/1:drm-engine-e{number}: 1 ns\n"
        for number in range(5000)
    )
    found = linux(f"@stat\ncpu 1 1 1 1 1 1 1 {'9' * 400} 1\n@engines\n{clients}@nvidia\n{cards}")
    assert len(found.gpus or ()) == 16
    assert len(found.engines or ()) == 64
    assert found.steal is None


class _Guest(Replay):
    def __init__(self, system: str) -> None:
        super().__init__(Answers(), "guest")
        self.system = system
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if "get-osinfo" in argv:
            return Ran(0, json.dumps({"id": self.system}))
        self.asked = list(argv[argv.index("--") + 1 :])
        said = json.dumps(WINDOWS_SAID) if self.system == "mswindows" else LINUX_SAID
        return Ran(0, json.dumps({"exited": 1, "exitcode": 0, "out-data": said}))


@pytest.mark.parametrize(("system", "script"), [("debian", LINUX), ("mswindows", WINDOWS)])
def test_each_system_is_asked_with_its_own_constant_script(system: str, script: tuple[str, ...]) -> None:
    guest = _Guest(system)
    assert isinstance(inside(guest, 100), Inside)
    assert guest.asked == list(script)


def test_the_windows_script_arrives_as_it_was_written() -> None:
    assert base64.b64decode(WINDOWS[-1]).decode("utf-16-le") == WINDOWS_SCRIPT
    assert len(" ".join(WINDOWS)) < 8191  # what cmd.exe takes; CreateProcess takes 32767


def test_the_linux_script_is_one_that_a_shell_understands(tmp_path: object) -> None:
    """With this machine as the guest: it ends with 0, and every section is there."""
    import subprocess

    ran = subprocess.run(LINUX, capture_output=True, text=True, timeout=30, check=True)
    assert [line for line in ran.stdout.splitlines() if line.startswith("@")] == [
        "@stat", "@cpu", "@clock", "@drm", "@engines", "@nvidia",
    ]  # fmt: skip
    assert linux(ran.stdout).steal is not None
