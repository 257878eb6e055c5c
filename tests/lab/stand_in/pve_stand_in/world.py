"""The machine that runs us, as the simulation's `World`: every attribute is the kernel's own.

1. A write into sysfs goes to the kernel, and its errno comes back as `SysfsError`. Nothing is made up or put right.
2. /etc/pve is written durably, as pmxcfs does (an SQLite database with a synced log); other files are not synced.
3. What is true only until the next start (which guest was started with what, the tasks) lies in /run.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import Any

from pve_passthrough.host.local import Local, replace_file
from pve_passthrough.host.simulated.world import SysfsError, World

STATE = "/run/qemu-server/stand-in.json"


class RealWorld(World):
    """`World` over /. Only what the Proxmox programs call is made real; power-on and its like do not exist here."""

    def __init__(self) -> None:
        super().__init__("/")
        self.tree = Local("/")

    def put(self, path: str, text: str | None, mode: int | None = None) -> None:
        if path.startswith("/sys/"):
            return  # what the simulation writes there by itself, a kernel does by itself
        if not path.startswith("/etc/pve/"):
            super().put(path, text, mode)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        replace_file(path, None if text is None else text.encode("utf-8", "surrogateescape"), mode)

    def put_link(self, path: str, target: str | None) -> None:
        if not path.startswith("/sys/"):
            super().put_link(path, target)

    def state(self) -> dict[str, Any]:
        return self._json(STATE)

    def save_state(self, state: dict[str, Any]) -> None:
        self.put(STATE, json.dumps(state, indent=1, sort_keys=True) + "\n")

    def sysfs(self, path: str, text: str) -> None:
        self._remember(path, text)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise SysfsError(error.errno or errno.EIO, path) from None

    def load_driver(self, driver: str, ids: tuple[str, ...] = ()) -> None:
        """`modprobe DRIVER`, whatever comes of it: the caller looks whether the driver is there."""
        subprocess.run(("modprobe", driver), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
