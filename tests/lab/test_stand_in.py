"""The stand-in without a lab host: QEMU's command line against recorded ones, talks against a made-up other side."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough.host.simulated import create
from pve_passthrough.host.simulated.pve import guests
from pve_passthrough.host.simulated.pve.config import load
from pve_passthrough.host.simulated.pve.node import Node, NotCovered, node_of
from tests.lab import stand_in
from tests.lab.stand_in.pve_stand_in import command_line, talk
from tests.shared import SHARED, needs_shared


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """The default simulated machine, whose guest 100 is the lab's."""
    world = create(str(tmp_path / "machine")).world
    found = node_of(world)
    world.put(f"/etc/pve/nodes/{found.name}/qemu-server/100.conf", stand_in.guest())
    return found


def _words(node: Node, **options: str) -> list[str]:
    """The command line of guest 100 with further options."""
    path = f"/etc/pve/nodes/{node.name}/qemu-server/100.conf"
    text = stand_in.guest() + "".join(f"{key}: {value}\n" for key, value in options.items())
    node.world.put(path, text)
    config = load(node, 100)
    assert set(options) <= set(config.active), node.err
    return command_line.build(node, config, guests.command(node, config), "kvm")


def _devices(words: list[str], kind: str) -> list[str]:
    return [word for option, word in itertools.pairwise(words) if option == "-device" and word.startswith(kind)]


def test_the_lab_s_guest_is_understood_whole(node: Node) -> None:
    words = _words(node)
    assert node.err == []
    assert words[-6::2] == ["-kernel", "-initrd", "-append"]
    assert "console=ttyS0" in words[-1]
    assert not _devices(words, "vfio-pci")


@needs_shared
def test_devices_are_placed_as_recorded(node: Node) -> None:
    recorded = (SHARED / "pve/pve9.jsonl").read_text()
    for value in ("0000:01:00,pcie=1", "0000:01:00,x-vga=1"):
        q35 = "pcie" in value
        for device in _devices(_words(node, hostpci0=value, **({} if q35 else {"machine": "pc"})), "vfio-pci"):
            assert re.search(re.escape(device) + r"[' ]", recorded), device
    for value in ("1a86:7523", "1-2"):
        words = _words(node, usb0=f"host={value}")
        for device in _devices(words, "usb-host") + _devices(words, "qemu-xhci"):
            assert re.search(re.escape(device) + r"[' ]", recorded), device


@needs_shared
def test_a_mediated_device_is_named_by_its_instance_as_recorded(node: Node) -> None:
    recorded = (SHARED / "pve/option-forms-9.txt").read_text()
    (device,) = _devices(_words(node, machine="pc", hostpci0="0000:01:00.0,mdev=some-1"), "vfio-pci")
    assert device.replace(f"{100:012d}", f"{999:012d}") in recorded, device


def test_a_usb_device_is_plugged_in_as_a_start_would_place_it(node: Node) -> None:
    for entry in ("host=1a86:7523", "host=1-5.1"):
        (word,) = _devices(_words(node, usb3=entry), "usb-host")
        told = command_line.arguments(word)
        assert word == ",".join([str(told["driver"]), *_options(told, {"vendorid", "productid"})])
        assert isinstance(told["port"], str), "QEMU's port is a text, 1.2 is one"
    assert told["hostport"] == "5.1"
    assert command_line.arguments(command_line.XHCI)["p2"] == 15


def _options(told: dict[str, str | int], in_hex: set[str]) -> list[str]:
    return [f"{name}={value:#06x}" if name in in_hex else f"{name}={value}" for name, value in told.items()][1:]


def test_options_go_to_the_first_function_alone(node: Node) -> None:
    first, second = _devices(
        _words(node, hostpci0="01:00,pcie=1,rombar=0,romfile=card.rom,vendor-id=0x10de"), "vfio-pci"
    )
    assert ",rombar=0,romfile=/usr/share/kvm/card.rom,x-pci-vendor-id=0x10de" in first
    assert "rombar" not in second
    assert "romfile" not in second


def test_every_port_that_is_named_is_there(node: Node) -> None:
    words = _words(node, hostpci2="01:00,pcie=1", hostpci6="03:00,pcie=1")
    ports = {re.search(r"id=([^,]+)", port).group(1) for port in _devices(words, "pcie-root-port")}  # type: ignore[union-attr]
    assert {"ich9-pcie-port-3", "ich9-pcie-port-7"} <= ports
    slots = {re.search(r"addr=([0-9a-f]+)\.", port).group(1) for port in _devices(words, "pcie-root-port")}  # type: ignore[union-attr]
    for slot in slots:
        assert any(f"addr={slot}.0" in port for port in _devices(words, "pcie-root-port")), "nobody looks for the slot"


@pytest.mark.parametrize("option", [{"bios": "ovmf"}, {"scsi0": "local:100/vm-100-disk-0.raw,size=1G"}])
def test_what_a_lab_guest_cannot_have_is_said(node: Node, option: dict[str, str]) -> None:
    config = load(node, 100)
    config.active |= option
    with pytest.raises(NotCovered):
        command_line.build(node, config, [], "kvm")


def test_args_that_do_not_parse_are_dropped(node: Node) -> None:
    config = load(node, 100)
    config.active["args"] = "-cpu 'host"
    assert "-kernel" not in command_line.build(node, config, [], "kvm")
    assert "'host" not in command_line.build(node, config, [], "kvm")


# -- talks ----------------------------------------------------------------------------------------


@contextmanager
def _other_side(path: Path, greeting: bytes, answers: dict[str, bytes]) -> Iterator[str]:
    """A socket that answers each command with given bytes."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        talker, _ = server.accept()
        with talker, talker.makefile("rb") as lines:
            talker.sendall(greeting)
            for line in lines:
                message: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
                if message["execute"] == "guest-sync-delimited":
                    token = message["arguments"]["id"]
                    talker.sendall(b'{"return": 7}\n\xff' + json.dumps({"return": token}).encode() + b"\n")
                else:
                    talker.sendall(answers.get(message["execute"], b'{"return": {}}\n'))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield str(path)
    finally:
        server.close()


_QMP = b'{"QMP": {"version": {}, "capabilities": []}}\n'


def test_events_between_the_monitor_s_answers_are_passed_over(tmp_path: Path) -> None:
    answer = b'{"event": "RESET", "timestamp": {}}\n{"return": {"running": true}}\n'
    with _other_side(tmp_path / "qmp", _QMP, {"query-status": answer}) as path:
        assert talk.monitor(path, "query-status", 5.0) == {"running": True}


def test_the_agent_s_refusal_is_its_own_words(tmp_path: Path) -> None:
    refusal = b'{"error": {"class": "GenericError", "desc": "no such process"}}\n'
    with (
        _other_side(tmp_path / "qga", b"", {"guest-exec": refusal}) as path,
        pytest.raises(talk.Refusal, match=r"^no such process$"),
    ):
        talk.agent(path, "guest-exec", {}, 5.0)


@pytest.mark.parametrize("answer", [b"[1, 2]\n", b"no json\n", b"[" * 5000 + b"\n", b"{}\n", b""])
def test_an_answer_without_form_is_silence(tmp_path: Path, answer: bytes) -> None:
    with _other_side(tmp_path / "qga", b"", {"guest-info": answer}) as path, pytest.raises(talk.Silence):
        talk.agent(path, "guest-info", {}, 0.5)


def test_nobody_there_is_silence(tmp_path: Path) -> None:
    with pytest.raises(talk.Silence):
        talk.monitor(str(tmp_path / "nosuch"), "quit", 1.0)
