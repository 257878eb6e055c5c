"""The kernel's own sample of a mediated device (samples/vfio-mdev/mtty.c) as a module for a lab host's kernel.

1. The source is Debian's package of the kernel's source, compiled against Debian's headers of the very kernel that runs
   in the lab host. Debian builds no samples.
2. One thing is changed: the sample hangs its types on a virtual device of its own, Proxmox looks for them below a PCI
   function. A driver for QEMU's teaching device (`edu`) is added, whose functions become the parent.
3. A built module is kept as long as the kernel is the same. What is missing (an archive, a compiler) is Unavailable.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from .programs import LabError, Say, Unavailable, in_root, run
from .root import cache_folder, kernel_of

PARENT = "1234:11e8"
"""QEMU's edu device (docs/specs/edu.rst)."""
MEDIATED = "4348:3253"
"""What an instance says that it is (mtty.c, mtty_create_config_space)."""
_SOURCE = "samples/vfio-mdev/mtty.c"
_OWN_PARENT = re.compile(r"mdev_register_parent\(&mtty_dev\.parent, &mtty_dev\.dev,[^;]*\);")
_DRIVER = """
static int lab_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
    return mdev_register_parent(&mtty_dev.parent, &pdev->dev, &mtty_driver, mtty_mdev_types,
                    ARRAY_SIZE(mtty_mdev_types));
}

static void lab_remove(struct pci_dev *pdev)
{
    mdev_unregister_parent(&mtty_dev.parent);
}

static const struct pci_device_id lab_ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, { } };
static struct pci_driver lab_driver = {
    .name = "mtty", .id_table = lab_ids, .probe = lab_probe, .remove = lab_remove,
};

"""
_INIT = "static int __init mtty_dev_init"


def module(root: Path, say: Say) -> bytes:
    """The module for the kernel of the Debian tree `root`. Raises LabError."""
    release = kernel_of(root)
    kept = cache_folder() / f"mtty-{release}.ko"
    if not kept.exists():
        for old in cache_folder().glob("mtty-*.ko"):
            old.unlink()
        say(f"mtty: building the kernel's sample for {release} (half a minute, 150 MB from the archive)")
        with tempfile.TemporaryDirectory(dir=root / "tmp") as folder:
            kept.write_bytes(_built(root, Path(folder), release))
    return kept.read_bytes()


def with_pci_parent(source: str) -> str:
    """The sample with a PCI driver whose functions carry the types. Raises LabError when it reads otherwise."""
    found, count = _OWN_PARENT.subn("pci_register_driver(&lab_driver);", source)
    end = "mdev_unregister_parent(&mtty_dev.parent);"
    if count != 1 or source.count(end) != 1 or source.count(_INIT) != 1:
        raise LabError(f"{_SOURCE} is not the one that the lab knows how to change")
    return found.replace(end, "pci_unregister_driver(&lab_driver);").replace(_INIT, _DRIVER + _INIT)


def _built(root: Path, folder: Path, release: str) -> bytes:
    compiler = next((name for name in ("gcc-12", "gcc") if shutil.which(name)), None)
    if compiler is None or shutil.which("make") is None:
        raise Unavailable("missing Debian packages: gcc make (tools/lab installs them)")
    _download(root, folder, release)
    tree, work = folder / "tree", folder / "work"
    for package in folder.glob("linux-[hk]*.deb"):
        run(("dpkg", "-x", package, tree), 120)
    headers = tree / f"usr/src/linux-headers-{release}"
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{tree}/usr/src/"))
    work.mkdir()
    (work / "mtty.c").write_text(with_pci_parent(_sample(folder)))
    (work / "Makefile").write_text("obj-m := mtty.o\n")
    run(("make", "-s", "-C", headers, f"M={work}", f"CC={compiler}", "modules"), 300)
    return (work / "mtty.ko").read_bytes()


def _download(root: Path, folder: Path, release: str) -> None:
    """Headers, what builds modules, and the source, by the tree's own apt: the same archive, the same version."""
    plain, version = release.rpartition("-")[0], ".".join(release.split(".")[:2])
    wanted = (f"linux-headers-{release}", f"linux-headers-{plain}-common", f"linux-kbuild-{version}",
              f"linux-source-{version}")  # fmt: skip
    inside = f"/{folder.relative_to(root)}"
    try:
        in_root(root, ("apt-get", "-qq", "update"), 120)
        in_root(root, ("env", "-C", inside, "apt-get", "-qq", "download", *wanted), 600)
    except LabError as error:
        raise Unavailable(f"the archive does not give {wanted[0]} and its companions: {error}") from None


def _sample(folder: Path) -> str:
    """mtty.c out of the source package, which holds an archive of the whole kernel."""
    package = next(folder.glob("linux-source-*.deb"))
    run(("dpkg", "-x", package, folder / "source"), 120)
    archive = next((folder / "source/usr/src").glob("linux-source-*.tar.xz"))
    return run(("tar", "-xJf", archive, "-O", f"{archive.name.removesuffix('.tar.xz')}/{_SOURCE}"), 180)
