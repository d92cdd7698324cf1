"""One finding of the doctor, and the words and numbers that findings share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
    def title(self) -> str:
        """The disease's name as the start of a sentence."""
        return self.name.replace("-", " ").capitalize()

    def as_dict(self) -> dict[str, object]:
        """Return the finding as plain values, with the place of its section in the docs."""
        return {**asdict(self), "tries": list(self.tries), "docs": f"docs/doctor.md#{self.name}"}


def draw(values: Sequence[float], width: int = 40) -> str:
    """Draw values as a line of bars, with blanks for values that are not finite.

    Positive values that span more than two orders of magnitude are drawn on a logarithmic scale.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    if min(finite) > 0 and max(finite) > 100 * min(finite):
        logarithms = [math.log10(value) if value > 0 and math.isfinite(value) else math.nan for value in values]
        return draw(logarithms, width)
    low = min(finite)
    spread = max(finite) - low
    step = max(1.0, len(values) / width)
    chosen = [values[int(i * step)] for i in range(int(len(values) / step))]
    marks = []
    for value in chosen:
        if not math.isfinite(value):
            marks.append(" ")
            continue
        height = (value - low) / spread if spread else 0.0
        marks.append(BARS[min(len(BARS) - 1, int(height * len(BARS)))])
    return "".join(marks)


def number(value: float) -> str:
    """Write a number with three significant digits."""
    return f"{value:.3g}"
