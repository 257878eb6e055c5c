"""Where a guest is bound against where its device hangs."""

from __future__ import annotations

from typing import Any

import pytest

from pve_passthrough.model.facts import Facts, NumaNode
from pve_passthrough.rules.performance import bound_elsewhere

from .worlds import BOTH, GPU, guest, host, with_device

TWO = (NumaNode(0, tuple(range(8))), NumaNode(1, tuple(range(8, 16))))


def world(node: int | None = 1, nodes: tuple[NumaNode, ...] | None = TWO, **config: Any) -> Facts:
    return host(devices=with_device(GPU, numa_node=node), numa_nodes=nodes, guests=(guest(**config),))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"affinity": "8-15"},
        {"affinity": "0-15"},
        {"affinity": "nonsense"},
        {"numa0": "cpus=0-3,hostnodes=1,memory=8192,policy=bind"},
        {"numa0": "cpus=0-1,hostnodes=0,memory=4096", "numa1": "cpus=2-3,hostnodes=1,memory=4096"},
        {"numa0": "cpus=0-3,hostnodes=0-1,memory=8192"},
        {"numa0": "cpus=0-3,memory=8192"},
    ],
)
def test_near_or_unbound_is_silent(config: dict[str, str]) -> None:
    assert list(bound_elsewhere(world(1, TWO, **config), BOTH)) == []


def test_without_nodes_or_without_a_place_nothing_is_said() -> None:
    assert list(bound_elsewhere(world(1, TWO[:1], affinity="0-7"), BOTH)) == []
    assert list(bound_elsewhere(world(1, None, affinity="0-7"), BOTH)) == []
    assert list(bound_elsewhere(world(-1, TWO, affinity="0-7"), BOTH)) == []


def test_far_memory_is_shown_with_its_line() -> None:
    (found,) = bound_elsewhere(world(1, TWO, numa0="cpus=0-3,hostnodes=0,memory=8192"), BOTH)
    assert found.evidence[1] == "numa0: cpus=0-3,hostnodes=0,memory=8192"
