"""Our modprobe.d and modules-load.d files: deterministic, joined with what they had, judged by modprobe itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.model.own import MODPROBE
from pve_passthrough.planning import edit_modprobe
from pve_passthrough.planning.proof import MARK, Unprovable

from .worlds import files


def test_claims_of_two_runs_are_one_list() -> None:
    first = edit_modprobe.edit(None, ids=["10de:2684"], before=["nouveau"])
    second = edit_modprobe.edit(first, ids=["1002:73bf"], before=["nouveau", "amdgpu"])
    assert edit_modprobe.own_ids(second) == ("10de:2684", "1002:73bf")
    assert second is not None
    assert second.count("softdep nouveau") == 1
    assert second.count("options vfio-pci") == 1


def test_lines_of_others_in_our_file_are_kept() -> None:
    text = f"{MARK}\noptions vfio-pci ids=10de:2684\n# mine\noptions vfio-pci disable_idle_d3=1\n"
    edited = edit_modprobe.edit(text, ids=["10de:22ba"])
    assert edited is not None
    assert {"# mine", "options vfio-pci disable_idle_d3=1"} <= set(edited.splitlines())
    assert edit_modprobe.own_ids(edited) == ("10de:2684", "10de:22ba")


def test_ids_that_share_a_line_with_other_options_are_not_rebuilt() -> None:
    with pytest.raises(Unprovable):
        edit_modprobe.edit("options vfio-pci ids=10de:2684 disable_vga=1\n", ids=["10de:22ba"])


@pytest.mark.parametrize("identity", ["10de,2684", "10de:2684 x", "10DE:2684", "????:0001", ""])
def test_only_vendor_colon_device_is_written(identity: str) -> None:
    with pytest.raises(Unprovable):
        edit_modprobe.edit(None, ids=[identity])


def test_foreign_lists_are_found_with_their_line() -> None:
    texts = files(**{"/etc/modprobe.d/vfio.conf": "# x\noptions vfio-pci disable_vga=1 ids=10DE:2684,10de:22ba\n",
                     MODPROBE: "options vfio-pci ids=1002:73bf\n"})  # fmt: skip
    assert edit_modprobe.foreign_ids(texts) == {"/etc/modprobe.d/vfio.conf:2": ("10de:2684", "10de:22ba")}


@pytest.mark.parametrize("text", [None, f"{MARK}\n", "snd\n", "snd", f"{MARK}\nvfio-pci\n", "vfio_pci\n"])
def test_the_module_list_names_vfio_once_and_keeps_the_rest(text: str | None) -> None:
    edited = edit_modprobe.modules_load(text)
    names = [line.strip().replace("_", "-") for line in edited.splitlines() if not line.startswith("#")]
    assert names.count("vfio-pci") == 1
    assert ("snd" in names) == ("snd" in (text or ""))
    assert edit_modprobe.modules_load(edited) == edited


IDS = st.lists(st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True), max_size=4)
MODULES = st.lists(st.sampled_from(["nouveau", "amdgpu", "snd_hda_intel", "xhci_pci"]), max_size=3)


@settings(max_examples=50, deadline=None)
@given(IDS, MODULES, IDS, MODULES)
def test_twice_is_once_and_nothing_is_lost(ids: list[str], before: list[str], more: list[str], also: list[str]) -> None:
    first = edit_modprobe.edit(None, ids=ids, before=before)
    second = edit_modprobe.edit(first, ids=more, before=also)
    assert set(edit_modprobe.own_ids(second)) == {*ids, *more}
    assert edit_modprobe.edit(second, ids=more, before=also) == second
    assert {line for line in (first or "").splitlines() if "softdep" in line} <= set((second or "").splitlines())


@pytest.mark.skipif(shutil.which("modprobe") is None, reason="modprobe is not installed")
def test_modprobe_reads_what_was_meant(tmp_path: Path) -> None:
    text = edit_modprobe.edit(
        None, ids=["10de:2684", "10de:22ba"], before=["nouveau"], options=[("kvm", "ignore_msrs=1")]
    )
    (tmp_path / "own.conf").write_text(text or "")
    ran = subprocess.run(["modprobe", "-c", "-C", tmp_path], capture_output=True, text=True, check=True)
    said = set(ran.stdout.splitlines())
    assert {
        "options vfio_pci ids=10de:2684,10de:22ba",
        "softdep nouveau pre: vfio-pci",
        "options kvm ignore_msrs=1",
    } <= said
