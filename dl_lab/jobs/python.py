"""Train, sweep and list runs from Python: what `dl_lab.train`, `dl_lab.sweep` and `dl_lab.list_runs` do."""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dl_lab import configs, project
from dl_lab.configs import sources
from dl_lab.configs.targets import ALLOW_VARIABLE
from dl_lab.jobs import loading, one
from dl_lab.runs import records
from dl_lab.show import tables
from dl_lab.types import Metrics, UserError, count

if TYPE_CHECKING:
    import pandas

Row: TypeAlias = dict[str, object]
SHOWN = 6  # metrics in the `repr` of a run


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: The run's folder.
        metrics: The final metrics, by their full names.
    """

    folder: Path
    metrics: Metrics

    def load(self) -> loading.Loaded:
        """Load the run's model with its trained weights, its data set and its config."""
        return loading.load(self.folder)

    def __repr__(self) -> str:
        names = [name for name in records.in_order(self.metrics) if not name.startswith("train/")][:SHOWN]
        lines = [f"  {name} {tables.cell(self.metrics[name])}" for name in names]
        return "\n".join([f"Run {self.folder}", *lines])


@dataclass(frozen=True)
class Swept:
    """A finished sweep.

    Attributes:
        folder: The sweep's folder.
        rows: One row for each finished job: what varied, and the metrics.
    """

    folder: Path
    rows: list[Row] = field(repr=False)

    def table(self) -> pandas.DataFrame | list[Row]:
        """Return the rows as a pandas DataFrame; without pandas as they are."""
        return _as_table(self.rows)

    def __repr__(self) -> str:
        return f"Sweep {self.folder}: {count(len(self.rows), 'finished job')}"


_IMPORTED: dict[str, str] = {}  # the user's own code that this process has imported: file -> digest


def train(overrides: Sequence[str], config_dir: str | None, allow: Sequence[str]) -> Finished:
    """Run one job in this process. The user's modules that were edited since the last call are imported again.

    Args:
        overrides: The words of the command line.
        config_dir: A folder of the user's own configs; None takes the project's.
        allow: Packages of the user's own that the config may name.

    Raises:
        UserError: The config is wrong, or the run fails.
    """
    with _allow(allow):
        composed = configs.Composer(config_dir).compose(_as_words(overrides))
        configs.refuse_unread(composed.unread)
        procedure = composed.config["procedure"]
        sources.forget_changed(_IMPORTED, procedure)
        _IMPORTED.update(sources.own_code(procedure))
        metrics = one.execute(composed, ["dl-lab", *overrides], quiet=True)
    return Finished(Path(composed.run_dir), metrics)


def sweep(overrides: Sequence[str], config_dir: str | None, allow: Sequence[str]) -> Swept:
    """Run a sweep in a process of its own, and print its output while it runs.

    Args:
        overrides: The words of the command line.
        config_dir: A folder of the user's own configs; None takes the project's.
        allow: Packages of the user's own that the config may name.

    Raises:
        UserError: The sweep failed. The message holds the last lines of its output.
    """
    flags = ["--config-dir", config_dir] if config_dir else []
    command = [sys.executable, "-m", "dl_lab", "-m", *flags, *_as_words(overrides)]
    printed: list[str] = []
    with (
        _allow(allow),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        for line in process.stdout or ():
            print(line, end="", flush=True)
            printed.append(line)
    if process.returncode != 0:
        raise UserError("".join(printed[-5:]).strip())
    announced = next(line for line in printed if "Sweep folder " in line)
    folder = Path(announced.removeprefix("Sweep folder ").partition("  (")[0])
    rows: list[Row] = []
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.append({key: _parse(text) for key, text in row.items()})
    return Swept(folder, rows)


def list_runs(outputs: str | Path | None) -> pandas.DataFrame | list[Row]:
    """List the runs below a folder.

    Args:
        outputs: The folder; None takes the project's outputs.

    Returns:
        One row for each run: its id, state, folder, settings and metrics. A pandas DataFrame; without pandas a list.
    """
    rows: list[Row] = []
    for record in records.collect(project.outputs() if outputs is None else Path(outputs), []):
        about = {"run": record.id, "state": record.state, "folder": str(record.folder)}
        rows.append({**about, **record.config, **record.metrics})
    return _as_table(rows)


def _as_words(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as a list.

    Raises:
        UserError: They are no texts like key=value: a single text, a mapping, or a list of something else.
    """
    example: list[str] = ["key=value"]
    if isinstance(overrides, str):
        example = [overrides]
    elif isinstance(overrides, Mapping):
        example = [f"{key}={value}" for key, value in overrides.items()]
    elif all(isinstance(word, str) for word in overrides):
        return list(overrides)
    raise UserError(f"Give the overrides as a list of texts: {example}.")


@contextlib.contextmanager
def _allow(packages: Sequence[str]) -> Iterator[None]:
    """Allow the user's own packages during a call."""
    before = os.environ.get(ALLOW_VARIABLE)
    if packages:
        allowed = [before, *packages] if before else packages
        os.environ[ALLOW_VARIABLE] = ",".join(allowed)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ALLOW_VARIABLE, None)
        else:
            os.environ[ALLOW_VARIABLE] = before


def _parse(text: str) -> float | int | str:
    """Return the number that the text writes, else the text."""
    try:
        return float(text) if any(sign in text for sign in ".en") else int(text)
    except ValueError:
        return text


def _as_table(rows: list[Row]) -> pandas.DataFrame | list[Row]:
    try:
        import pandas
    except ImportError:  # pandas is optional
        return list(rows)
    return pandas.DataFrame(rows)
