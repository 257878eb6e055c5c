"""Boot texts are read as their own consumers read them; GRUB's is held against a real shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pve_passthrough.model.texts import (
    Assignment,
    TextError,
    argument_values,
    final_value,
    grub_assignments,
    modprobe_lines,
    module_lines,
    parse_grub,
    parse_modprobe,
    parse_modules,
    split_argument,
    split_cmdline,
)

GRUB = "/etc/default/grub"


# -- kernel command lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("quiet splash\n", ["quiet", "splash"]),
        ('a="b c" d', ['a="b c"', "d"]),
        ('"a=b c" d', ['"a=b c"', "d"]),
        ('dyndbg="file x', ['dyndbg="file x']),
        ("  \t ", []),
        ("a 'b c'", ["a", "'b", "c'"]),
    ],
)
def test_command_lines_split_as_the_kernel_splits_them(text: str, tokens: list[str]) -> None:
    assert split_cmdline(text) == tokens


def test_names_are_compared_as_the_kernel_compares_them() -> None:
    assert split_argument('vfio-pci.ids="10de:1"') == ("vfio_pci.ids", "10de:1")
    assert split_argument('"vfio-pci.ids=10de:1 2"') == ("vfio_pci.ids", "10de:1 2")
    assert split_argument("quiet") == ("quiet", None)
    assert argument_values("iommu=pt quiet iommu=off", "iommu") == ["pt", "off"]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters=' "\t\n\r\v\f'), min_size=1), max_size=8))
def test_what_is_joined_by_spaces_splits_again(words: list[str]) -> None:
    plain = [word for word in words if word.isprintable()]
    assert split_cmdline(" ".join(plain)) == plain


# -- modprobe and module lists --------------------------------------------------------------------------------------


def test_modprobe_lines() -> None:
    text = "# a comment\n\noptions vfio-pci ids=10de:1, \\\n  10de:2 # note\n blacklist nvidia*\n"
    text += "softdep nouveau pre: vfio-pci\n"
    lines = parse_modprobe("f", text)
    assert [(line.number, line.command, line.module, line.rest) for line in lines] == [
        (3, "options", "vfio_pci", "ids=10de:1,   10de:2 # note"),
        (5, "blacklist", "nvidia*", ""),
        (6, "softdep", "nouveau", "pre: vfio-pci"),
    ]


def test_a_comment_that_ends_in_a_backslash_swallows_the_next_line() -> None:
    assert parse_modprobe("f", "# note \\\nblacklist x\nblacklist y\n")[0].module == "y"


def test_files_are_read_in_the_order_of_their_names() -> None:
    files = {"/etc/modprobe.d/b.conf": "blacklist b", "/etc/modprobe.d/a.conf": "blacklist a", "/etc/modprobe.d/x": "!"}
    assert [line.module for line in modprobe_lines(files)] == ["a", "b"]


def test_module_lists() -> None:
    assert [(one.module, one.rest) for one in parse_modules("f", "; no\n# no\nvfio-pci\nvfio a=b\n")] == [
        ("vfio_pci", ""),
        ("vfio", "a=b"),
    ]


def test_debians_link_to_etc_modules_is_read_once() -> None:
    own = "/etc/modules-load.d/own.conf"
    files = {"/etc/modules": "vfio\n", "/etc/modules-load.d/modules.conf": "vfio\n", own: "kvm"}
    assert [one.path for one in module_lines(files)] == [own, "/etc/modules"]


# -- GRUB's settings ------------------------------------------------------------------------------------------------


def one(text: str) -> Assignment:
    (found,) = parse_grub(GRUB, text)
    return found


def test_quotes_and_variables() -> None:
    text = 'A="x \'y\' \\"z\\""\nB=\'$A\'\nC="$A ${A} b"\nD=a\\ b # note\nE=#x\n'
    values = {line.name: line.value for line in parse_grub(GRUB, text)}
    assert values == {"A": "x 'y' \"z\"", "B": "$A", "C": "x 'y' \"z\" x 'y' \"z\" b", "D": "a b", "E": "#x"}


def test_a_value_that_only_running_would_tell_is_kept_and_marked() -> None:
    found = one("GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\n")
    assert found.dynamic and found.value.startswith("`lsb_release")
    assert one("X=$#").dynamic and one('X="$1"').dynamic and not one("X=$").dynamic
    assert [line.dynamic for line in parse_grub(GRUB, "A=`x`\nB=$A\nA=1\nB=$A\n")] == [True, True, False, False]
    assert one('X="$(sed \'s,a"b),,\' /etc/x)"\n').dynamic


def test_what_the_shell_does_not_keep() -> None:
    plus = one('A+=" b"')
    assert (plus.operator, plus.effective) == ("+=", False)
    stray = one("A=quiet splash\n")
    assert (stray.swallowed, stray.effective) == ("splash", False)
    assert one("export A=b\n").effective


def test_conditional_assignments_are_marked() -> None:
    text = "if [ -f x ]; then\nA=1\nfi\nB=2\ntrue && C=3\nf() {\nD=4\n}\nE=5\n"
    marks = {line.name: line.conditional for line in parse_grub(GRUB, text)}
    assert marks == {"A": True, "B": False, "C": True, "D": True, "E": False}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('A="x\n', 1),
        ('A=1\nGRUB="quiet amd_iommu=on\nB=""\n# "480 440 1"\n', 2),
        ("A=1\nB=`x\n", 2),
        ('A=1\nB="$(x\n', 2),
        ("A='x", 1),
    ],
)
def test_an_unterminated_quote_names_the_line_where_it_belongs(text: str, line: int) -> None:
    with pytest.raises(TextError) as caught:
        parse_grub(GRUB, text)
    assert (caught.value.path, caught.value.line) == (GRUB, line)
    assert isinstance(caught.value, ValueError)


def test_snippets_extend_what_the_file_says() -> None:
    files = {
        GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
        "/etc/default/grub.d/b.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT iommu=pt"\n',
        "/etc/default/grub.d/a.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT} a"\n',
        "/etc/default/grub.d/": "directory",
    }
    last = final_value(grub_assignments(files), "GRUB_CMDLINE_LINUX_DEFAULT")
    assert last is not None and (last.value, last.path) == ("quiet a iommu=pt", "/etc/default/grub.d/b.cfg")


SHELL = shutil.which("dash")
LETTERS = st.sampled_from([*"ab '\"\\\n#\t$=", "$A", "${A}", "A=", "B=", "\\\n", "+="])


@pytest.mark.skipif(SHELL is None, reason="dash, which reads /etc/default/grub on Debian, is not installed here")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LETTERS, max_size=14).map("".join))
@example('A="x\ny"')
@example("A=a B=b\nB=$A")
@example("A=a ''")
@example("A=a $A")
@example("A=a $A B=b")
@example("A=a A=$A")
@example("B+= A=a")
@example("A=a B+=b")
@example("B\\\n=\tA=a")
@example("A=a B=${A}\nA=$B")
@example("A=$\\\na")
@example("A=a\nB=$A\\\nA")
@example("B= A=a $B b")
def test_values_are_those_of_a_real_shell(tmp_path: Path, text: str) -> None:
    """The letters can name no program and no file: nothing but assignments can happen."""
    script = tmp_path / "grub"
    script.write_text(text)
    ask = '. "$1"; printf "%s\\0%s" "${A-}" "${B-}"'
    argv = [SHELL or "dash", "-c", ask, "x", str(script)]
    ran = subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/nonexistent"}, check=False)
    try:
        ours = parse_grub(GRUB, text)
    except TextError:
        assert ran.returncode == 2, ran.stderr
        return
    if ran.returncode == 2:  # the shell gave up for another reason, for instance a `$` expansion it does not know
        assert "nterminated" not in ran.stderr
        return
    values = [final_value(ours, name) for name in ("A", "B")]
    for said, found in zip(ran.stdout.split("\0"), values, strict=True):
        assert (found is not None and found.dynamic) or said == (found.value if found else "")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_grub(GRUB, text)
    except TextError as error:
        assert 1 <= error.line <= text.count("\n") + 1
        return
    assert all(1 <= line.line <= line.end <= text.count("\n") + 1 for line in found)
    parse_modprobe("f", text)
    parse_modules("f", text)
    split_cmdline(text)
