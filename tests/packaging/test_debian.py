"""What the Debian files say is what the program says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pve_passthrough import __version__
from pve_passthrough.change import boot_unit

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "packaging" / "debian"


def field(name: str) -> list[str]:
    """The package names of a field of `control`."""
    text = (DEBIAN / "control").read_text(encoding="utf-8")
    match = re.search(rf"^{name}:((?:.*\n)(?: .*\n)*)", text, re.M)
    assert match is not None, name
    return [word.strip().partition(" ")[0] for word in match.group(1).split(",") if word.strip()]


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    first = (DEBIAN / "changelog").read_text(encoding="utf-8").split("\n", 1)[0]
    assert first.startswith(f"pve-passthrough ({__version__}) ")


def test_the_unit_lands_where_the_program_looks_for_it() -> None:
    """`rules` hands it to debhelper below /lib and then moves it below /usr."""
    rules = (DEBIAN / "rules").read_text(encoding="utf-8")
    assert f"$(PACKAGE){boot_unit.PACKAGED.removeprefix('/usr')}\n" in rules
    assert "mv $(PACKAGE)/lib/systemd $(PACKAGE)/usr/lib/systemd\n" in rules
    assert 'unit_text("/usr/bin/pve-passthrough")' in rules


def test_the_build_has_every_library_that_the_program_needs() -> None:
    """The program itself makes its completions at build time; at run time dh_python3 derives them from pyproject."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[<>=]", word)[0].lower() for word in wanted}
    debian = {"pyyaml": "python3-yaml", "attrs": "python3-attr", "cattrs": "python3-cattr"}
    assert {debian.get(name, f"python3-{name}") for name in names} <= set(field("Build-Depends"))
    assert "${python3:Depends}" in field("Depends")


def test_both_maintainer_scripts_look_for_standing_runs_in_the_same_way() -> None:
    shape = re.compile(r"^standing\(\) \{\n.*?^\}\n", re.M | re.S)
    found = [
        shape.search((DEBIAN / f"pve-passthrough.{name}").read_text(encoding="utf-8")) for name in ("prerm", "postrm")
    ]
    assert found[0] is not None and found[1] is not None
    assert found[0].group() == found[1].group()
