"""The one line of systemd-boot: only our words move, everything else stays byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.planning import edit_cmdline
from pve_passthrough.planning.proof import Unprovable

ROOT = "root=ZFS=rpool/ROOT/pve-1 boot=zfs"


@pytest.mark.parametrize(
    ("text", "add", "drop", "wanted"),
    [
        (f"{ROOT}\n", ["intel_iommu=on"], [], f"{ROOT} intel_iommu=on\n"),
        (ROOT, ["a", "b"], [], f"{ROOT} a b"),
        (f"{ROOT} \t\r\nsecond line\n", ["a"], [], f"{ROOT} a \t\r\nsecond line\n"),
        (f"{ROOT} a\n", ["a"], [], f"{ROOT} a\n"),
        (f"{ROOT}  x=off  y\n", [], ["x=off"], f"{ROOT}  y\n"),
        (f"x=off {ROOT}\nx=off\n", ["x=on"], ["x=off"], f"{ROOT} x=on\nx=off\n"),
        (f'{ROOT} opt="x=off y" x=off\n', [], ["x=off"], f'{ROOT} opt="x=off y"\n'),
        (f'{ROOT} opt="a x=off y" x=off\n', [], ["x=off"], None),
        (f"{ROOT} xx=off x=offf\n", [], ["x=off"], f"{ROOT} xx=off x=offf\n"),
    ],
)
def test_edits(text: str, add: list[str], drop: list[str], wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises(Unprovable):
            edit_cmdline.edit(text, add, drop)
    else:
        assert edit_cmdline.edit(text, add, drop) == wanted


@pytest.mark.parametrize(
    "text",
    ["quiet\n", "\nroot=/dev/sda1\n", "", f'{ROOT} x="open\n', f"{ROOT} -- single\n"],
    ids=["no root", "root in the second line", "empty", "open quote", "words for init"],
)
def test_refusals(text: str) -> None:
    with pytest.raises(Unprovable):
        edit_cmdline.edit(text, ["a"], [])


@pytest.mark.parametrize("token", ["a b", 'a"b', "a;reboot", "$(reboot)", "", "a\nb", "a'b"])
def test_words_that_shells_or_loaders_would_change_are_not_written(token: str) -> None:
    with pytest.raises(Unprovable):
        edit_cmdline.edit(f"{ROOT}\n", [token], [])


WORDS = st.sampled_from(["quiet", "intel_iommu=off", "intel_iommu=on", "iommu=pt", 'x="a b"', "#", "splash", "a=b=c"])


@settings(max_examples=50, deadline=None)
@given(
    before=st.lists(WORDS, max_size=6),
    gaps=st.lists(st.sampled_from([" ", "  ", "\t"]), min_size=8, max_size=8),
    tail=st.sampled_from(["", "\n", " \n", "\r\n", "\nmore\n"]),
    add=st.sets(st.sampled_from(["intel_iommu=on", "iommu=pt"])),
    drop=st.sets(st.sampled_from(["intel_iommu=off", "quiet"])),
)
def test_no_foreign_word_is_ever_lost_and_twice_is_once(
    before: list[str], gaps: list[str], tail: str, add: set[str], drop: set[str]
) -> None:
    text = "root=/dev/x" + "".join(f"{gap}{word}" for gap, word in zip(gaps, before, strict=False)) + tail
    edited = edit_cmdline.edit(text, sorted(add), sorted(drop))
    got = edit_cmdline.tokens_of(edited)
    assert [word for word in got if word not in add] == [
        word for word in edit_cmdline.tokens_of(text) if word not in add | drop
    ]
    assert add <= set(got)
    assert edit_cmdline.edit(edited, sorted(add), sorted(drop)) == edited
    assert edited.partition("\n")[1:] == text.partition("\n")[1:]
