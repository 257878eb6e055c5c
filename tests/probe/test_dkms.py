"""Whether a module can be built: read from files that strangers wrote, and never run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pve_passthrough.host.simulated import Simulated
from pve_passthrough.model.dkms import Dkms
from pve_passthrough.planning.resets import MODULE, PROBE_FILE
from pve_passthrough.probe.dkms import CERTIFICATE, FRAMEWORK, TREES, probe_dkms
from tests.copies import copy_of

TREE = f"{TREES}/vendor-reset-0.1.1"
RELEASE = "7.0.14-4-pve"


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return copy_of("polaris", tmp_path / "host")


def look(host: Simulated, release: str | None = RELEASE) -> Dkms:
    return probe_dkms(host, MODULE, release, lambda name, version: "added", PROBE_FILE)


def test_all_that_a_build_needs_is_found(host: Simulated) -> None:
    found = look(host)
    assert (found.installed, found.headers) == (True, True)
    assert found.sources is not None
    assert [(one.path, one.version, one.state, one.new_headers) for one in found.sources] == [
        (TREE, "0.1.1", "added", True)
    ]


def test_what_is_not_there_is_no_and_what_nobody_can_say_is_unknown(host: Simulated) -> None:
    host.world.put("/usr/sbin/dkms", None)
    host.world.put(f"/lib/modules/{RELEASE}/build/Makefile", None)
    found = look(host)
    assert (found.installed, found.headers) == (False, False)
    assert look(host, None).headers is None


NO_ANSWER = (
    "",
    'PACKAGE_NAME="vendor-reset"\n',
    'PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="0.2"\n',
    'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="0.1.1"\n',
    'PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="$(reboot)"\n',
    'PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="--all"\n',
    'PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="../../etc"\n',
)


def test_a_tree_that_does_not_say_what_it_is_is_none_and_is_told(host: Simulated) -> None:
    for conf in NO_ANSWER:
        host.world.put(f"{TREE}/dkms.conf", conf)
        found = look(host)
        assert found.sources == (), conf
        assert any(TREE in line for line in found.unsaid)


def test_quotes_and_comments_of_a_shell_file_are_understood(host: Simulated) -> None:
    host.world.put(f"{TREE}/dkms.conf", "PACKAGE_NAME=vendor-reset  # the module\nPACKAGE_VERSION=0.1.1\n")
    assert look(host).sources


def test_the_tree_shows_which_headers_it_knows(host: Simulated) -> None:
    both = "#if X\n#include <linux/unaligned.h>\n#else\n#include <asm/unaligned.h>\n"
    for text, new in (("#include <asm/unaligned.h>\n", False), (both, True), ("nothing\n", None)):
        host.world.put(f"{TREE}/{PROBE_FILE}", text)
        found = look(host).sources
        assert found is not None
        assert found[0].new_headers is new


def test_a_key_is_trusted_when_its_fingerprint_is_enrolled(host: Simulated) -> None:
    assert look(host).enrolled is False  # there is none yet
    host.world.put(CERTIFICATE, "a certificate")
    assert look(host).enrolled is False
    machine = host.world.machine()
    machine["enrolled_keys"] = ["00" * 20, hashlib.sha1(b"a certificate").hexdigest()]
    host.world.save_machine(machine)
    assert look(host).enrolled is True


def test_dkms_may_sign_with_another_key(host: Simulated) -> None:
    host.world.put(FRAMEWORK, 'mok_certificate="/root/my.der"\n')
    assert look(host).certificate == "/root/my.der"
    host.world.put(FRAMEWORK, 'mok_certificate="/root/../etc/shadow"\n')
    assert look(host).certificate == CERTIFICATE
