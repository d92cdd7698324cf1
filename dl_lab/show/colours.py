"""Colours of the terminal: none in a pipe or a file, and none where NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
import re
import sys
from typing import IO

STYLES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "bold": "1", "dim": "2"}


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    """Return a text in a style for a terminal; unchanged for another stream, or where NO_COLOR is set.

    Args:
        text: The text.
        style: A key of `STYLES`.
        stream: Where the text will go. None: standard output.
    """
    target = sys.stdout if stream is None else stream
    if not text or not target.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{STYLES[style]}m{text}\033[0m"


def emphasise(screen: str) -> str:
    """Return a help screen with its headings in bold, and with the names and commands of its lists in colour.

    A heading is the line above a list. Each name of a list stands after two spaces, its explanation again after two.
    """
    named = re.sub(r"^  (\S+(?: \S+)*)(?=  |$)", lambda found: f"  {paint(found[1], 'cyan')}", screen, flags=re.M)
    listed = rf"\n  {re.escape(paint('-', 'cyan').partition('-')[0])}\S"
    headed = re.sub(rf"^(\S.*)(?={listed})", lambda found: paint(found[1], "bold"), named, flags=re.M)
    return re.sub(r"\Ausage:", lambda found: paint(found[0], "bold"), headed)
