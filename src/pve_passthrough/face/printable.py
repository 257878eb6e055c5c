"""Text that a terminal may be given.

1. Names of devices, guests and files, what programs and guests said, captures and saved plans: nobody vouches for what
   stands in them. Every such text passes here before a person sees it; nothing else in the program changes it.
2. What is not printable is shown as its escape (`\\x1b`, `\\u202e`, `\\n`), so that nothing is hidden: control
   characters, characters that turn the direction of writing, invisible ones, bytes that are no UTF-8.
3. JSON needs none of this: it is written in ASCII, with escapes of its own.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """`text` with everything that is not printable as an escape, but for the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escape(one) for one in text)


def _escape(one: str) -> str:
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(one)
    if named is not None:
        return named
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
