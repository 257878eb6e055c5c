"""The change to the kernel's sample: it is made where it is understood, and nowhere else."""

from __future__ import annotations

import pytest

from tests.lab import mtty
from tests.lab.programs import LabError

_SAMPLE = """
static int __init mtty_dev_init(void)
{
    ret = mdev_register_parent(&mtty_dev.parent, &mtty_dev.dev,
                               &mtty_driver, mtty_mdev_types,
                               ARRAY_SIZE(mtty_mdev_types));
    if (ret)
        goto err_device;
}

static void __exit mtty_dev_exit(void)
{
    mdev_unregister_parent(&mtty_dev.parent);
}
"""
"""The two places in the form that kernels 6.1 to 6.12 have."""


def test_pci_functions_become_the_parents_of_the_types() -> None:
    changed = mtty.with_pci_parent(_SAMPLE)
    assert "ret = pci_register_driver(&lab_driver);\n    if (ret)" in changed
    assert changed.index("static struct pci_driver lab_driver") < changed.index("static int __init mtty_dev_init")
    assert changed.count("mdev_unregister_parent") == 1  # ours, when a function goes
    assert changed.rstrip().endswith("pci_unregister_driver(&lab_driver);\n}")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("", id="empty"),
        pytest.param(_SAMPLE.replace("mdev_register_parent", "mdev_register_device"), id="registered otherwise"),
        pytest.param(_SAMPLE + _SAMPLE, id="twice"),
        pytest.param(_SAMPLE.replace("mtty_dev_init", "begin"), id="no such function"),
    ],
)
def test_a_source_that_reads_otherwise_is_refused(other: str) -> None:
    with pytest.raises(LabError, match="not the one that the lab knows"):
        mtty.with_pci_parent(other)
