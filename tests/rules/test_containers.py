"""What is said of containers: who loses what, and when one is the better answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.model.facts import Facts, Gap
from pve_passthrough.model.finding import Finding, Level, Verdict
from pve_passthrough.rules import Request, judge, verdict

from .container_worlds import BY_PATH, NODES, RAW, RENDER, ct, given, sharing
from .worlds import BOTH, GPU, IGPU, guest, with_device


def said(rule: str, facts: Facts, request: Request = BOTH) -> list[Finding]:
    return [finding for finding in judge(facts, request) if finding.rule == rule]


# -- a guest takes what containers use -----------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "level", "words"),
    [
        (ct(dev0=RENDER), Level.HARMS, "loses it when the guest starts"),
        (ct(dev0=f"path={BY_PATH},gid=104"), Level.HARMS, "loses it"),
        (ct(raw=RAW), Level.HARMS, "loses it"),
        (ct(dev0=RENDER, running=None), Level.HARMS, "may be using"),
        (ct(dev0=RENDER, running=False), Level.NOTE, "does not start while"),
        (ct(dev0=RENDER, running=False, onboot="1"), Level.HARMS, "does not start while"),
    ],
)
def test_a_container_with_the_card_is_a_hazard_that_is_accepted_by_name(
    holder: object, level: Level, words: str
) -> None:
    (finding,) = said("lxc.also-in-container", sharing(holder))  # type: ignore[arg-type]
    assert finding.level is level and words in finding.message
    assert finding.hazard == ("container-conflict" if level is Level.HARMS else "")


@pytest.mark.parametrize(
    "holder",
    [ct(), ct(dev0="/dev/dri/renderD129"), ct(dev0="/dev/ttyUSB0"), ct(raw=(("lxc.mount.entry", "/dev/fuse a"),))],
)
def test_other_devices_are_no_conflict(holder: object) -> None:
    assert said("lxc.also-in-container", sharing(holder)) == []  # type: ignore[arg-type]


def test_a_raw_directory_holds_every_card_in_it() -> None:
    facts = sharing(ct(raw=(("lxc.mount.entry", "/dev/dri dev/dri none bind,optional,create=dir"),)))
    (finding,) = said("lxc.also-in-container", facts)
    assert finding.subject == str(GPU) and finding.fix is not None
    assert finding.fix.commands == ("editor /etc/pve/lxc/200.conf",), "Proxmox has no command for raw lines"


def test_once_the_guest_has_the_card_it_is_a_note() -> None:
    facts = sharing(ct(dev0=RENDER), guests=(guest(),), given_nodes=given(GPU), dev_nodes=NODES[1:])
    (finding,) = said("lxc.also-in-container", facts)
    assert finding.level is Level.NOTE and finding.hazard == ""


def test_without_the_containers_nobody_can_say() -> None:
    facts = replace(sharing(), own_containers=None, gaps=(Gap("own_containers", "no answer"),))
    (finding,) = said("lxc.also-in-container", facts)
    assert finding.level is Level.UNKNOWN
    assert said("lxc.also-in-container", replace(facts, gaps=())) == [], "a glance does not look"


# -- better as a container -----------------------------------------------------------------------


def test_a_headless_linux_guest_hears_of_containers() -> None:
    (finding,) = said("lxc.better", sharing())
    assert finding.level is Level.NOTE and "nvidia" in finding.message
    assert said("lxc.better", sharing(), Request((GPU,)))


@pytest.mark.parametrize(
    "facts",
    [
        sharing(guests=(guest(drop=("hostpci0",), ostype="win11"),)),
        sharing(guests=(guest(drop=("hostpci0",), vga="none"),)),
        sharing(devices=with_device(GPU, driver="vfio-pci")),
        sharing(devices=with_device(GPU, driver="nouveau")),
        sharing(dev_nodes=NODES[1:]),
        sharing(guests=(guest(),)),
    ],
)
def test_windows_a_display_or_no_driver_is_no_case_for_it(facts: Facts) -> None:
    assert said("lxc.better", facts) == []


def test_it_never_changes_the_verdict() -> None:
    bare = sharing(dev_nodes=())
    assert verdict(judge(sharing(), BOTH)) is verdict(judge(bare, BOTH)) is not Verdict.BLOCKED


# -- what containers have ------------------------------------------------------------------------


def test_a_missing_node_names_the_entry_and_nvidia_its_remedy() -> None:
    (finding,) = said("lxc.absent-node", sharing(ct(dev0=RENDER, dev3="/dev/nvidia-uvm,gid=0")), Request())
    assert finding.evidence == ("200.conf: dev3: /dev/nvidia-uvm",)
    assert finding.fix is not None and "nvidia-modprobe -c 0 -u -m" in finding.fix.commands
    assert said("lxc.absent-node", sharing(ct(dev0="/dev/net/tun")), Request()) == [], "nobody looked for that one"


def test_a_number_that_means_another_card_now() -> None:
    (finding,) = said("lxc.node-renumbered", sharing(ct(dev0=RENDER), given_nodes=given(IGPU)), Request())
    assert finding.level is Level.HARMS and str(IGPU) in finding.message and str(GPU) in finding.message
    assert said("lxc.node-renumbered", sharing(ct(dev0=RENDER), given_nodes=given(GPU)), Request()) == []
    assert said("lxc.node-renumbered", sharing(ct(), given_nodes=given(IGPU)), Request()) == [], "taken away since"


def test_raw_lines_are_shown_with_what_replaces_them() -> None:
    raw = (*RAW, ("lxc.idmap", "g 0 100000 44"), ("lxc.mount.entry", "/srv srv none bind"))
    (finding,) = said("lxc.raw-lines", sharing(ct(raw=raw)), Request())
    assert finding.level is Level.NOTE
    assert len(finding.evidence) == 3 and all("/srv" not in line for line in finding.evidence)
    assert finding.fix is not None and finding.fix.commands[-1] == f"pve-passthrough lxc add {RENDER} --ct 200"
    assert said("lxc.raw-lines", sharing(ct(raw=raw[3:])), Request()) == []
