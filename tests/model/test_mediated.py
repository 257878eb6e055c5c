"""Names and numbers of shares: what drivers write, what Proxmox calls them, and what may stand in a configuration."""

from __future__ import annotations

import pytest

from pve_passthrough.model.mediated import (
    MediatedType,
    guest_of,
    memory_of,
    nvidia_number,
    parse_creatable,
    plain_type,
    uuid_of,
)


def test_the_name_of_a_share_and_back() -> None:
    """Recorded starts of 8.4 and 9.2: guest 703, hostpci0."""
    assert uuid_of(703, "hostpci0") == "00000000-0000-0000-0000-000000000703"
    assert guest_of(uuid_of(703, "hostpci12")) == (703, "hostpci12")


@pytest.mark.parametrize(
    "uuid",
    [
        "b1e0a1f2-0000-0000-0000-000000000703",
        "00000016-0000-0000-0000-000000000703",
        "00000000-0000-0000-0000-000000000099",
        "00000000-0000-0000-0000-000000000703\n",
        "",
    ],
)
def test_what_others_have_made_is_no_guest_s(uuid: str) -> None:
    assert guest_of(uuid) is None


@pytest.mark.parametrize("name", ["i915-GVTg_V5_4", "nvidia-660", "mtty-1"])
def test_names_of_types(name: str) -> None:
    assert plain_type(name)


@pytest.mark.parametrize(
    "name", ["", "a b", "a,b", "x=1", "../x", "a.b", "a:b", "é", "a\n", "-x", "x" * 65, "a\x1b[2J"]
)
def test_names_that_would_say_something_else_in_a_configuration(name: str) -> None:
    assert not plain_type(name)


def test_creatable_types_as_the_driver_writes_them() -> None:
    text = "ID    : vGPU Name\n1147  : NVIDIA L40S-1Q\n1159  : NVIDIA L40S-48Q\nnonsense\n: x\n-1 : y\n"
    assert parse_creatable(text) == (
        MediatedType("nvidia-1147", "NVIDIA L40S-1Q", "", 1),
        MediatedType("nvidia-1159", "NVIDIA L40S-48Q", "", 1),
    )
    assert parse_creatable("ID    : vGPU Name\n") == ()


@pytest.mark.parametrize(
    ("name", "description", "memory"),
    [
        ("GRID T4-4Q", "num_heads=4, frl_config=60, framebuffer=4096M, max_instance=4", 4096),
        ("GVTg_V5_4", "low_gm_size: 128MB\nhigh_gm_size: 512MB\nfence: 4\n", 128),
        ("NVIDIA RTX6000-Ada-12Q", "", 12288),
        ("NVIDIA H200X-1-18C", "", 18432),
        ("Dual port serial", "", None),
        ("x-9999Q", "", None),
    ],
)
def test_memory(name: str, description: str, memory: int | None) -> None:
    assert memory_of(name, description) == memory


def test_numbers_of_nvidia_s_types() -> None:
    assert nvidia_number("nvidia-660") == 660
    assert [nvidia_number(text) for text in ("nvidia-", "nvidia-x", "i915-GVTg_V5_4", "nvidia-1\n")] == [None] * 4
