"""Parts of messages about configs: the nearest of the known names, and lists of names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """Suggest the nearest of the known names, to append to a message.

    Returns:
        " Did you mean lr?" for the name that is nearest to the wrong one, or to its last part; "" where none is near.
    """
    near = _find_nearest(wrong, [name for name in known if name != wrong])
    return f" Did you mean {near}?" if near else ""


def _find_nearest(wrong: str, known: Sequence[str]) -> str | None:
    for name in known:
        if name.casefold() == wrong.casefold():
            return name
    if close := difflib.get_close_matches(wrong, known, n=1, cutoff=0.6):
        return close[0]
    initials = "".join(word[:1] for word in wrong.split("_"))  # learning_rate -> lr
    if initials in known:
        return initials
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    close = difflib.get_close_matches(wrong.rpartition(".")[2], list(by_last), n=1, cutoff=0.7)
    return by_last[close[0]] if close else None


def to_list(title: str, names: Sequence[str]) -> str:
    """Return the line `  title: a, b, c`. The command wraps it to the terminal's width."""
    return f"  {title}: {', '.join(names)}"
