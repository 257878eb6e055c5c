"""The simulated containers and device nodes against pve-container's source and the kernel's rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated import Simulated
from tests.copies import copy_of

CARD = "0000:15:00.0"


@pytest.fixture
def apu(tmp_path: Path) -> Simulated:
    return copy_of("containers", tmp_path / "host")


def pct(host: Simulated, *words: str) -> Ran:
    return host.run(("pct", *words))


def stat(host: Simulated, path: str) -> str:
    return host.run(("stat", "-L", "-c", "%f %t:%T %U:%G", "--", path)).stdout.strip()


def test_nodes_live_as_long_as_their_driver(apu: Simulated) -> None:
    assert stat(apu, "/dev/dri/renderD128") == "21b0 e2:80 root:render"
    assert stat(apu, f"/dev/dri/by-path/pci-{CARD}-card") == "21b0 e2:0 root:video"
    assert apu.link("/sys/dev/char/226:128").endswith(f"{CARD}/drm/renderD128")
    apu.write("/sys/bus/pci/drivers/amdgpu/unbind", CARD.encode())
    assert "kfd" not in apu.names("/dev") and apu.names("/dev/dri") == ("by-path",)
    assert apu.run(("stat", "-L", "-c", "%f", "--", "/dev/kfd")).rc == 1
    apu.write("/sys/bus/pci/drivers/amdgpu/bind", CARD.encode())
    assert stat(apu, "/dev/kfd").endswith("root:render")


def test_a_plain_file_is_no_device(apu: Simulated) -> None:
    assert stat(apu, "/etc/hostname").startswith("81a4 0:0")
    said = pct(apu, "set", "200", "--dev0", "/dev/nothing")
    assert said.rc != 0 and "Device /dev/nothing does not exist" in said.stderr


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "/dev/../etc/passwd", "/dev/kfd,mode=660", "/dev/kfd,gid=-1", "/dev/kfd,x=1"]
)
def test_the_schema_refuses(apu: Simulated, value: str) -> None:
    said = pct(apu, "set", "200", "--dev0", value)
    assert said.rc == 255 and "dev0" in said.stderr
    assert pct(apu, "set", "200", "--dev256", "/dev/kfd").rc == 255


def test_new_is_plugged_in_at_once_and_a_change_waits(apu: Simulated) -> None:
    assert pct(apu, "status", "200").stdout == "status: running\n"
    assert pct(apu, "set", "200", "--dev0", "/dev/kfd,gid=1").ok
    assert pct(apu, "exec", "200", "--", "stat", "-c", "%u:%g", "--", "/dev/kfd").stdout == "0:1\n"
    assert pct(apu, "set", "200", "--dev0", "/dev/kfd,gid=2").ok
    assert pct(apu, "exec", "200", "--", "stat", "-c", "%g", "--", "/dev/kfd").stdout == "1\n"
    assert "dev0: /dev/kfd,gid=2" in pct(apu, "config", "200").stdout
    assert pct(apu, "reboot", "200").ok
    assert pct(apu, "exec", "200", "--", "stat", "-c", "%g", "--", "/dev/kfd").stdout == "2\n"


def test_raw_lines_and_snapshots_survive_a_change(apu: Simulated) -> None:
    path = "/etc/pve/nodes/pve/lxc/201.conf"
    apu.world.put(path, f"{apu.world.text(path)}\n[before]\nhostname: old\nsnaptime: 1\n")
    before = apu.world.text(path) or ""
    assert pct(apu, "set", "201", "--dev0", "/dev/kfd").ok and pct(apu, "set", "201", "--delete", "dev0").ok
    assert apu.world.text(path) == before


def test_a_wrong_digest_and_a_lock_refuse(apu: Simulated) -> None:
    said = apu.run(("pvesh", "set", "/nodes/pve/lxc/200/config", "--dev0", "/dev/kfd", "--digest", "0" * 40))
    assert said.rc == 255 and "checksum mismatch" in said.stderr
    assert pct(apu, "set", "200", "--lock", "backup").ok
    assert "CT is locked (backup)" in pct(apu, "set", "200", "--dev0", "/dev/kfd").stderr
    assert pct(apu, "status", "555").rc == 2


def test_inside_a_raw_mount_an_unprivileged_container_sees_nobody(apu: Simulated) -> None:
    assert pct(apu, "start", "201").ok
    form = ("stat", "-c", "%u:%g", "--", "/dev/dri/renderD128")
    assert pct(apu, "exec", "201", "--", *form).stdout == "0:993\n"
    assert pct(apu, "stop", "201").ok
    assert pct(apu, "exec", "201", "--", *form).rc == 1
    path = "/etc/pve/nodes/pve/lxc/201.conf"
    apu.world.put(path, f"unprivileged: 1\n{apu.world.text(path)}")
    assert pct(apu, "start", "201").ok
    assert pct(apu, "exec", "201", "--", *form).stdout == "65534:65534\n"


def test_the_inside_answers_for_itself(apu: Simulated) -> None:
    assert pct(apu, "exec", "200", "--", "getent", "group", "render", "nothing") == Ran(2, "render:x:106:\n")
    assert pct(apu, "exec", "200", "--", "id", "-u", "jellyfin").stdout == "103\n"
    assert pct(apu, "exec", "200", "--", "nvidia-smi").rc == 127
    told = json.loads(apu.run(("pvesh", "get", "/nodes/pve/lxc/201/config", "--output-format", "json")).stdout)
    assert told["lxc"][0] == ["lxc.cgroup2.devices.allow", "c 226:128 rwm"]
