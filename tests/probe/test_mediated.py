"""Mediated types, instances and NVIDIA's functions, out of bare trees; and names that no driver should give."""

from __future__ import annotations

from pathlib import Path

from pve_passthrough.host.local import Local
from pve_passthrough.model.mediated import MDEV, VF, Instance, Mediated, MediatedType, Parent
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.vm import HostPci, Vm
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.mediated import probe_mediated

IGPU, FUNCTION = Address(0, 0, 2, 0), Address(0, 5, 0, 4)
UUID = "00000000-0000-0000-0000-000000000703"


def parent(tmp_path: Path, home: str, kind: str, **files: str) -> Path:
    """A parent's directory with one type, linked in the class."""
    real = tmp_path / home
    place = real / "mdev_supported_types" / kind
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(text)
    bus = tmp_path / "sys/class/mdev_bus"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / real.name).symlink_to("../../" + home.removeprefix("sys/"))
    return real


def probed(tmp_path: Path, *devices: Device, guests: tuple[Vm, ...] = (), thorough: bool = True) -> tuple[
    Mediated | None, list[str]
]:  # fmt: skip
    ask = Asking(Local(str(tmp_path)))
    return probe_mediated(ask, devices, guests, thorough), [gap.about for gap in ask.gaps]


def test_a_machine_that_shares_nothing_is_known_to_share_nothing(tmp_path: Path) -> None:
    assert probed(tmp_path, Device(IGPU), thorough=False) == (Mediated(), [])


def test_types_and_an_instance(tmp_path: Path) -> None:
    home = parent(
        tmp_path, "sys/devices/pci0000:00/0000:00:02.0", "i915-GVTg_V5_4", available_instances="2\n",
        name="GVTg_V5_4\n", description="low_gm_size: 128MB\n",
    )  # fmt: skip
    (home / UUID).mkdir()
    (home / UUID / "mdev_type").symlink_to("../mdev_supported_types/i915-GVTg_V5_4")
    (tmp_path / "sys/bus/mdev/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/mdev/devices" / UUID).symlink_to(f"../../../devices/pci0000:00/0000:00:02.0/{UUID}")
    kind = MediatedType("i915-GVTg_V5_4", "GVTg_V5_4", "low_gm_size: 128MB", 2)
    assert probed(tmp_path, Device(IGPU)) == (
        Mediated((Parent("0000:00:02.0", MDEV, (kind,), IGPU),), (Instance(UUID, "0000:00:02.0", "i915-GVTg_V5_4"),)),
        [],
    )


def test_a_parent_that_is_no_pci_function(tmp_path: Path) -> None:
    parent(tmp_path, "sys/devices/virtual/mtty/mtty", "mtty-2", available_instances="24\n", name="Dual port serial\n")
    kind = MediatedType("mtty-2", "Dual port serial", "", 24)
    assert probed(tmp_path) == (Mediated((Parent("mtty", MDEV, (kind,)),)), [])


def test_a_glance_goes_no_deeper_unless_a_guest_names_a_share(tmp_path: Path) -> None:
    parent(tmp_path, "sys/devices/pci0000:00/0000:00:02.0", "x", available_instances="1\n")
    sharer = Vm(100, "pve", {}, hostpci=(HostPci("hostpci0", {"host": "00:02.0", "mdev": "x"}, (IGPU,)),))
    assert probed(tmp_path, Device(IGPU), thorough=False)[0] is None
    found, _ = probed(tmp_path, Device(IGPU), guests=(sharer,), thorough=False)
    assert found is not None and found.at(IGPU) is not None


def test_nvidia_s_functions(tmp_path: Path) -> None:
    place = tmp_path / "sys/bus/pci/devices" / str(FUNCTION) / "nvidia"
    place.mkdir(parents=True)
    (place / "creatable_vgpu_types").write_text("ID    : vGPU Name\n")
    (place / "current_vgpu_type").write_text("912\n")
    found, gaps = probed(tmp_path, Device(FUNCTION, nvidia_types=True))
    assert found == Mediated((Parent(str(FUNCTION), VF, (), FUNCTION, "nvidia-912"),)) and gaps == []


def test_what_is_no_number_is_unknown_and_never_zero(tmp_path: Path) -> None:
    parent(tmp_path, "sys/devices/pci0000:00/0000:00:02.0", "x", available_instances="many\n")
    place = tmp_path / "sys/bus/pci/devices" / str(FUNCTION) / "nvidia"
    place.mkdir(parents=True)
    (place / "current_vgpu_type").write_text("\x1b[2J\n")
    found, gaps = probed(tmp_path, Device(FUNCTION, nvidia_types=True))
    assert found is not None
    assert found.parents[0].types[0].available is None
    assert found.parents[1].current is None
    assert gaps == ["mediated.available", "mediated.current"]
