"""Break the words of a table's cell into lines."""

from __future__ import annotations

import re

INDENT = "  "  # before each line but the first
MARKS = "_=,/"  # none that stands in a number


def fold(text: str, width: int) -> list[str]:
    """Break a cell into lines: between words; inside a word that is longer than a line, after one of its marks.

    Args:
        text: The words, such as "mlp on digits lr=0.01".
        width: The length of a line, with its indent.
    """
    room = max(width - len(INDENT), 1)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if len(longer) <= (width if len(lines) == 1 else room):
            lines[-1] = longer
            continue
        pieces = _split(word, room)
        if lines == [""]:
            lines = pieces
        else:
            lines += pieces
    return [lines[0], *(INDENT + line for line in lines[1:])]


def _split(word: str, room: int) -> list[str]:
    """Split a word that is longer than the room after its marks, and anywhere where it has none."""
    pieces = [""]
    for part in re.findall(f"[^{MARKS}]*[{MARKS}]|[^{MARKS}]+", word):
        if len(pieces[-1] + part) <= room:
            pieces[-1] += part
        else:
            pieces += [part[i : i + room] for i in range(0, len(part), room)]
    return [piece for piece in pieces if piece]
