"""The lab: real Debian kernels on a virtual machine with an emulated IOMMU, driven from outside.

`python -m tests.lab` runs it (see `__main__`); the quick suite only collects the small `test_*.py` here.
"""
