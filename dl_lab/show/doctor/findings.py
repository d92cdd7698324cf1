"""One finding of the doctor, and the words and numbers that findings share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Finding:
    """A disease, its signs, and what may cure it.

    Attributes:
        name: The disease's name, also the anchor of its section in the docs.
        seen: What the records show: figures, layer, step.
        means: What that means, in at most two sentences.
        tries: Overrides to paste, the most promising first.
        weight: How sure and how grave it is, in [0, 1]. Findings are sorted by it.
        plot: A small plot of the evidence; "" for none.
    """

    name: str
    seen: str
    means: str
    tries: Sequence[str] = ()
    weight: float = 0.5
    plot: str = ""

    @property
    def words(self) -> str:
        """The disease's name within a sentence."""
        return self.name.replace("-", " ").replace("relus", "ReLUs")

    @property
    def title(self) -> str:
        """The disease's name as the start of a sentence."""
        return self.words[0].upper() + self.words[1:]

    def as_dict(self) -> dict[str, object]:
        """Return the finding as plain values, with the place of its section in the docs."""
        return {**asdict(self), "tries": list(self.tries), "docs": f"docs/doctor.md#{self.name}"}


def draw(values: Sequence[float], width: int = 40) -> str:
    """Draw values as a line of bars, with blanks for values that are not finite.

    Positive values that span more than two orders of magnitude are drawn on a logarithmic scale. Of more than `width`
    values, each bar is the largest of its share, so that a short rise is seen; it is a blank if one of them is not
    finite. Equal values have no drawing.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    if min(finite) > 0 and max(finite) > 100 * min(finite):
        logarithms = [math.log10(value) if value > 0 and math.isfinite(value) else math.nan for value in values]
        return draw(logarithms, width)
    low = min(finite)
    spread = max(finite) - low
    if not spread:
        return ""
    n_bars = min(len(values), width)
    ends = [i * len(values) // n_bars for i in range(n_bars + 1)]
    marks = []
    for start, end in pairwise(ends):
        share = values[start:end]
        if all(map(math.isfinite, share)):
            marks.append(BARS[min(len(BARS) - 1, int((max(share) - low) / spread * len(BARS)))])
        else:
            marks.append(" ")
    return "".join(marks)


def number(value: float) -> str:
    """Write a number with three significant digits."""
    return f"{value:.3g}"
