"""What a guest installs: one script in three forms, right for card, system and use; refused where it cannot be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pve_passthrough.errors import Failure
from pve_passthrough.knowledge.guest_drivers import OSES, USES
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.planning.inside import (
    REBOOT_MARK,
    SCRIPT,
    Card,
    card_by_id,
    cards_of,
    cloud_init,
    recipe,
    shell,
)

P40, RTX3080, RTX4090, RTX5090, K80 = "10de:1b38", "10de:2206", "10de:2684", "10de:2b85", "10de:102d"
H100, NAVI, ARC = "10de:2330", "1002:73bf", "8086:56a0"
EVERY = (P40, RTX3080, RTX4090, RTX5090, H100, NAVI, ARC)


def card(identity: str) -> Card:
    found = card_by_id(identity)
    assert found is not None
    return found


def refusal(*identities: str, os: str, use: str = "ai") -> Failure:
    with pytest.raises(Failure) as caught:
        recipe([card(one) for one in identities], os, use)
    return caught.value


def every_recipe() -> list[tuple[str, str, str]]:
    found = []
    for identity in EVERY:
        for system in OSES:
            for use in USES:
                try:
                    recipe([card(identity)], system, use)
                except Failure:
                    continue
                found.append((identity, system, use))
    return found


# -- which packages ----------------------------------------------------------------------------------


def test_most_of_the_table_is_served() -> None:
    served = set(every_recipe())
    missing = {
        (identity, system, use) for identity in EVERY for system in OSES for use in USES
    } - served  # fmt: skip
    assert missing == {
        *((RTX5090, system, use) for system in ("debian-12", "debian-13") for use in USES),
        (NAVI, "ubuntu-22.04", "ai"),
        (ARC, "debian-13", "ai"),
    }


@pytest.mark.parametrize(
    ("identity", "system", "flavour"),
    [
        (P40, "ubuntu-24.04", "linux-modules-nvidia-580-server-$kernel"),
        (RTX3080, "ubuntu-24.04", "linux-modules-nvidia-580-server-open-$kernel"),
        (H100, "ubuntu-22.04", "linux-modules-nvidia-580-server-open-$kernel"),
        (RTX5090, "ubuntu-22.04", "linux-modules-nvidia-580-server-open-$kernel"),
        (P40, "debian-13", "nvidia-kernel-dkms"),
        (RTX4090, "debian-12", "nvidia-kernel-dkms"),
    ],
)
def test_each_generation_gets_the_modules_that_it_works_with(identity: str, system: str, flavour: str) -> None:
    made = recipe([card(identity)], system)
    assert flavour in made.packages
    modules = [name for name in made.packages if "modules-nvidia" in name or name.endswith("kernel-dkms")]
    assert modules == [flavour], "one flavour, never two"


def test_only_modules_built_in_the_guest_need_a_key() -> None:
    assert not recipe([card(P40)], "ubuntu-24.04", secure_boot=True).dkms
    signed = recipe([card(P40)], "ubuntu-24.04", secure_boot=True).notes
    assert any("come signed" in note for note in signed)
    built = recipe([card(P40)], "debian-13", secure_boot=True)
    assert built.dkms and any("mokutil --import" in note for note in built.notes)
    assert not any("mokutil" in note for note in recipe([card(P40)], "debian-13", secure_boot=False).notes)


@pytest.mark.parametrize(
    ("identity", "system", "there"),
    [
        (P40, "ubuntu-22.04", True),  # 11.5 compiles for Pascal
        (RTX4090, "ubuntu-22.04", False),  # Ada came with 11.8
        (RTX4090, "debian-12", True),
        (RTX5090, "ubuntu-24.04", False),  # Blackwell came with 12.8
        (NAVI, "ubuntu-24.04", False),
    ],
)
def test_the_toolkit_comes_where_it_compiles_for_the_card(identity: str, system: str, there: bool) -> None:
    made = recipe([card(identity)], system)
    assert ("nvidia-cuda-toolkit" in made.packages) is there
    if identity.startswith("10de"):
        assert any("CUDA" in note for note in made.notes)


def test_an_older_card_decides_for_its_neighbour() -> None:
    made = recipe([card(P40), card(RTX3080)], "ubuntu-24.04")
    assert "nvidia-headless-no-dkms-580-server" in made.packages
    assert not any("-open" in name for name in made.packages)


def test_cards_of_different_makers_share_one_script() -> None:
    made = recipe([card(RTX3080), card(ARC)], "ubuntu-24.04", "transcode")
    assert {"nvidia-utils-580-server", "intel-media-va-driver-non-free", "ffmpeg"} <= set(made.packages)
    assert len(set(made.packages)) == len(made.packages)
    assert made.modules == (("nvidia",), ("i915", "xe"))


# -- what is refused ---------------------------------------------------------------------------------


def test_what_the_archive_lacks_is_refused_with_the_makers_way() -> None:
    failure = refusal(RTX5090, os="debian-12")
    assert failure.problem.ref == "inside.not-in-archive"
    assert any("cuda-keyring" in line for line in failure.problem.context)
    assert "ubuntu-22.04, ubuntu-24.04" in failure.problem.hint
    assert "ubuntu-24.04" in refusal(NAVI, os="ubuntu-22.04").problem.hint


def test_a_card_that_no_branch_here_knows_is_refused() -> None:
    assert refusal(K80, os="ubuntu-24.04").problem.ref == "inside.too-old"


def test_modules_that_exclude_each_other_are_refused() -> None:
    failure = refusal(P40, RTX5090, os="ubuntu-24.04")
    assert failure.problem.ref == "inside.two-flavours"
    assert len(failure.problem.context) == 2


@pytest.mark.parametrize(
    ("system", "use", "ref"),
    [
        ("windows-11", "ai", "inside.windows"),
        ("arch", "ai", "inside.unknown"),
        ("debian-13", "mining", "inside.unknown"),
        ("debian-13\n#", "ai", "inside.unknown"),
    ],
)
def test_unknown_words_are_refused(system: str, use: str, ref: str) -> None:
    failure = refusal(P40, os=system, use=use)
    assert failure.problem.ref == ref
    assert "\n" not in failure.problem.message


def test_without_a_graphics_card_there_is_nothing_to_print() -> None:
    nic = Device(Address(0, 3, 0, 0), 0x8086, 0x15F3, 0x020000)
    sound = Device(Address(0, 1, 0, 1), 0x10DE, 0x22BA, 0x040300)
    assert cards_of((nic, sound)) == ()
    with pytest.raises(Failure) as caught:
        recipe((), "debian-13")
    assert caught.value.problem.ref == "inside.no-card"


@pytest.mark.parametrize("identity", ["10de:22ba", "1002:ab28", "8086:15f3", "144d:a80a"])
def test_an_id_of_no_graphics_card_is_none(identity: str) -> None:
    assert card_by_id(identity) is None


# -- the forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", every_recipe(), ids="-".join)
def test_cloud_init_data_is_what_cloud_init_takes(what: tuple[str, str, str]) -> None:
    identity, system, use = what
    made = recipe([card(identity)], system, use)
    text = cloud_init(made)
    assert text.startswith("#cloud-config\n") and all(len(line) <= 200 for line in text.split("\n"))
    data: dict[str, Any] = yaml.safe_load(text)
    assert set(data) == {"package_update", "packages", "write_files", "runcmd", "power_state"}
    assert data["packages"] == ["qemu-guest-agent"]
    (file,) = data["write_files"]
    assert (file["path"], file["permissions"]) == (SCRIPT, "0755")
    assert file["content"] == made.script, "the script arrives to the byte"
    assert data["runcmd"] == [[SCRIPT]]
    assert data["power_state"]["condition"] == f"test -e {REBOOT_MARK}"


def test_the_script_in_words_is_the_script() -> None:
    made = recipe([card(P40)], "debian-13")
    rows = [line for line in shell(made).split("\n") if not line.startswith("#")]
    assert rows == [line for line in made.script.split("\n") if not line.startswith("#")]
    assert shell(made).startswith("#!/bin/sh\n# Inside the guest")


def test_nothing_is_fetched_and_no_key_is_added() -> None:
    for identity, system, use in every_recipe():
        script = recipe([card(identity)], system, use).script
        assert not re.search(r"wget|curl|gpg |apt-key|trusted=|password|ssh-", script)
        addresses = set(re.findall(r"https?://([^/\s]+)", script))
        assert addresses <= {"deb.debian.org", "security.debian.org"}


def test_a_hostile_name_stays_in_its_comment() -> None:
    bad = Card(0x10DE, 0x1B38, "Tesla\nreboot: now\r\x1b[2J'$(rm -rf /)é" + "x" * 500, "0000:01:00.0")
    made = recipe([bad], "debian-13")
    assert "\nreboot: now" not in cloud_init(made)
    for line in made.script.split("\n"):
        assert line.isascii() and line.isprintable()
        assert "$(rm" not in line or line.startswith("#")
    assert yaml.safe_load(cloud_init(made))["write_files"][0]["content"] == made.script


def test_a_share_of_a_card_is_another_matter() -> None:
    whole, part = Address(0, 1, 0, 0), Address(0, 1, 0, 4)
    gpu = Device(whole, 0x10DE, 0x27B8, 0x030200)
    function = replace(gpu, address=part, physical_function=whole)
    for cards in (cards_of((function,)), cards_of((gpu,), {whole})):
        with pytest.raises(Failure) as caught:
            recipe(cards, "ubuntu-24.04")
        assert caught.value.problem.ref == "inside.vgpu"
    intel = replace(function, vendor=0x8086, product=0x56C0)
    assert any("i915-sriov-dkms" in note for note in recipe(cards_of((intel,)), "ubuntu-24.04").notes)
    assert recipe(cards_of((gpu,)), "ubuntu-24.04").cards[0].shared is False


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="the program cloud-init is not installed")
@pytest.mark.parametrize("system", OSES)
def test_cloud_inits_own_schema_accepts_it(system: str, tmp_path: Path) -> None:
    file = tmp_path / "user-data"
    file.write_text(cloud_init(recipe([card(P40)], system)))
    done = subprocess.run(["cloud-init", "schema", "--config-file", str(file)], check=False, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


# -- the script runs ---------------------------------------------------------------------------------

STUBS = {
    "apt-get": 'echo "apt-get $*" >> "$LOG"',
    "usermod": 'echo "usermod $*" >> "$LOG"',
    "systemctl": 'echo "systemctl $*" >> "$LOG"',
    "id": "echo ${FAKE_UID:-0}",
    "uname": 'echo "$KERNEL"',
    "getent": "echo ubuntu:x:1000:1000::/home/ubuntu:/bin/bash",
}


def run(tmp_path: Path, script: str, kernel: str, release: str, **more: str) -> tuple[int, str, list[str]]:
    """Run the script with its places moved below `tmp_path`: exit status, what it said, what it started."""
    for name in ("bin", "etc/apt/sources.list.d", "run", "sys/module"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    system, version = release.split("-")
    (tmp_path / "etc/os-release").write_text(f'ID={system}\nVERSION_ID="{version}"\n')
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    moved = re.sub(r"(?<![\w/.])/(?=(?:etc|run|sys)/)", f"{tmp_path}/", script)
    log = tmp_path / "log"
    log.write_text("")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "LOG": str(log), "KERNEL": kernel, **more}
    done = subprocess.run(["sh", "-c", moved], check=False, capture_output=True, text=True, env=env)
    return done.returncode, done.stdout + done.stderr, log.read_text().split("\n")[:-1]


def script(identity: str, system: str, use: str = "ai") -> str:
    return recipe([card(identity)], system, use).script


@pytest.mark.parametrize(
    ("kernel", "system", "package"),
    [
        ("6.8.0-151-generic", "ubuntu-24.04", "linux-modules-nvidia-580-server-generic"),
        ("7.0.0-43-generic", "ubuntu-24.04", "linux-modules-nvidia-580-server-generic-hwe-24.04"),
        ("5.15.0-204-generic", "ubuntu-22.04", "linux-modules-nvidia-580-server-generic"),
        ("6.8.0-149-generic", "ubuntu-22.04", "linux-modules-nvidia-580-server-generic-hwe-22.04"),
        ("6.12.107+deb13-amd64", "debian-13", "nvidia-kernel-dkms"),
    ],
)
def test_the_packages_follow_the_guests_kernel(tmp_path: Path, kernel: str, system: str, package: str) -> None:
    code, said, started = run(tmp_path, script(P40, system), kernel, system)
    assert code == 0, said
    assert any(package in line.split() for line in started)
    assert not any("$kernel" in line for line in started)


@pytest.mark.parametrize(
    ("kernel", "release", "uid", "words"),
    [
        ("6.12.1-amd64", "ubuntu-24.04", "0", "this is for Debian 13"),
        ("6.12.1-cloud-amd64", "debian-13", "0", "generic, not genericcloud"),
        ("6.12.1-rt-arm64", "debian-13", "0", "no package names are known"),
        ("6.12.1-amd64", "debian-13", "1000", "as root"),
    ],
)
def test_the_wrong_place_is_left_untouched(tmp_path: Path, kernel: str, release: str, uid: str, words: str) -> None:
    code, said, started = run(tmp_path, script(P40, "debian-13"), kernel, release, FAKE_UID=uid)
    assert code == 1 and words in said
    assert started == [] and list((tmp_path / "etc/apt/sources.list.d").iterdir()) == []


def test_it_may_run_twice_and_asks_for_one_reboot(tmp_path: Path) -> None:
    first = run(tmp_path, script(P40, "debian-13"), "6.12.1-amd64", "debian-13")
    mark = tmp_path / "run" / Path(REBOOT_MARK).name
    sources = (tmp_path / "etc/apt/sources.list.d/gpu-driver.sources").read_text()
    assert first[0] == 0 and mark.exists() and "reboot the guest once" in first[1]
    assert "Components: contrib non-free non-free-firmware" in sources and sources.count("Types: deb") == 2
    mark.unlink()  # as the reboot does
    (tmp_path / "sys/module/nvidia").mkdir()
    second = run(tmp_path, script(P40, "debian-13"), "6.12.1-amd64", "debian-13")
    assert second[0] == 0 and not mark.exists() and "the driver is loaded" in second[1]
    assert (tmp_path / "etc/apt/sources.list.d/gpu-driver.sources").read_text() == sources
    assert second[2] == first[2]


def test_two_makers_need_both_drivers_loaded(tmp_path: Path) -> None:
    text = recipe([card(RTX3080), card(ARC)], "ubuntu-24.04").script
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    assert "reboot" in run(tmp_path, text, "6.8.0-1-generic", "ubuntu-24.04")[1]
    (tmp_path / "sys/module/xe").mkdir()
    assert "is loaded" in run(tmp_path, text, "6.8.0-1-generic", "ubuntu-24.04")[1]
