"""The evidence for the doctor's rules: the records of one run, read once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dl_lab.runs.anchors import load_yaml
from dl_lab.runs.files import read_json, read_losses, read_records
from dl_lab.runs.find import state_of
from dl_lab.types import Metrics, UserError

VITALS_FILE = "vitals.jsonl"
LOOKED_AT = 200  # updates of a training that has a look: a look costs about as much as an update of a small net
USUAL_LOSSES = (None, "mse", "cross_entropy", "binary_cross_entropy")


@dataclass(frozen=True)
class Evidence:
    """The records of one fit.

    Attributes:
        folder: The folder of the run.
        state: The state of the run.
        config: The resolved config of the run.
        status: The content of status.json.
        summary: The content of summary.json.
        history: The metrics of each epoch, by full name ("val/loss").
        losses: The loss of every update.
        looks: The callback's looks at single updates, oldest first.
        examination: What the callback found out about the trained model and its data.
        broken: The callback's look at the update whose loss was not finite.
        failed: The looks that failed, each with its error.
        contender: The name of the model in a run that compares several; "" in a run of one model.
    """

    folder: Path
    state: str
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    summary: Mapping[str, Any]
    history: Sequence[Metrics]
    losses: Sequence[float]
    looks: Sequence[Mapping[str, Any]]
    examination: Mapping[str, Any]
    broken: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[Mapping[str, Any]] = ()
    contender: str = ""

    @property
    def procedure(self) -> Mapping[str, Any]:
        """The config of the procedure."""
        return self.config.get("procedure") or {}

    def setting(self, path: str) -> Any:
        """Return the value of a config key below `procedure` or at the root; None where there is none."""
        for root in (self.procedure, self.config):
            node: object = root
            for key in path.split("."):
                node = node.get(key) if isinstance(node, Mapping) else None
            if node is not None:
                return node
        return None

    def has(self, path: str) -> bool:
        """Whether the config has a key below `procedure` or at the root, even one whose value is null."""
        for root in (self.procedure, self.config):
            node: object = root
            for key in path.split("."):
                if not isinstance(node, Mapping) or key not in node:
                    break
                node = node[key]
            else:
                return True
        return False

    @property
    def is_over(self) -> bool:
        """Whether the run is done."""
        return self.state == "done"

    @property
    def metrics(self) -> Metrics:
        """The final metrics."""
        return self.summary.get("metrics") or {}

    @property
    def error(self) -> str:
        """The message of the error that ended the run; empty where there is none."""
        return str((self.status.get("error") or {}).get("message", ""))

    def curve(self, name: str) -> list[float]:
        """Return the values of a metric over the epochs; [] where an epoch lacks it or has no finite number."""
        values = [epoch.get(name) for epoch in self.history]
        if None in values:
            return []
        return [float(value) for value in values if isinstance(value, int | float)]

    @property
    def task(self) -> str:
        """The class name of the task; of a penalised task, that of the task inside."""
        return str(self._task.get("_target_", "")).rpartition(".")[2]

    @property
    def has_usual_loss(self) -> bool:
        """Whether the loss is the usual one of its task, so that its value at chance is known."""
        target = str(self._task.get("_target_", "dl_lab."))
        return self._task.get("loss") in USUAL_LOSSES and target.startswith(("dl_lab.", "torch."))

    @property
    def _task(self) -> Mapping[str, Any]:
        task = self.setting("learner.task") or self.setting("task")
        if not isinstance(task, Mapping):
            return {}
        inner = task.get("task")
        return inner if isinstance(inner, Mapping) else task

    @property
    def is_classification(self) -> bool:
        """Whether the task tells classes apart."""
        return bool(self.counts("train")) and bool(self.curve("val/accuracy"))

    def counts(self, split: str) -> dict[str, int]:
        """Return class -> number of items of a split; {} for data without classes."""
        dataset = self.summary.get("dataset") or self.status.get("dataset") or {}
        found = (dataset.get("class_counts") or {}).get(split) or {}
        if not found and split in (self.examination.get("labels") or {}):
            found = {str(i): n for i, n in enumerate(self.examination["labels"][split])}
        return {str(name): int(n) for name, n in found.items()}

    def share_of_largest(self, split: str) -> float | None:
        """Return the share of the commonest class of a split; None for data without classes."""
        counts = self.counts(split).values()
        return max(counts) / sum(counts) if sum(counts) else None

    @cached_property
    def entropy(self) -> float | None:
        """The entropy of the training classes' shares, in nats; None without classes."""
        counts = [n for n in self.counts("train").values() if n]
        if not self.is_classification or not sum(counts):
            return None
        total = sum(counts)
        return -sum(n / total * math.log(n / total) for n in counts)

    @cached_property
    def chance_loss(self) -> float | None:
        """The loss of a guess: the entropy of the classes' shares (nats), or the variance of a regression's target.

        None where the loss is another one than the cross-entropy or the squared error.
        """
        if not self.has_usual_loss:
            return None
        if self.entropy is not None:
            return self.entropy
        variance = self.examination.get("target_variance")
        return float(variance) if variance is not None else None

    def size(self, split: str) -> int:
        """Return the number of items of a split; 0 where it is not known."""
        dataset = self.summary.get("dataset") or self.status.get("dataset") or {}
        return int((dataset.get("sizes") or {}).get(split) or 0)

    @property
    def lr(self) -> float | None:
        """The learning rate, of the optimizer or of a model in NumPy; None where the config has none."""
        paths = ("learner.optimizer.lr", "learner.model.lr", "optimizer.lr")
        value = next((found for found in map(self.setting, paths) if found), None)
        return float(value) if isinstance(value, int | float) else None

    @property
    def optimizer(self) -> str:
        """The class name of the optimizer."""
        node = self.setting("learner.optimizer") or self.setting("optimizer")
        if not isinstance(node, Mapping):
            return ""
        return str(node.get("_target_", "")).rpartition(".")[2]

    def matrices(self, look: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the weights of a look, in the order of the model, without biases and the scales of normalisations."""
        for name, facts in (look.get("weights") or {}).items():
            if "weight" in name.rpartition(".")[2] and "Norm" not in str(facts.get("layer", "")):
                yield name, facts


def find_fits(folder: Path) -> list[Path]:
    """Return the folders of a run's fits: one for each model that the run compares, or the run's own.

    The records of a compared model lie in a subfolder, which has no config of its own.
    """
    parts = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    return [part for part in parts if not (part / "config.yaml").exists()] or [folder]


def read_evidence(folder: Path) -> Evidence:
    """Read the records of a run, or of one model of a run that compares several.

    Raises:
        UserError: The folder has no readable config.
    """
    run = folder
    contender = ""
    if not (folder / "config.yaml").exists() and (folder.parent / "config.yaml").exists():
        run = folder.parent
        contender = folder.name
    config = _read_config(run)
    if contender:
        config = _config_of(config, contender)
    records = _records(folder / VITALS_FILE)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_kind.setdefault(str(record.get("kind")), []).append(record)
    history = [record for record in _records(folder / "metrics.jsonl") if any(key.startswith("val/") for key in record)]
    summary = read_json(folder / "summary.json") or {}
    return Evidence(
        folder=folder,
        state="done" if contender and "metrics" in summary else state_of(run),
        config=config,
        status=read_json(run / "status.json") or {},
        summary=summary,
        history=history,
        losses=read_losses(folder),
        looks=by_kind.get("look", []),
        examination=(by_kind.get("examination") or [{}])[-1],
        broken=(by_kind.get("broken") or [{}])[-1],
        failed=by_kind.get("failed look", []),
        contender=contender,
    )


def _read_config(run: Path) -> Mapping[str, Any]:
    """Read the resolved config of a run.

    Raises:
        UserError: The config is missing, or it is no mapping.
    """
    try:
        config = load_yaml((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"The config of {run} cannot be read, so there is nothing to examine.") from error
    if not isinstance(config, Mapping):
        raise UserError(f"The config of {run} is not a mapping, so there is nothing to examine.")
    return config


def _contenders(config: Mapping[str, Any]) -> Mapping[str, Any]:
    procedure = config.get("procedure")
    contenders = procedure.get("contenders") if isinstance(procedure, Mapping) else None
    return contenders if isinstance(contenders, Mapping) else {}


def _config_of(config: Mapping[str, Any], contender: str) -> Mapping[str, Any]:
    """Return the config of a comparison, with one contender's model and learner in the place of all contenders."""
    chosen = _contenders(config).get(contender)
    if not isinstance(chosen, Mapping):
        return config
    learner = {**(chosen.get("learner") or {}), "model": chosen.get("model")}
    parts = {name: learner.get(name) for name in ("model", "optimizer", "scheduler", "task")}
    return {**config, **parts, "learner": learner, "procedure": {**config["procedure"], "learner": learner}}


def _records(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file that grows; [] where it is damaged."""
    try:
        return read_records(path)
    except ValueError:
        return []
