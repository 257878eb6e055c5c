"""What is printed for people who are not root@pam suffices, and less does not: held against recorded requests."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Facts, MapEntry, Pve, ResourceMapping
from pve_passthrough.model.vm import Vm
from pve_passthrough.planning.grants import Recipe, grant
from tests.shared import SHARED

RECORDED = SHARED / "pve" / "pve9-api.jsonl"
SCHEMA = SHARED / "pve" / "schema-9.json"
needs_recordings = pytest.mark.skipif(not RECORDED.is_file(), reason=f"recorded requests are not at {RECORDED}")


def known(name: str = "rec-ok", kind: str = "pci") -> Facts:
    mapping = ResourceMapping(kind, name, (MapEntry("pve", "0000:01:00", {"id": "10de:2684"}),))
    return Facts("test", pve=Pve(True, node="pve"), mappings=(mapping,), guests=(Vm(700, "pve", {"name": "rec"}),))


def recipe(**more: Any) -> Recipe:
    return grant(known(), "rec-ok", **{"user": "lim@pve", "vmid": 700, **more})


def rows(*auths: str) -> list[dict[str, Any]]:
    found = map(json.loads, RECORDED.read_text().splitlines())
    return [row for row in found if row.get("auth") in auths]


def demanded(row: dict[str, Any]) -> tuple[str, set[str]] | None:
    """The path and the rights of which one was missing, of a recorded refusal."""
    match = re.search(r"Permission check failed \((\S+), ([A-Za-z.|]+)\)", row["reason"])
    return (match.group(1), set(match.group(2).split("|"))) if match else None


def promised(row: dict[str, Any]) -> bool:
    """Requests that the recipe promises: naming the mapping, seeing the guest, starting and stopping it."""
    path, body = row["path"], row["body"] or {}
    config = row["method"] == "PUT" and path.endswith("/qemu/700/config")
    named = config and [*body.values()] == ["mapping=rec-ok,pcie=1"]
    return named or path.endswith(("/qemu/700/status/current", "/qemu/700/status/start", "/qemu/700/status/stop"))


@needs_recordings
def test_what_nobody_may_without_rights_needs_exactly_these() -> None:
    """Each promised request was refused to a token without rights, and for want of a right that the recipe gives."""
    refused = [row for row in rows("tokp") if promised(row) and row["status"] == 403]
    assert len(refused) >= 3
    given = {(right.path, right.name) for right in recipe().rights}
    for row in refused:
        wanted = demanded(row)
        assert wanted is not None
        assert any((wanted[0], name) in given for name in wanted[1]), row["id"]


@needs_recordings
def test_with_these_rights_the_same_requests_were_accepted() -> None:
    """The limited user had these rights and more; what it was refused is promised by nobody."""
    asked = (row for row in rows("lim") if row["path"] == "/access/permissions")
    told = next(row for row in asked if "/vms/700" in str(row["response"]))
    had = set(told["response"]["data"]["/vms/700"])
    assert {right.name for right in recipe().rights if right.path == "/vms/700"} <= had
    accepted = [row for row in rows("lim", "limt") if promised(row)]
    assert accepted and all(row["status"] == 200 for row in accepted)


@needs_recordings
def test_another_mapping_stays_closed() -> None:
    others = [row for row in rows("lim", "limt") if (row["body"] or {}).get("hostpci1") == "mapping=rec-no,pcie=1"]
    paths = {right.path for right in recipe().rights}
    assert others
    for row in others:
        assert demanded(row) == ("/mapping/pci/rec-no", {"Mapping.Use"})
    assert "/mapping/pci/rec-no" not in paths and "/mapping" not in paths and "/" not in paths


@needs_recordings
def test_each_right_is_demanded_by_something() -> None:
    """Take one away, and the schema or a recorded refusal names it for a promised request."""
    schema = json.dumps(json.loads(SCHEMA.read_text()))
    refusals = [wanted for row in rows("tokp", "lim", "limt") if (wanted := demanded(row))]
    for right in recipe().rights:
        kind = right.path.rsplit("/", 1)[0]
        refused = any(right.name in names and path.startswith(kind) for path, names in refusals)
        assert refused or right.name in schema, right
        if right.name == "VM.PowerMgmt":
            assert '["perm", "/vms/{vmid}", ["VM.PowerMgmt"]]' in schema


def test_a_token_and_its_user_both_get_them() -> None:
    made = recipe(user="", token="lim@pve!ci")
    assert "pveum user token add lim@pve ci --privsep 1" in made.commands
    assert "pveum acl modify /mapping/pci/rec-ok --tokens 'lim@pve!ci' --roles PassthroughMapping" in made.commands
    assert "pveum acl modify /vms/700 --users lim@pve --roles PassthroughGuest" in made.commands
    root = recipe(user="", token="root@pam!ci")
    assert not any("--users" in command for command in root.commands)


def test_a_usb_mapping_has_a_path_of_its_own() -> None:
    made = grant(known("stick", "usb"), "stick", user="lim@pve")
    assert [right.path for right in made.rights] == ["/mapping/usb/stick"]
    assert any("--vm" in note for note in made.notes)


@pytest.mark.parametrize(
    ("ref", "more"),
    [
        ("grant.who", {"user": "lim"}),
        ("grant.who", {"user": "lim@pve; rm -rf /"}),
        ("grant.who", {"user": ""}),
        ("grant.who", {"token": "lim@pve!ci"}),
        ("grant.who", {"user": "", "token": "lim@pve"}),
        ("grant.root", {"user": "root@pam"}),
        ("guest.missing", {"vmid": 999}),
    ],
)
def test_bad_names_are_refused(ref: str, more: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        recipe(**more)
    assert caught.value.problem.ref == ref
