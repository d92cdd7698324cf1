"""Finished and running runs as values: what was asked (config), what came out (metrics), in what state.

Reads run folders only; imports no torch. `runs`, `compare` and the statistics over seeds all start here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dl_lab.run import find_run, find_runs, read_json, read_records, state_of
from dl_lab.types import Metrics, UserError

# Settings that say where or how fast a run happened, or what it is compared with: never a difference between results.
NOT_RESULTS = (
    "paths",
    "reference",
    "id",
    "threads",
    "lanes",
    "on_failure",
    "job_process",
    "logger",
    "trainer.device",
    "dataset.files",
    "dataset.data_dir",
)
CHOICES = ("experiment", "dataset", "model", "task", "optimizer", "scheduler", "learner", "procedure")
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

    config: its settings by dotted path, each once, chosen groups ("model": "mlp") among them. metrics: the final
    ones, of an unfinished run those of its newest epoch. label: "full", "part" or "generated" ("" where the run
    has no data set, or has not said yet). epoch: finished ones, of `epochs`; seconds: from start to end,
    or to the last heartbeat. asked: the settings given on the command line. test_looks: how often the test split
    was judged.
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

    @property
    def id(self) -> str:
        """The last part of the folder's name: what `find_run` takes."""
        return self.folder.name.rpartition("_")[2]

    @property
    def name(self) -> str:
        """The experiment, or where none was chosen the model, or what else was run."""
        named = [self.config[key] for key in ("experiment", "model", "procedure") if key in self.config]
        return str(named[0]) if named else ""

    @property
    def data(self) -> str:
        """The data set; marked where it is not the whole official one."""
        return f"{self.dataset} ({self.label})" if self.label in ("part", "generated") else self.dataset


def collect(outputs: Path, names: Sequence[str] = ()) -> list[Record]:
    """The runs under `outputs`, oldest first; or only those named (an id, a folder, a sweep's folder, "last").

    Raises UserError for a name that fits no run.
    """
    folders = find_runs(outputs) if not names else [folder for name in names for folder in _named(name, outputs)]
    records = [read(folder) for folder in dict.fromkeys(folders)]
    return sorted(records, key=lambda record: (record.started or datetime.min.replace(tzinfo=UTC), str(record.folder)))


def _named(name: str, outputs: Path) -> list[Path]:
    folder = Path(name)
    if folder.is_dir() and not (folder / "status.json").exists():
        inside = find_runs(folder)
        if not inside:
            raise UserError(f"There is no run in {folder}.")
        return inside
    return [find_run(name, outputs)]


def read(folder: Path) -> Record:
    """The record of a run folder, as far as it is written."""
    status, summary, environment = (read_json(folder / f"{name}.json") or {} for name in ("status", "summary", "env"))
    config = _config(folder)
    state, choices = state_of(folder), environment.get("choices", {})
    metrics, epoch = summary.get("metrics"), summary.get("epochs")
    if metrics is None:
        metrics, epoch = _newest(folder)
    dataset = summary.get("dataset") or status.get("dataset") or {}
    values = {path: value for path, value in settings(config).items() if path not in CHOICES}
    generated = (config.get("dataset") or {}).get("source") == "generated"
    return Record(
        folder=folder,
        state=state,
        config={**{k: choices[k] for k in CHOICES if k in choices}, **values},
        metrics=metrics,
        dataset=dataset.get("name") or choices.get("dataset", ""),
        label=dataset.get("label") or ("generated" if generated else ""),
        started=_time(environment.get("time") or status.get("started")),
        seconds=_seconds(status),
        epoch=epoch,
        epochs=(config.get("trainer") or {}).get("max_epochs") if epoch is not None else None,
        error=status.get("error", {}).get("message", "").partition("\n")[0],
        reference=config.get("reference") or {},
        asked=frozenset(word.lstrip("+~").partition("=")[0] for word in overrides(folder)),
        test_looks=summary.get("test_looks", 0),
    )


def overrides(folder: Path) -> list[str]:
    """What the command line changed: Hydra's own list in the run folder, ["optimizer.lr=0.1"]."""
    try:
        lines = (folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.removeprefix("- ").strip("'\"") for line in lines if line.startswith("- ")]


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        return _parsed((folder / "config.yaml").read_text(encoding="utf-8"))
    except OSError:
        return {}


@functools.cache
def _parsed(text: str) -> Mapping[str, Any]:
    """Equal texts are parsed once: the jobs of a sweep that differ only in a choice share theirs."""
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings by dotted path, each one once.

    A resolved config repeats its parts (procedure.learner.model.hidden is model.hidden): what another setting's path
    ends with, at the same value, is left out, and so are class names (the chosen groups say that) and what no
    result depends on.
    """
    flat = {path: value for path, value in flatten(config).items() if not path.rpartition(".")[2].startswith("_")}
    return {
        path: value
        for path, value in flat.items()
        if not any(tail in flat and flat[tail] == value for tail in _tails(path)) and not _no_result(path)
    }


def _no_result(path: str) -> bool:
    return any(path == name or path.startswith(name + ".") for name in NOT_RESULTS)


def _tails(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists, scalars and empty mappings are leaves."""
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    parts = [flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
    return {key: item for part in parts for key, item in part.items()}


def _newest(folder: Path) -> tuple[Metrics, int | None]:
    records = read_records(folder / "metrics.jsonl")
    if not records:
        return {}, None
    newest = dict(records[-1])
    epoch = newest.pop("epoch", None)
    newest.pop("step", None)
    return {name: value for name, value in newest.items() if "/" in name}, epoch


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _seconds(status: Mapping[str, Any]) -> float | None:
    last = "heartbeat" if status.get("state") in ("queued", "running") else "ended"
    started, ended = _time(status.get("started")), _time(status.get(last))
    return (ended - started).total_seconds() if started and ended else None


# -- what differs, and in which order ----------------------------------------------------------------------------


def differing(records: Sequence[Record]) -> list[str]:
    """The settings that are not the same in all records, the telling ones first.

    First what a command line named, chosen groups before values; then what all have; then what only some have.
    """
    paths = dict.fromkeys(path for record in records for path in record.config)
    found = [path for path in paths if len({repr(record.config.get(path)) for record in records}) > 1]
    asked = {path for record in records for path in record.asked}

    def rank(path: str) -> tuple[int | bool, ...]:
        somewhere_missing = any(path not in record.config for record in records)
        choice = CHOICES.index(path) if path in CHOICES else len(CHOICES)
        return choice, path not in asked, somewhere_missing, path == "seed"

    return sorted(found, key=rank)


def telling(records: Sequence[Record]) -> list[str]:
    """Those of `differing` that are chosen groups or were named on a command line."""
    asked = {path for record in records for path in record.asked}
    return [path for path in differing(records) if path in CHOICES or path in asked]


def varies(records: Sequence[Record], metric: str) -> bool:
    """Whether a metric differs between records (always of a single one)."""
    return len(records) == 1 or len({record.metrics.get(metric) for record in records}) > 1


def metric_names(records: Iterable[Record]) -> list[str]:
    """The metrics that any of them has, in the order of `in_order`."""
    return in_order(dict.fromkeys(name for record in records for name in record.metrics))


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics of test, then validation, then training; scores before losses within each."""
    return sorted(names, key=lambda name: (_split_rank(name), smaller_is_better(name)))


def _split_rank(name: str) -> int:
    split = name.partition("/")[0]
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def metric_ranks(names: Sequence[str]) -> dict[str, int]:
    """How far down each metric matters: the first of the test split most, then each split's next ones."""
    seen: dict[int, int] = {}
    ranks = {}
    for name in names:
        split = _split_rank(name)
        seen[split] = seen.get(split, -1) + 1
        ranks[name] = split + seen[split]
    return ranks


def smaller_is_better(metric: str) -> bool:
    """By the metric's name: losses and errors."""
    words = metric.rpartition("/")[2].replace("-", "_").split("_")
    return any(word in SMALLER_IS_BETTER for word in words)


def duration(seconds: float) -> str:
    """42s, 1m23s, 2h05."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}h{minutes % 60:02d}" if minutes >= 60 else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
    )


def sort_by(records: Sequence[Record], metric: str) -> list[Record]:
    """The best first; runs that have not measured it last. Raises UserError for a metric that none has."""
    known = metric_names(records)
    if metric not in known:
        raise UserError(f"No run here has measured {metric!r}; there are {', '.join(known) or 'no metrics yet'}.")
    sign = 1 if smaller_is_better(metric) else -1

    def key(record: Record) -> tuple[bool, float]:
        value = record.metrics.get(metric)
        return value is None, sign * value if value is not None else 0.0

    return sorted(records, key=key)
