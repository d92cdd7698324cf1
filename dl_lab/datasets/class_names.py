"""The names of the classes of a data set."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from dl_lab.types import UserError


def as_class_names(names: Sequence[object]) -> tuple[str, ...]:
    """Return the names of the classes as texts.

    Raises:
        UserError: They are one text, whose letters would be the names. Or two names look the same: one of them has an
            invisible character, or composes é in another way.
    """
    if isinstance(names, str):
        raise UserError(f"class_names is the text {names!r}; it must be a list of names.")
    texts = tuple(map(str, names))
    seen: dict[str, str] = {}
    for name in texts:
        composed = unicodedata.normalize("NFC", name)
        look = "".join(sign for sign in composed if unicodedata.category(sign) != "Cf")
        if seen.setdefault(look, name) != name:
            raise UserError(
                f"The classes {seen[look]!a} and {name!a} look the same, and differ in characters that cannot"
                " be seen. Write each class in one way."
            )
    return texts
