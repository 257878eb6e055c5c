"""The Debian package on a Debian tree, installed, used, removed and purged as a user does it.

1. Needs root and a Debian tree; no virtual machine. The tree itself is only read: everything happens in an overlay over
   it, or in a copy where no overlay can be mounted.
2. Every program runs inside the tree, as an argument vector, without this machine's environment, bounded in time.
3. A check that cannot be made (no archive, no program) is a skip that says why; it never passes.
4. systemd does not run in the tree. Its folder in /run is there all the same, because maintainer scripts look at that
   before they start or stop anything; policy-rc.d writes down who tries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pve_passthrough import __version__
from pve_passthrough.change import boot_unit, journal

from .. import programs
from ..lab import Lab
from ..programs import LabError

NAME = "pve-passthrough"
LIBRARIES = ("python3-click", "python3-rich", "python3-attr", "python3-cattr", "python3-yaml")
"""Taken out of the tree before the package comes, so that its own Depends has to bring them."""
TOOLS = ("lintian", "man-db", "zsh", "fish")
"""What the last checks need; they come when the tree has been compared already."""
CHANGES_BY_ITSELF = (
    "var/lib/dpkg/status", "var/lib/dpkg/status-old", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock", "var/lib/dpkg/triggers/Unincorp", "var/lib/dpkg/diversions",
    "var/lib/dpkg/diversions-old", "var/lib/apt/extended_states", "var/lib/apt/lists", "var/lib/apt/daily_lock",
    "var/cache/apt", "var/log/apt", "var/log/dpkg.log", "var/cache/ldconfig/aux-cache", "etc/ld.so.cache",
    "var/cache/debconf",
)  # fmt: skip
"""What dpkg, apt and the package system's own triggers write on every call, whichever package it is."""
_ENVIRONMENT = {
    "HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
    "TERM": "dumb",
}  # fmt: skip
_WANTS = f"etc/systemd/system/multi-user.target.wants/{boot_unit.NAME}"
_PACKAGES = "usr/lib/python3/dist-packages/pve_passthrough"


class Broken(Exception):
    """A check does not hold; the text says what was seen."""


class Skipped(Exception):
    """A check could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One check. `ok`: True, False, or None for a skip. `seconds`: wall time."""

    name: str
    ok: bool | None
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Said:
    rc: int
    text: str


@dataclass(slots=True)
class Tree:
    """The scratch tree, and what is known about it so far."""

    folder: Path
    deb: Path
    archive: bool = False
    before: dict[str, str] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()

    INSIDE: ClassVar[str] = "/root/package"

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def ask(self, *argv: str, timeout: float = 120) -> Said:
        """Run a program inside. Raises Broken when it does not end in time."""
        words = (
            "chroot",
            str(self.folder),
            "env",
            "-i",
            *(f"{key}={text}" for key, text in _ENVIRONMENT.items()),
            *argv,
        )
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Broken(f"{' '.join(argv)} did not end within {timeout:.0f} s") from None
        finally:
            if process.poll() is None:
                # A session of its own: whatever the program has started goes with it, and nothing else.
                os.killpg(process.pid, 9)
                process.wait()
        return Said(process.returncode, out.decode("utf-8", "replace"))

    def must(self, *argv: str, timeout: float = 120, rc: int = 0) -> str:
        """What it said. Raises Broken when it ends with another code than `rc`."""
        said = self.ask(*argv, timeout=timeout)
        if said.rc != rc:
            raise Broken(f"{' '.join(argv)} ended with {said.rc}, not {rc}: {said.text.strip()[-800:]}")
        return said.text

    def apt(self, *words: str) -> str:
        return self.must(
            "apt-get", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=30", *words, timeout=420
        )

    def install(self) -> str:
        return self.apt("install", f"{self.INSIDE}/{self.deb.name}")


def run(root: Path, suite: str, deb: Path, scratch: Path) -> list[Row]:
    """Every check, in order, on a throw-away copy of `root` made below `scratch`. Raises LabError when there is none.

    After a check that fails the following ones are still made: each says by itself what it sees.
    """
    if os.geteuid() != 0:
        raise LabError("the package is tried in a chroot: run it as root")
    rows: list[Row] = []
    with _copy(root, scratch) as folder:
        tree = Tree(folder, deb)
        for check in CHECKS:
            start = time.monotonic()
            try:
                ok, detail = True, check(tree)
            except Skipped as reason:
                ok, detail = None, str(reason)
            except (Broken, OSError) as reason:
                ok, detail = False, str(reason)
            rows.append(Row(f"{suite}: {(check.__doc__ or '').rstrip('.')}", ok, detail, time.monotonic() - start))
    return rows


# -- the tree ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _copy(root: Path, scratch: Path) -> Iterator[Path]:
    """A tree that may be changed, with /proc in it; gone afterwards."""
    scratch.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix=f"package-{root.name}-", dir=scratch.resolve()))
    folder = base / "root"
    with contextlib.ExitStack() as stack:
        stack.callback(_clear, base)
        for name in ("root", "upper", "work"):
            (base / name).mkdir()
        try:
            layers = f"lowerdir={root},upperdir={base / 'upper'},workdir={base / 'work'}"
            programs.run(("mount", "-t", "overlay", "overlay", "-o", layers, folder), 30)
            stack.callback(_unmount, folder)
        except LabError:
            programs.run(("cp", "-a", "--reflink=auto", f"{root}/.", folder), 300)
        programs.run(("mount", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", folder / "proc"), 30)
        stack.callback(_unmount, folder / "proc")
        yield folder


def _unmount(folder: Path) -> None:
    """Lazily when something still holds it. What stays mounted is seen by `_clear`."""
    for flag in ((), ("--lazy",)):
        with contextlib.suppress(LabError):
            programs.run(("umount", *flag, folder), 30)
            return


def _clear(base: Path) -> None:
    """Nothing is ever deleted through a mount that stayed. Raises LabError then."""
    stayed = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f" {base}/" in line]
    if stayed:
        raise LabError(f"could not be unmounted, and stays: {' '.join(stayed)}")
    shutil.rmtree(base)


def _listing(tree: Tree) -> dict[str, str]:
    """path → what it is, for all of /etc, /usr and /var but `CHANGES_BY_ITSELF`. Modes, owners and bytes count."""
    found: dict[str, str] = {}
    for top in ("etc", "usr", "var"):
        for where, folders, files in os.walk(tree.folder / top):
            inside = os.path.relpath(where, tree.folder)
            folders[:] = [name for name in folders if f"{inside}/{name}" not in CHANGES_BY_ITSELF]
            for name in (*folders, *files):
                path = f"{inside}/{name}"
                if path not in CHANGES_BY_ITSELF:
                    found[path] = _what(os.path.join(where, name))
    return found


def _what(path: str) -> str:
    status = os.lstat(path)
    text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{text} -> {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return f"{text} {status.st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return text


def _installed(tree: Tree) -> frozenset[str]:
    lines = tree.must("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n").splitlines()
    return frozenset(line.split()[-1] for line in lines if line.startswith("ii"))


def _rc_packages(tree: Tree) -> list[str]:
    lines = tree.must("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n").splitlines()
    return [line.split()[-1] for line in lines if line.startswith("rc")]


def _copy_state(tree: Tree) -> None:
    """The records of the simulated host's runs become those of the tree: real ones, written by the program itself."""
    shutil.rmtree(tree.path(journal.STATE), ignore_errors=True)
    shutil.copytree(tree.path(f"{tree.INSIDE}/host{journal.STATE}"), tree.path(journal.STATE))


def _wants(condition: bool, what: str) -> None:
    if not condition:
        raise Broken(what)


# -- the checks, in order --------------------------------------------------------------------------


def _prepare(tree: Tree) -> str:
    """the archive answers, and the libraries are taken out."""
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        if os.path.exists(f"/{name}"):
            tree.path(name).parent.mkdir(parents=True, exist_ok=True)
            tree.path(name).unlink(missing_ok=True)
            shutil.copyfile(f"/{name}", tree.path(name))
    tree.path(tree.INSIDE).mkdir()
    shutil.copyfile(tree.deb, tree.path(f"{tree.INSIDE}/{tree.deb.name}"))
    policy = tree.path("usr/sbin/policy-rc.d")
    policy.write_text(f'#!/bin/sh\necho "$*" >>{tree.INSIDE}/policy-calls\nexit 101\n')
    policy.chmod(0o755)
    update = tree.ask(
        "apt-get", "-q", "-o", "Acquire::Retries=1", "-o", "APT::Update::Error-Mode=any", "update", timeout=240
    )
    tree.archive = update.rc == 0
    if tree.archive:
        tree.apt("autoremove", "--purge")
        tree.apt("purge", *LIBRARIES)
        tree.apt("autoremove", "--purge")
    # Taken now: whatever apt thinks superfluous has gone, and what comes from here on has to go again.
    tree.path("run/systemd/system").mkdir(parents=True, exist_ok=True)
    tree.before, tree.packages = _listing(tree), _installed(tree)
    if not tree.archive:
        raise Skipped(f"the archive does not answer, so Depends is not tried: {update.text.strip()[-200:]}")
    return f"{len(tree.packages)} packages, {len(tree.before)} files"


def _install(tree: Tree) -> str:
    """apt-get install ./pve-passthrough.deb brings what it needs."""
    tree.install()
    added = sorted(_installed(tree) - tree.packages - {NAME})
    audit = tree.must("dpkg", "--audit") + tree.must("apt-get", "check")
    _wants("pve" not in audit, f"dpkg is not content: {audit}")
    return f"with {', '.join(added) or 'nothing else'}"


def _files(tree: Tree) -> str:
    """every file of the package is there and whole."""
    _wants(
        tree.must("dpkg", "--verify", NAME).strip() in ("", _missing_docs(tree)), "dpkg --verify finds changed files"
    )
    names = tree.must("dpkg", "-L", NAME).split()
    wanted = (
        "/usr/bin/pve-passthrough", boot_unit.PACKAGED, "/usr/share/man/man8/pve-passthrough.8.gz",
        "/usr/share/bash-completion/completions/pve-passthrough", "/usr/share/zsh/vendor-completions/_pve-passthrough",
        "/usr/share/fish/vendor_completions.d/pve-passthrough.fish", f"/{_PACKAGES}/__main__.py",
        f"/usr/share/doc/{NAME}/copyright",
    )  # fmt: skip
    absent = [name for name in wanted if name not in names]
    _wants(not absent, f"not in the package: {' '.join(absent)}")
    lost = [name for name in names if not os.path.lexists(tree.path(name)) and not _excluded(name)]
    _wants(not lost, f"not there: {' '.join(lost)}")
    _wants(any(tree.path(_PACKAGES).rglob("*.pyc")), "nothing was compiled at installation")
    return f"{len(names)} names"


def _excluded(name: str) -> bool:
    """The lab's trees are made without documentation (a path-exclude of dpkg)."""
    return name.startswith("/usr/share/doc/")


def _missing_docs(tree: Tree) -> str:
    """What `dpkg --verify` says of documentation that the tree leaves out: `missing` with the path."""
    lines = tree.ask("dpkg", "--verify", NAME).text.splitlines()
    return "\n".join(lines).strip() if all("missing" in line and "/usr/share/doc/" in line for line in lines) else ""


def _unit(tree: Tree) -> str:
    """the boot unit is the program's own text, enabled, and nobody tried to start it."""
    text = tree.path(boot_unit.PACKAGED).read_text()
    _wants(text == boot_unit.unit_text("/usr/bin/pve-passthrough"), f"another text in {boot_unit.PACKAGED}")
    link = tree.path(_WANTS)
    _wants(link.is_symlink(), f"there is no link {_WANTS}")
    real = tree.must("readlink", "-f", f"/{_WANTS}").strip()
    _wants(real == boot_unit.PACKAGED, f"the link leads to {real}")
    _wants(not tree.path(boot_unit.PATH).exists(), f"{boot_unit.PATH} is there as well")
    _no_calls(tree)
    verified = tree.ask("systemd-analyze", "verify", "--man=no", boot_unit.PACKAGED)
    about = [line for line in verified.text.splitlines() if boot_unit.NAME in line]
    _wants(not about and verified.rc == 0, f"systemd-analyze verify ended with {verified.rc}: {about or verified.text}")
    return os.readlink(link)


def _no_calls(tree: Tree) -> None:
    calls = tree.path(f"{tree.INSIDE}/policy-calls")
    mine = [line for line in calls.read_text().splitlines() if NAME in line] if calls.exists() else []
    _wants(not mine, f"somebody tried to start or stop the unit: {mine}")


def _runs(tree: Tree) -> str:
    """the program runs with Debian's own libraries."""
    version = tree.must(NAME, "--version").strip()
    _wants(version.endswith(__version__), f"--version says {version!r}")
    said = tree.ask(NAME, "check", "--output-format", "json")
    try:
        verdict = json.loads(said.text)["verdict"]
    except (ValueError, KeyError, TypeError):
        raise Broken(f"check ended with {said.rc}: {said.text[-400:]}") from None
    _wants(said.rc in (1, 3, 4), f"check of a tree without devices ended with {said.rc}")
    return f"{version}, check of the tree: {verdict}"


def _simulated(tree: Tree) -> str:
    """a simulated run goes up with one reboot and stays in the records."""
    host = f"{tree.INSIDE}/host"
    tree.must(NAME, "sim", "create", host, "--from", "intel-6.5-grub")
    tree.must(NAME, "--host", f"sim:{host}", "up", "gpu", "--vm", "100", "--yes", "--patience", "0")
    yaml = tree.must(NAME, "--host", f"sim:{host}", "status", "--output-format", "yaml")
    _wants("kept" in yaml.lower(), f"status after up: {yaml[-300:]}")
    return "kept"


def _completion_bash(tree: Tree) -> str:
    """bash completes a verb and an option."""
    script = (
        ". /usr/share/bash-completion/completions/pve-passthrough && COMP_WORDS=(pve-passthrough $1) && "
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && { _pve_passthrough_completion pve-passthrough; "
        'echo "${COMPREPLY[@]}"; }'
    )
    for words, wanted in (("ch", "check"), ("devices --gr", "--groups")):
        said = tree.must("bash", "-c", script, "bash", words)
        _wants(said.split() == [wanted], f"{words!r} becomes {said!r}")
    return "ch → check"


def _standing(tree: Tree) -> str:
    """remove and purge warn of a run that stands, and keep its records."""
    _copy_state(tree)
    name = _run_name(tree)
    records = sorted(path for path in tree.path(journal.STATE).rglob("*"))
    for verb in ("remove", "purge"):
        said = tree.apt(verb, NAME)
        _wants(name in said and "pve-passthrough undo" in said, f"{verb} does not name run {name}: {said[-500:]}")
        _wants(sorted(path for path in tree.path(journal.STATE).rglob("*")) == records, f"{verb} took records away")
    tree.install()
    status = tree.must(NAME, "status")
    _wants("KEPT" in status and name in status, f"after installing it again, status says {status!r}")
    return f"run {name}"


def _run_name(tree: Tree) -> str:
    return next(path.name for path in tree.path(journal.RUNS).iterdir())


def _undone(tree: Tree) -> str:
    """the simulated run is taken back."""
    host = f"{tree.INSIDE}/host"
    tree.ask(NAME, "sim", "exec", host, "--", "qm", "stop", "100")
    tree.must(NAME, "--host", f"sim:{host}", "undo", "--yes", rc=5)
    tree.must(NAME, "sim", "exec", host, "--", "systemctl", "reboot")
    status = tree.must(NAME, "--host", f"sim:{host}", "status")
    _wants("UNDONE" in status, f"status after undo: {status!r}")
    _copy_state(tree)
    return "undone"


def _upgrade(tree: Tree) -> str:
    """installing it over itself starts nothing and keeps a unit that was disabled disabled."""
    tree.must("systemctl", "--root=/", "disable", boot_unit.NAME)
    tree.apt("install", "--reinstall", f"{tree.INSIDE}/{tree.deb.name}")
    _wants(not tree.path(_WANTS).exists(), "the unit was enabled again")
    tree.must("systemctl", "--root=/", "enable", boot_unit.NAME)
    _wants(tree.path(_WANTS).is_symlink(), "the unit cannot be enabled again")
    _no_calls(tree)
    return ""


def _remove(tree: Tree) -> str:
    """remove takes the program away, keeps the records and says nothing."""
    said = tree.apt("remove", NAME)
    _wants("stand" not in said, f"it warns of a run that was undone: {said[-400:]}")
    _wants(not tree.path("usr/bin/pve-passthrough").exists(), "the program is still there")
    _wants(tree.path(journal.RUNS).is_dir(), "the records are gone")
    return ""


def _purge(tree: Tree) -> str:
    """after purge the tree is, file by file, what it was before."""
    tree.apt("purge", NAME)
    if tree.archive:
        tree.apt("autoremove", "--purge")
    more = sorted(_installed(tree) ^ tree.packages) + _rc_packages(tree)
    after = _listing(tree)
    changed = sorted(path for path in {*tree.before, *after} if tree.before.get(path) != after.get(path))
    _wants(not more, f"other packages than before: {more}")
    lines = [f"{path}: {tree.before.get(path, 'absent')} / {after.get(path, 'absent')}" for path in changed[:8]]
    _wants(not changed, f"{len(changed)} differ: " + "; ".join(lines))
    _no_calls(tree)
    return f"{len(after)} files"


def _lintian(tree: Tree) -> str:
    """lintian of this Debian finds no error and no warning."""
    if not tree.archive:
        raise Skipped("the archive does not answer, so lintian cannot be installed")
    tree.apt("install", *TOOLS)
    said = tree.ask(
        "lintian", "--allow-root", "--display-info", "--pedantic", f"{tree.INSIDE}/{tree.deb.name}", timeout=240
    )
    tags = [line for line in said.text.splitlines() if line[:3] in ("E: ", "W: ")]
    _wants(not tags and said.rc == 0, f"ended with {said.rc}: {said.text.strip()[-800:]}")
    rest = [line for line in said.text.splitlines() if line[:3] in ("I: ", "P: ")]
    return "; ".join(rest)


def _man(tree: Tree) -> str:
    """man shows the page, without a complaint of the formatter."""
    if not tree.path("usr/bin/man").exists():
        raise Skipped("man-db is not installed")
    tree.install()
    page = tree.must("env", "MANWIDTH=80", "MAN_NO_LOCALE_WARNING=1", "man", "--warnings", NAME)
    _wants("EXIT STATUS" in page and "--accept HAZARD" in page and "warning" not in page, f"man says: {page[:300]}")
    return f"{len(page.splitlines())} lines"


def _completion_others(tree: Tree) -> str:
    """zsh and fish load their completions and complete a verb."""
    if not tree.path("usr/bin/zsh").exists() or not tree.path("usr/bin/fish").exists():
        raise Skipped("zsh and fish are not installed")
    tree.must("zsh", "-n", "/usr/share/zsh/vendor-completions/_pve-passthrough")
    loaded = tree.must("zsh", "-fc", "autoload -Uz compinit && compinit -u -D && echo $_comps[pve-passthrough]")
    _wants(loaded.strip() == "_pve-passthrough", f"zsh completes it with {loaded!r}")
    said = tree.must("fish", "-c", "complete -C 'pve-passthrough ch'")
    _wants(said.split()[:1] == ["check"], f"fish completes 'ch' with {said!r}")
    return ""


CHECKS: tuple[Callable[[Tree], str], ...] = (
    _prepare, _install, _files, _unit, _runs, _simulated, _completion_bash, _standing, _undone, _upgrade, _remove,
    _purge, _lintian, _man, _completion_others,
)  # fmt: skip


def scenario(lab: Lab) -> None:
    """Both Debians, each check a row of the lab's report."""
    for suite in ("bookworm", "trixie"):
        tree = lab.workshop.plain_tree(suite)
        for row in run(tree, suite, lab.workshop.deb, lab.workshop.folder / f"package-{suite}"):
            lab.report.row(row.name, row.ok, row.seconds, row.detail)
