"""The evaluator of GRUB's files against a real shell, and grub.cfg read back."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.host.simulated import grub

NAMES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "X")
DASH = shutil.which("dash")
needs_dash = pytest.mark.skipif(DASH is None, reason="dash is not installed")

_PIECES = st.sampled_from(
    [
        *("quiet", "a=1", "$X", "${X}", '"$X b"', "'$X c'", '""', "''", "\\ ", '\\"'),
        *('"\\$X"', '"a\\b"', "#no", '"#"', "${X:-d}", "\\\n"),
    ]
)
_LINES = st.one_of(
    st.builds(lambda name, parts: f"{name}={''.join(parts)}", st.sampled_from(NAMES), st.lists(_PIECES, max_size=4)),
    st.sampled_from(["# comment", "", "  ", "export X=e", "X=1; X=2", "X=1 # trailing", ":", "X=a\tX=b"]),
)
_BREAKS = st.sampled_from(["", "", "", "", 'X="open', "X='open", "Y+=1", "Y = 1", "nosuchcommand"])


def by_shell(text: str) -> tuple[int, list[str]]:
    """What dash makes of the text under `set -e`: its status and the variables."""
    shown = "".join(f'printf "%s\\0" "${{{name}-}}"\n' for name in NAMES)
    done = subprocess.run(
        [str(DASH), "-e", "-c", f". /dev/stdin\n{shown}"],
        input=text,
        capture_output=True,
        text=True,
        env={"PATH": "/none"},
        check=False,
    )
    return done.returncode, done.stdout.split("\0")[:-1]


@needs_dash
@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=5), _BREAKS)
def test_evaluates_as_dash_does(lines: list[str], broken: str) -> None:
    text = "\n".join([*lines, broken]) + "\n"
    status, values = by_shell(text)
    try:
        found = grub.evaluate([("/etc/default/grub", text)])
    except grub.ShellError as error:
        assert (error.status, status != 0) == (status, True), text
    else:
        assert status == 0, text
        assert [found.get(name, "") for name in NAMES] == values, text


def test_what_it_cannot_know_is_empty_and_what_it_does_not_do_is_said() -> None:
    assert grub.evaluate([("f", 'A=`lsb_release -i || echo Debian`\nB="x$(date)y"\n')]) == {"A": "", "B": "xy"}
    with pytest.raises(grub.ShellError, match="not simulated"):
        grub.evaluate([("f", "if true; then X=1; fi\n")])


def test_config_is_read_back_and_the_default_is_obeyed() -> None:
    variables = {"GRUB_CMDLINE_LINUX": "linux=1", "GRUB_CMDLINE_LINUX_DEFAULT": "default=1"}
    text = grub.config(variables, ["7.0.1-1-pve", "6.8.4-2-pve"], "root=/dev/x ro", "/boot")
    assert grub.chosen(text) == (
        "7.0.1-1-pve", "/boot/vmlinuz-7.0.1-1-pve", "root=/dev/x ro linux=1 default=1", "/boot/initrd.img-7.0.1-1-pve",
    )  # fmt: skip
    assert "default=1" not in text.split("recovery")[1].splitlines()[1]
    pinned = {"GRUB_DEFAULT": "gnulinux-advanced-r>gnulinux-6.8.4-2-pve-advanced-r"}
    again = grub.chosen(grub.config(pinned, ["7.0.1-1-pve", "6.8.4-2-pve"], "", "/boot"))
    assert again is not None and again[0] == "6.8.4-2-pve"
    assert grub.chosen("garbage") is None
