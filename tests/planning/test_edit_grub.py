"""GRUB's settings: what a real POSIX shell makes of the edited files is what was promised, or nothing is edited."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.model.own import GRUB_DROP_IN
from pve_passthrough.planning import edit_grub
from pve_passthrough.planning.proof import Unprovable

from ..shared import needs_shared, realhosts
from .worlds import GRUB, files

DASH = shutil.which("dash")
needs_dash = pytest.mark.skipif(DASH is None, reason="dash, the shell of update-grub on Debian, is not installed")

# What grub-mkconfig does with its settings: source one file, then the snippets by name. (It also stops at a command
# that fails; here no command can be found, so that no recorded file starts a program of this machine.)
SOURCING = """cd "$1"
if [ -f ./grub ]; then . ./grub; fi
for x in ./grub.d/*.cfg; do if [ -e "$x" ]; then . "$x"; fi; done
printf '%s\\037%s' "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"
"""


def by_the_shell(texts: Mapping[str, str | None], folder: Path) -> list[str] | None:
    """The words that dash gets; None when it refuses the files."""
    assert DASH is not None
    (folder / "grub.d").mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        target = folder / path.removeprefix("/etc/default/")
        if path.startswith("/etc/default/grub") and not path.endswith("/"):
            target.unlink(missing_ok=True)
            if text is not None:
                target.write_bytes(text.encode("utf-8", "surrogateescape"))
    ran = subprocess.run(
        [DASH, "-c", SOURCING, "dash", folder], env={"PATH": "/nonexistent"}, capture_output=True, check=False
    )
    if ran.returncode:
        return None
    return " ".join(ran.stdout.decode("utf-8", "surrogateescape").split("\037")).split()


def edited(texts: Mapping[str, str | None], add: Sequence[str], drop: Sequence[str] = ()) -> dict[str, str | None]:
    return {**texts, **edit_grub.edit(texts, add, drop)}


QUOTINGS = [
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet x=off splash"\n',
    "GRUB_CMDLINE_LINUX_DEFAULT='x=off quiet splash'\n",
    "GRUB_CMDLINE_LINUX_DEFAULT=x=off\nGRUB_CMDLINE_LINUX='quiet splash'\n",
    'GRUB_CMDLINE_LINUX_DEFAULT="quiet \\\n  x=off splash"\n',
    "GRUB_CMDLINE_LINUX_DEFAULT=quiet\\ x=on_not_off\\ splash\n",
    'GRUB_CMDLINE_LINUX="x=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash $GRUB_CMDLINE_LINUX"\n',
    'export GRUB_CMDLINE_LINUX_DEFAULT="quiet"" splash"; A=1 # x=off\n',
    'GRUB_DISTRIBUTOR=`lsb_release -i 2> /dev/null || echo X`\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash x=off"\n',
    'GRUB_CMDLINE_LINUX_DEFAULT="old x=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\n',
]


@needs_dash
@pytest.mark.parametrize("text", QUOTINGS)
def test_quotings_survive(text: str, tmp_path: Path) -> None:
    before = by_the_shell(files(text), tmp_path)
    assert before is not None
    after = edited(files(text), ["x=on"], ["x=off"])
    assert by_the_shell(after, tmp_path) == [word for word in before if word != "x=off"] + ["x=on"]
    assert after["/etc/default/grub"].count('"') == text.count('"')  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet\nGRUB_TIMEOUT=5\n', "/etc/default/grub:1"),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX_DEFAULT+=" a"\n', "/etc/default/grub:2"),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet $(cat /proc/cmdline)"\n', "/etc/default/grub:1"),
        ('A=`date`\nB="$A"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet $B"\n', "/etc/default/grub:3"),
        ('if [ -e /x ]; then GRUB_CMDLINE_LINUX_DEFAULT="a"; fi\n', "/etc/default/grub:1"),
        ('GRUB_A=1\n[ -e /x ] && GRUB_CMDLINE_LINUX_DEFAULT="a"\n', "/etc/default/grub:2"),
        (". /etc/default/more\n", "/etc/default/grub:1"),
        ("unset GRUB_CMDLINE_LINUX_DEFAULT\n", "/etc/default/grub:1"),
        ("GRUB_CMDLINE_LINUX_DEFAULT=quiet splash\n", "/etc/default/grub:1"),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\r\n', "/etc/default/grub"),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet $HOME"\n', "/etc/default/grub:1"),
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet -- x"\n', "GRUB_CMDLINE_LINUX_DEFAULT"),
        ('B=${GRUB_CMDLINE_LINUX_DEFAULT:=x}\nGRUB_CMDLINE_LINUX_DEFAULT="a"\n', "/etc/default/grub:1"),
    ],
)
def test_what_cannot_be_foretold_is_refused_with_the_place(text: str, where: str) -> None:
    with pytest.raises(Unprovable) as caught:
        edit_grub.edit(files(text), ["x=on"], [])
    assert caught.value.where == where


def test_other_files_are_left_alone_for_an_addition() -> None:
    assert set(edit_grub.edit(files(), ["x=on"], [])) == {GRUB_DROP_IN}


def test_a_word_of_the_installers_snippet_counts() -> None:
    snippet = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX root=ZFS=rpool/ROOT/pve-1 boot=zfs"\n'
    texts = files(**{"/etc/default/grub.d/zfs.cfg": snippet})
    assert edit_grub.tokens_of(texts) == ["root=ZFS=rpool/ROOT/pve-1", "boot=zfs", "quiet"]
    assert edit_grub.edit(texts, ["boot=zfs"], []) == {}


def test_a_snippet_that_comes_after_ours_and_forgets_it_is_noticed() -> None:
    texts = files(**{"/etc/default/grub.d/zzz.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="only"\n'})
    with pytest.raises(Unprovable):
        edit_grub.edit(texts, ["x=on"], [])


def test_our_own_file_grows_shrinks_and_goes() -> None:
    first = edited(files(), ["x=on"])
    second = edited(first, ["y=1"])
    assert edit_grub.own_tokens(second[GRUB_DROP_IN]) == ["x=on", "y=1"]
    third = edited(second, [], ["x=on"])
    assert edit_grub.own_tokens(third[GRUB_DROP_IN]) == ["y=1"]
    assert edited(third, [], ["y=1"]) == files()


def test_our_own_file_in_foreign_hands_is_refused() -> None:
    with pytest.raises(Unprovable):
        edit_grub.edit(files(**{GRUB_DROP_IN: 'GRUB_CMDLINE_LINUX_DEFAULT="mine"\n'}), ["x=on"], [])


WORDS = st.sampled_from(["quiet", "x=off", "y=off", "splash", "root=/dev/x", "a=b=c", "xx=off"])
TEMPLATES = st.sampled_from(
    [
        'GRUB_CMDLINE_LINUX_DEFAULT="{}"\n', "GRUB_CMDLINE_LINUX_DEFAULT='{}'\n", 'GRUB_CMDLINE_LINUX="{}"\n',
        'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {}"\n', '# GRUB_CMDLINE_LINUX="{}"\n',
        'GRUB_CMDLINE_LINUX_DEFAULT="{} \\\n tail"\n', "GRUB_CMDLINE_LINUX_DEFAULT=one\\ {}\n", 'GRUB_TITLE="{}"\n',
    ]
)  # fmt: skip
SETTINGS = st.lists(
    st.builds(lambda form, words, gap: form.format(gap.join(words)), TEMPLATES, st.lists(WORDS, max_size=4),
              st.sampled_from([" ", "  ", "\t"])), max_size=4,
).map("".join)  # fmt: skip


@needs_dash
@settings(max_examples=60, deadline=None)
@given(main=SETTINGS, snippet=SETTINGS)
def test_a_real_shell_agrees_with_every_edit(main: str, snippet: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("grub")
    texts = files(main, **{"/etc/default/grub.d/50-x.cfg": snippet})
    try:
        changed = edited(texts, ["x=on", "quiet"], ["x=off"])
    except Unprovable:
        return
    before, after = by_the_shell(texts, folder), by_the_shell(changed, folder)
    assert before is not None
    assert after is not None
    ours = {"x=on", "quiet"}
    assert [word for word in after if word not in ours] == [word for word in before if word not in ours | {"x=off"}]
    assert ours <= set(after)
    assert edited(changed, ["x=on", "quiet"], ["x=off"]) == changed


@needs_dash
@needs_shared
def test_recorded_settings_are_proven_by_the_shell_or_refused(tmp_path: Path) -> None:
    recorded = sorted(realhosts().glob("share/boot-*/*grub*"))
    assert len(recorded) > 20
    proven = 0
    for number, path in enumerate(recorded):
        texts = files(path.read_bytes().decode("utf-8", "surrogateescape"))
        folder = tmp_path / str(number)
        try:
            words = edit_grub.tokens_of(texts)
            drop = [word for word in words if "iommu" in word and word != "intel_iommu=on"]
            changed = edited(texts, ["intel_iommu=on"], drop)
        except Unprovable as refused:
            assert ":" in str(refused)
            continue
        before, after = by_the_shell(texts, folder), by_the_shell(changed, folder)
        assert before is not None, path
        assert after is not None, path
        assert "intel_iommu=on" in after, path
        kept = [word for word in before if word not in (*drop, "intel_iommu=on")]
        assert [word for word in after if word != "intel_iommu=on"] == kept, path
        proven += 1
    assert proven > 20


def test_the_usual_file_is_one_of_plain_assignments() -> None:
    assert edit_grub.tokens_of(files(GRUB)) == ["quiet"]
