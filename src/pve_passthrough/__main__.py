"""`python -m pve_passthrough` and the installed command."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Start-up makes many objects that all stay; looking through them for garbage is a tenth of a glance.
    gc.set_threshold(100_000)
    # A terminal without UTF-8 (LANG=de_DE) gets question marks, not a crash in the middle of a run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    from .face.cli import run

    code = run()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    # Nothing is left to be done, and taking the interpreter apart would be another tenth.
    os._exit(code)


if __name__ == "__main__":
    main()
