"""Container files as Proxmox reads them (pve-container, PVE/LXC/Config.pm, parse_pct_config), and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.model.ct import Ct, is_dev_path, parse_ct, parse_device, render_device, same_device

FILE = """#a note%3A dev9: /dev/x
arch: amd64
dev0: /dev/dri/renderD128,gid=104
dev0: /dev/dri/renderD129,gid=104
hostname: media
unprivileged: 1
lxc.cgroup2.devices.allow: c 226:* rwm
lxc.cgroup.devices.allow = a
lxc.mount.entry = /dev/dri dev/dri none bind,optional,create=dir
lxc.mount.entry: /srv srv none bind
lxc.idmap: g 0 100000 44

[pve:pending]
delete: dev0,dev5
dev1: path=/dev/kfd,mode=0666,deny-write=1

[before]
dev2: /dev/kfd
lxc.idmap: u 0 0 1
snaptime: 1
"""


def container(text: str = FILE) -> Ct:
    active, raw, pending, deleting = parse_ct(text)
    return Ct(200, "pve", active, raw, pending, deleting)


def test_the_last_line_of_a_key_wins_and_pending_is_what_the_next_start_sees() -> None:
    ct = container()
    assert ct.config["dev0"] == "/dev/dri/renderD129,gid=104" and ct.value("dev0") is None
    (device,) = ct.devices
    assert (device.key, device.path, device.mode, device.deny_write) == ("dev1", "/dev/kfd", "0666", True)
    assert ct.unprivileged and ct.name == "media" and "dev2" not in ct.config


def test_raw_lines_keep_their_order_and_both_spellings() -> None:
    ct = container()
    assert [(one.type, one.major, one.minor) for one in ct.allows] == [("c", 226, None), ("a", None, None)]
    assert [(one.source, one.optional) for one in ct.mounts] == [("/dev/dri", True)]
    assert ct.idmaps == ("lxc.idmap: g 0 100000 44",)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/dev/../etc", "/dev/.", "/dev/a,b", "/dev/a b", "/dev/a\n", "dev/a", "/dev/./a", "/dev/\x1b"],
)
def test_no_path_of_a_device(path: str) -> None:
    assert not is_dev_path(path)
    assert parse_device("dev0", path) is None or "," in path


@pytest.mark.parametrize("key", ["dev", "dev256", "dev00", "deva", "net0", "dev0x"])
def test_no_key_of_a_device(key: str) -> None:
    assert parse_device(key, "/dev/kfd") is None


def test_spellings_that_mean_the_same() -> None:
    assert same_device("/dev/kfd,gid=1,mode=0660", "mode=0660,path=/dev/kfd,gid=1,deny-write=0")
    assert same_device("/dev/kfd,deny-write=on", "/dev/kfd,deny-write=1")
    assert not same_device("/dev/kfd,gid=1", "/dev/kfd,gid=2")
    assert not same_device("/dev/kfd", None) and same_device(None, None)


ids = st.none() | st.integers(0, 65535)


@given(ids, ids, st.sampled_from(["", "0660", "0666"]), st.booleans())
def test_what_is_written_is_read_back(gid: int | None, uid: int | None, mode: str, shut: bool) -> None:
    device = parse_device("dev3", render_device("/dev/dri/by-path/pci-0000:01:00.0-render", gid, uid, mode, shut))
    assert device is not None
    assert (device.gid, device.uid, device.mode, device.deny_write) == (gid, uid, mode, shut)


@given(st.text(max_size=300))
def test_anything_can_be_read(text: str) -> None:
    ct = container(text)
    assert all(is_dev_path(one.path) for one in ct.devices)
    assert ct.allows is not None and ct.mounts is not None
