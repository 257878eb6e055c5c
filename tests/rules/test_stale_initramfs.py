"""What the initramfs does not know of, and what it still knows of; arguments that stand there needlessly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.model.facts import Facts, Firmware, Iommu, Modules
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.own import CLAIM_SCRIPT, GRUB_DROP_IN
from pve_passthrough.probe.platform import copies_listed
from pve_passthrough.rules import Request, judge
from tests.copies import copy_of

from .worlds import GRUB, VFIO, host

IDS = "options vfio-pci ids=10de:2684\n"
LISTING = """init
etc/modprobe.d/vfio.conf
./etc/modprobe.d/other.conf
usr/lib/modprobe.d/aliases.conf
etc/modprobe.d/README
scripts/init-top/pve-passthrough
usr/lib/modules/6.8/kernel/drivers/vfio/pci/vfio-pci.ko
"""


def said(rule: str, facts: Facts) -> list[Finding]:
    return [one for one in judge(facts, Request()) if one.rule == rule]


def stale(facts: Facts) -> list[tuple[Level, str]]:
    return [(one.level, " ".join(one.evidence)) for one in said("bootconfig.stale-initramfs", facts)]


def world(inside: tuple[str, ...] | None, tool: str = "initramfs-tools", **files: str | None) -> Facts:
    paths = {f"/etc/modprobe.d/{name}.conf": text for name, text in files.items()}
    modules = Modules(frozenset(), frozenset(), None if inside is None else frozenset(inside), tool)
    return host(files={"/etc/modprobe.d/": "directory", CLAIM_SCRIPT: None} | paths, modules=modules)


def test_what_is_read_from_the_listing() -> None:
    assert copies_listed(LISTING) == {VFIO, "/etc/modprobe.d/other.conf", CLAIM_SCRIPT}


@pytest.mark.parametrize(
    ("facts", "levels"),
    [
        (world((), vfio=IDS), [Level.HARMS]),
        (world((VFIO,), vfio=IDS), []),
        (world(None, vfio=IDS), []),  # a glance does not look
        (world((), "dracut", vfio=IDS), []),
        (world((), vfio="# only words\n"), []),
        (world((VFIO,)), [Level.NOTE]),
        (world((CLAIM_SCRIPT,)), [Level.NOTE]),
    ],
)
def test_a_file_on_one_side_only(facts: Facts, levels: list[Level]) -> None:
    assert [level for level, _ in stale(facts)] == levels


def test_our_own_script_counts_as_well() -> None:
    facts = world((), vfio="# nothing\n")
    with_script = replace(facts, files={**facts.files, CLAIM_SCRIPT: "#!/bin/sh\n"})
    assert stale(with_script) == [(Level.HARMS, f"/boot/initrd.img-6.8.12-9-pve: no {CLAIM_SCRIPT}")]
    assert stale(replace(with_script, modules=world((CLAIM_SCRIPT,)).modules)) == []


def test_on_a_machine_it_comes_with_the_file_and_goes_with_the_rebuild(tmp_path: Path) -> None:
    machine = copy_of("default", tmp_path / "host")
    found = [one for one in app.check(machine, ("gpu",)).findings if one.rule == "bootconfig.stale-initramfs"]
    assert found == []
    machine.write(VFIO, IDS.encode())
    assert [one.evidence[0].rpartition("/")[2] for one in app.check(machine, ("gpu",)).findings
            if one.rule == "bootconfig.stale-initramfs"] == ["vfio.conf"]  # fmt: skip
    assert machine.run(("update-initramfs", "-u", "-k", "all")).ok
    assert not any(one.rule == "bootconfig.stale-initramfs" for one in app.check(machine, ("gpu",)).findings)


def test_a_plan_that_rebuilds_it_does_not_warn_of_it(tmp_path: Path) -> None:
    machine = copy_of("default", tmp_path / "host")
    planned = app.plan(machine, ("gpu",), 100, accept=("console", "only-display"))
    assert not any(one.rule == "bootconfig.stale-initramfs" for one in planned.plan.risks)


# -- an argument that is not needed any more ---------------------------------------------------


def told(path: str = GRUB, release: str = "6.8.12-9-pve", running: str = "intel_iommu=on") -> Facts:
    base = host(files={path: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"\n'})
    return replace(base, kernel=replace(base.kernel, release=release, cmdline=f"root=/dev/sda1 {running}"))


@pytest.mark.parametrize(
    ("facts", "fires"),
    [
        (told(), True),
        (told(release="6.5.13-1-pve"), False),
        (told(release="6.12.0-1-amd64"), False),  # whose build that is, nobody has said
        (told(running="quiet"), False),
        (told(GRUB_DROP_IN), False),
        (replace(told(), iommu=Iommu(())), False),
    ],
)
def test_a_needless_argument(facts: Facts, fires: bool) -> None:
    found = said("bootconfig.needless", facts)
    assert [one.level for one in found] == ([Level.NOTE] if fires else [])


# -- another switch ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"vmx"}, "VT-x is on, which is another switch"), ({"aes"}, "no vmx: VT-x is switched off in the firmware, too")],
)
def test_the_processor_s_own_switch_is_told_apart_from_the_iommu_s(flags: set[str], words: str) -> None:
    facts = host(iommu=Iommu(()), firmware=Firmware(dmar=False, ivrs=False))
    (found,) = said("platform.iommu", replace(facts, cpu=replace(facts.cpu, flags=frozenset(flags))))
    assert any(words in line for line in found.evidence)
