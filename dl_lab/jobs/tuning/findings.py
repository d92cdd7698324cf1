"""What a tuning found: a row for each setting that was tried, and the settings to use from now on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dl_lab.configs.explain import say
from dl_lab.jobs.tuning.candidates import Setting
from dl_lab.jobs.tuning.rounds import CONTROL, LEAST_ROUNDS, Rounds

LAST_BITS = 1e-4  # a relative difference of losses and metrics: rounding, after a few updates


@dataclass
class Row:
    """One setting, measured.

    Attributes:
        part: "training", "evaluation" or "sweep": the ratio is to the first row of the same part.
        name: The setting as the user would type it.
        settings: The same as keys and values; {} for the job as it is.
        speed: Samples a second, the median.
        ratios: To the job as it is, one a round.
        memory: Bytes at the peak.
        difference: Of the results: 0 where all bits are equal, None where it was not found out.
        verdict: What the rounds say; "" for the job as it is.
        problem: Why it was not measured.
        is_local: Whether `local.yaml` may hold it, provided that it changes no value.
    """

    part: str
    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    speed: float = 0.0
    ratios: Sequence[float] = ()
    memory: int = 0
    difference: float | None = None
    verdict: str = ""
    problem: str = ""
    is_local: bool = False

    @property
    def changes(self) -> str:
        """How results differ, in words."""
        if self.difference is None:
            return ""
        if self.difference == 0:
            return "same bits"
        kind = "last bits" if self.difference < LAST_BITS else "other"
        return f"{kind} {self.difference:.0e}"

    @property
    def is_winner(self) -> bool:
        """Whether `dl-lab` should use it from now on."""
        return self.verdict == "faster" and self.difference == 0 and self.is_local


@dataclass
class Found:
    """What a tuning found.

    Attributes:
        key: The kind of job.
        rows: Every setting that was tried.
        noise: How much the same setting differed from itself, as a share, by part.
        n_rounds: Rounds by part.
        winner: The settings to use from now on.
    """

    key: str
    rows: list[Row] = field(default_factory=list)
    noise: dict[str, float] = field(default_factory=dict)
    n_rounds: dict[str, int] = field(default_factory=dict)
    winner: dict[str, Setting] = field(default_factory=dict)

    @property
    def is_clear(self) -> bool:
        """Whether the training was measured well enough to say what is faster."""
        n_unclear, _ = self.unclear
        return self.n_rounds.get("training", 0) >= LEAST_ROUNDS and not n_unclear

    @property
    def unclear(self) -> tuple[int, int]:
        """How many settings of the training have no clear verdict, and how many were measured."""
        verdicts = [row.verdict for row in self.rows if row.part == "training" and row.verdict]
        return sum(verdict in ("too noisy", "few rounds") for verdict in verdicts), len(verdicts)


def note(row: Row, error: Exception) -> None:
    """Record why a setting was not measured."""
    row.problem = say(error)


def fill(found: Found, rows: Mapping[str, Row], rounds: Rounds, keep: Sequence[str] | None = None) -> None:
    """Put what the rounds measured into the rows, and the rows into what was found."""
    for name, row in rows.items():
        if rounds.speeds.get(name):
            row.speed = rounds.speed(name)
            row.ratios = rounds.ratios(name)
            if name != rounds.base:
                row.verdict = rounds.verdict(name)
        if keep is None or name in keep:
            found.rows.append(row)
    part = next(iter(rows.values())).part
    if keep is None:
        found.n_rounds[part] = rounds.n_rounds
        found.noise[part] = rounds.noise() if rounds.speeds.get(CONTROL) else 0.0
