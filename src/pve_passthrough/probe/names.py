"""What a PCI function is called, from the host's own pci.ids.

1. The list (1.4 MB) is searched, never parsed as a whole: a check asks for some dozens of its 36 000 lines.
2. The host's list first, then the rows in knowledge; when both are silent the name is the bare numbers.
3. The list is a file like any other: what it holds beyond printable text never reaches a terminal.
"""

from __future__ import annotations

import re

from ..knowledge.pci_names import PRODUCTS, VENDORS
from .asking import Asking

LISTS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")
"""Where Debian's pci.ids package and other distributions' hwdata put the list."""

_NEXT_VENDOR = re.compile(rb"\n[0-9A-Za-z]")
_ENDINGS = (" Corporation", " Corp.", ", Inc.", " Inc.", ", Inc", " Inc", " Co., Ltd.", " Co. Ltd.", " Ltd.")


class Names:
    """Names out of the text of a pci.ids."""

    def __init__(self, text: bytes = b"") -> None:
        self._text = b"\n" + text
        self._blocks: dict[int, bytes] = {}
        self._known: dict[tuple[int, int], tuple[str, str]] = {}

    @classmethod
    def load(cls, ask: Asking, fallback: bytes | None = None) -> Names:
        """The host's own list, else `fallback`; without either there is a gap, and names are mostly numbers."""
        for path in LISTS:
            text = ask.data(path, "pci.names")
            if text:
                return cls(text)
        if fallback is None:
            ask.gap("pci.names", "the host has no pci.ids, so most devices are shown by their numbers")
        return cls(fallback or b"")

    def lookup(self, vendor: int | None, product: int | None) -> tuple[str, str]:
        """(`NVIDIA`, `NVIDIA AD102 [GeForce RTX 4090]`); numbers stand for what no list knows."""
        if vendor is None or product is None:
            return ("" if vendor is None else self.vendor(vendor)), ""
        key = (vendor, product)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._look_up(vendor, product)
        return known

    def vendor(self, vendor: int) -> str:
        """Short name of a vendor, empty when no list knows it."""
        line = self._block(vendor).partition(b"\n")[0]
        return shortened(_words(line)) or VENDORS.get(vendor, "")

    def _look_up(self, vendor: int, product: int) -> tuple[str, str]:
        maker = self.vendor(vendor)
        thing = self._product(vendor, product) or PRODUCTS.get((vendor, product), "")
        return maker, f"{maker} {thing or f'{vendor:04x}:{product:04x}'}".strip()

    def _product(self, vendor: int, product: int) -> str:
        block = self._block(vendor)
        key = b"\n\t%04x  " % product
        start = block.find(key)
        if start < 0:
            return ""
        end = block.find(b"\n", start + 1)
        return _words(block[start + len(key) : None if end < 0 else end])

    def _block(self, vendor: int) -> bytes:
        """From the vendor's name to the line before the next vendor; empty when the list does not know it."""
        block = self._blocks.get(vendor)
        if block is None:
            key = b"\n%04x  " % vendor
            start = self._text.find(key)
            if start < 0:
                block = b""
            else:
                start += len(key)
                following = _NEXT_VENDOR.search(self._text, start)
                block = self._text[start : following.start() if following else None]
            self._blocks[vendor] = block
        return block


def shortened(vendor: str) -> str:
    """`NVIDIA Corporation` → `NVIDIA`; `Advanced Micro Devices, Inc. [AMD/ATI]` → `AMD/ATI`, its own abbreviation."""
    if vendor.endswith("]") and "[" in vendor:
        return vendor[vendor.rindex("[") + 1 : -1] or vendor
    for ending in _ENDINGS:
        if vendor.endswith(ending) and len(vendor) > len(ending):
            return vendor.removesuffix(ending)
    return vendor


def _words(line: bytes) -> str:
    """A line as printable text."""
    text = line.decode("utf-8", "replace").strip()
    return text if text.isprintable() else "".join(letter for letter in text if letter.isprintable())
