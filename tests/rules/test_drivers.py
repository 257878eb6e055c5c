"""What the rules about drivers and links say."""

from __future__ import annotations

import pytest

from pve_passthrough import rules
from pve_passthrough.model.pci import Link

from .worlds import GPU, host, with_device


@pytest.mark.parametrize(("vendor", "speed", "told"), [(0x1002, 2.5, 0), (0x1002, 16.0, 1), (0x10DE, 2.5, 1)])
def test_lanes_of_an_idle_amd_card_say_nothing(vendor: int, speed: float, told: int) -> None:
    devices = with_device(GPU, vendor=vendor, link=Link(speed, 8, 16.0, 16))
    judged = rules.judge(host(devices=devices), rules.Request((GPU,)))
    found = [one for one in judged if one.rule == "drivers.link"]
    assert len(found) == told
