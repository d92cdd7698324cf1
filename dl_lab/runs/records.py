"""Records of runs, finished or running: their settings, their metrics and their states.

This module reads run folders only and imports no torch. `runs`, `compare` and the statistics over seeds start from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dl_lab import keys
from dl_lab.runs import yaml_text
from dl_lab.runs.files import as_mapping, error_line, number_or_none, only_numbers, parse_time, read_json, read_records
from dl_lab.runs.find import find_run, find_runs, is_run, short_name, state_of
from dl_lab.runs.settings import name_parts, settings
from dl_lab.types import Metrics, UserError

SMALLER_IS_BETTER = (
    "loss",
    "error",
    "mse",
    "mae",
    "rmse",
    "mape",
    "perplexity",
    "nll",
    "kl",
    "wer",
    "cer",
    "seconds",
)
SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        folder: The run's folder.
        state: The run's state, as `state_of` tells it.
        config: The settings by dotted path, each once; the chosen groups ("model": "mlp") are among them.
        metrics: The final metrics; those of the newest epoch where the run is not finished.
        dataset: The name of the data set.
        label: "full", "part" or "generated"; "" where the run has no data set, or has not recorded it yet.
        started: When the run started.
        seconds: The time from the start to the end, or to the last heartbeat.
        epoch: The number of finished epochs.
        epochs: The number of epochs of the whole run.
        error: The error in one line; "" where there is none.
        reference: The published figures of the experiment.
        asked: The settings that the command line gave.
        test_looks: How often the run has judged the test split.
        parameters: The number of the model's parameters, where the run counted them.
        trainable: The number of those that are trained.
    """

    folder: Path
    state: str
    config: Mapping[str, Any]
    metrics: Metrics
    dataset: str = ""
    label: str = ""
    started: datetime | None = None
    seconds: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    error: str = ""
    reference: Mapping[str, Any] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    test_looks: int = 0
    parameters: int | None = None
    trainable: int | None = None

    @property
    def id(self) -> str:
        """The short name of the folder: what `find_run` takes."""
        return short_name(self.folder)

    @property
    def monitored(self) -> str:
        """The metric that the trainer watches; where it watches none, the first of validation, else of any split."""
        monitor = str(self.config.get("trainer.monitor", ""))
        if monitor in self.metrics:
            return monitor
        measured = in_order(self.metrics)
        of_val = [name for name in measured if name.startswith("val/")]
        return next(iter([*of_val, *measured]), "")

    @property
    def name(self) -> str:
        """The experiment; where none was chosen, the model; else the procedure."""
        for key in ("experiment", "model", "procedure"):
            if key in self.config:
                return str(self.config[key])
        return ""

    @property
    def data(self) -> str:
        """The name of the data set, with a mark where it is not the whole official one."""
        return f"{self.dataset} ({self.label})" if self.label in ("part", "generated") else self.dataset


def collect(outputs: Path, names: Sequence[str] = ()) -> list[Record]:
    """Read the runs under a folder, oldest first.

    Args:
        outputs: The folder of the runs.
        names: Only these runs: an id, a folder, a sweep's folder, or "last". None given: all runs.

    Raises:
        UserError: A name fits no run.
    """
    folders: list[Path] = []
    for name in names:
        folders += _find_named(name, outputs)
    if not names:
        folders = find_runs(outputs)
    records = [read(folder) for folder in dict.fromkeys(folders)]
    return sorted(records, key=lambda record: (record.started or datetime.min.replace(tzinfo=UTC), str(record.folder)))


def _find_named(name: str, outputs: Path) -> list[Path]:
    folder = Path(name)
    if folder.is_dir() and not (folder / "status.json").exists():
        # A sweep holds links to jobs that it has taken from another sweep.
        links = [path for path in sorted(folder.iterdir()) if path.is_symlink() and is_run(path)]
        inside = [*find_runs(folder), *links]
        if not inside:
            raise UserError(f"There is no run in {folder}.")
        return inside
    return [find_run(name, outputs)]


def read(folder: Path) -> Record:
    """Read the record of a run folder, as far as it is written."""
    status = read_json(folder / "status.json") or {}
    summary = read_json(folder / "summary.json") or {}
    environment = read_json(folder / "env.json") or {}
    config = _config(folder)
    state = state_of(folder)
    choices = as_mapping(environment.get("choices"))
    if isinstance(summary.get("metrics"), Mapping):
        metrics = only_numbers(summary["metrics"])
        epoch = number_or_none(summary.get("epochs"))
    else:
        metrics, epoch = _newest(folder)
    dataset = as_mapping(summary.get("dataset")) or as_mapping(status.get("dataset"))
    asked = frozenset(keys.of_word(word) for word in overrides(folder))
    values = {path: value for path, value in settings(config).items() if path not in keys.choices()}
    values = name_parts(values, config, asked)
    generated = as_mapping(config.get("dataset")).get("source") == "generated"
    return Record(
        folder=folder,
        state=state,
        config={**{key: choices[key] for key in keys.choices() if key in choices}, **values},
        metrics=metrics,
        dataset=dataset.get("name") or choices.get("dataset", ""),
        label=dataset.get("label") or ("generated" if generated else ""),
        started=parse_time(environment.get("time")) or parse_time(status.get("started")),
        seconds=_seconds(status),
        epoch=epoch,
        epochs=number_or_none(as_mapping(config.get("trainer")).get("max_epochs")) if epoch is not None else None,
        error=error_line(status),
        reference=as_mapping(config.get("reference")),
        asked=asked,
        test_looks=number_or_none(summary.get("test_looks")) or 0,
        parameters=number_or_none(summary.get("parameters")),
        trainable=number_or_none(summary.get("trainable")),
    )


def overrides(folder: Path) -> list[str]:
    """Read what the command line changed, from Hydra's own list in the run folder: ["optimizer.lr=0.1"]."""
    try:
        text = (folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [str(word) for word in yaml_text.read_list(text)]


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        return yaml_text.read_mapping((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def _newest(folder: Path) -> tuple[Metrics, int | None]:
    """Return the metrics and the number of the newest epoch."""
    try:
        records = read_records(folder / "metrics.jsonl")
    except ValueError:  # the file is damaged; a sweep reports this when it plans its jobs
        records = []
    if not records:
        return {}, None
    newest = dict(records[-1])
    epoch = newest.pop("epoch", None)
    newest.pop("step", None)
    return only_numbers({name: value for name, value in newest.items() if "/" in name}), number_or_none(epoch)


def _seconds(status: Mapping[str, object]) -> float | None:
    last = "heartbeat" if status.get("state") in ("queued", "running") else "ended"
    started = parse_time(status.get("started"))
    ended = parse_time(status.get(last))
    return (ended - started).total_seconds() if started and ended else None


# -- what differs, and in which order ----------------------------------------------------------------------------


def differing(records: Sequence[Record]) -> list[str]:
    """List the settings that are not the same in all records.

    Chosen groups come first, then the settings that a command line gave, then those that all records have, then those
    that only some have.
    """
    paths = dict.fromkeys(path for record in records for path in record.config)
    found = [path for path in paths if len({repr(record.config.get(path)) for record in records}) > 1]
    asked = {path for record in records for path in record.asked}
    groups = keys.choices()

    def rank(path: str) -> tuple[int | bool, ...]:
        somewhere_missing = any(path not in record.config for record in records)
        choice = groups.index(path) if path in groups else len(groups)
        return choice, path not in asked, somewhere_missing, path == "seed"

    return sorted(found, key=rank)


def telling(records: Sequence[Record]) -> list[str]:
    """List those of `differing` that are chosen groups or that a command line gave."""
    asked = {path for record in records for path in record.asked}
    return [path for path in differing(records) if path in keys.choices() or path in asked]


def varies(records: Sequence[Record], metric: str) -> bool:
    """Whether a metric differs between records. Of a single record it always does."""
    return len(records) == 1 or len({record.metrics.get(metric) for record in records}) > 1


def metric_names(records: Iterable[Record]) -> list[str]:
    """List the metrics that any of the records has, in the order of `in_order`."""
    return in_order(dict.fromkeys(name for record in records for name in record.metrics))


def in_order(names: Iterable[str]) -> list[str]:
    """Sort metrics: test, then validation, then training; within each, scores before losses."""
    return sorted(names, key=lambda name: (_split_rank(name), smaller_is_better(name)))


def _split_rank(name: str) -> int:
    split = name.partition("/")[0]
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def metric_ranks(names: Sequence[str]) -> dict[str, int]:
    """Rank metrics by how much they matter, 0 the most: the first of the test split, then each split's next ones."""
    seen: dict[int, int] = {}
    ranks = {}
    for name in names:
        split = _split_rank(name)
        seen[split] = seen.get(split, -1) + 1
        ranks[name] = split + seen[split]
    return ranks


def smaller_is_better(metric: str) -> bool:
    """Whether a metric is a loss or an error, by its name."""
    words = metric.rpartition("/")[2].replace("-", "_").split("_")
    return any(word in SMALLER_IS_BETTER for word in words)


def duration(seconds: float) -> str:
    """Write a duration: 42s, 1m23s, 2h05."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def sort_by(records: Sequence[Record], metric: str) -> list[Record]:
    """Sort records by a metric, the best first. Runs that have not measured it come last.

    Raises:
        UserError: No record has this metric.
    """
    known = metric_names(records)
    if metric not in known:
        raise UserError(f"No run here has measured {metric!r}; there are {', '.join(known) or 'no metrics yet'}.")
    sign = 1 if smaller_is_better(metric) else -1

    def key(record: Record) -> tuple[bool, float]:
        value = record.metrics.get(metric)
        return value is None, sign * value if value is not None else 0.0

    return sorted(records, key=key)
