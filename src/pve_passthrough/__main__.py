"""`python -m pve_passthrough` and the installed command."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Start-up makes many objects that all stay; looking through them for garbage is a tenth of a glance.
    gc.set_threshold(100_000)
    from .face.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
