"""Judge a finished run's weights on another split, or on other data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from dl_lab import configs
from dl_lab.configs.explain import fault
from dl_lab.configs.parts import dataset_of
from dl_lab.configs.words import did_you_mean
from dl_lab.jobs.procedure import build_procedure
from dl_lab.runs.files import now, read_json, to_json, write_atomic
from dl_lab.runs.find import state_of
from dl_lab.types import ConfigError, Metrics, UserError, read_tally

FILE = "evaluations.jsonl"
SplitName = Literal["train", "val", "test"]


def evaluate(folder: Path, words: Sequence[str], split: SplitName, weights: str | None = None) -> Metrics:
    """Judge a split with a run's weights, and record it in evaluations.jsonl of the run's folder.

    A look at a test split is counted: `test_looks` in summary.json grows by one.

    Args:
        folder: The run's folder.
        words: Overrides of the data set: dataset=NAME, dataset.key=value.
        split: The split to judge.
        weights: "best" or "last"; None takes the weights that the run was tested with.

    Returns:
        The metrics, named "<split>/<name>".

    Raises:
        UserError: The run is not done, it trained nothing, or its model does not take the data.
        ConfigError: An override is wrong.
    """
    from dl_lab.runs.weights import load_weights
    from dl_lab.training.devices import choose_device
    from dl_lab.training.evaluation import judge
    from dl_lab.training.seeding import seed_everything

    summary = read_json(folder / "summary.json") or {}
    if state_of(folder) != "done" or "weights" not in summary:
        raise UserError(f"{folder} is not a finished training: it has no weights to judge.")
    config = change_dataset(configs.read_config(folder), words)
    configs.check(config)
    seed_everything(config["seed"], config["deterministic"])
    training = build_procedure(config).training()
    if training is None:
        raise UserError(f"{folder} has no single trained learner that could be judged.")
    kind = weights or summary["weights"]
    learner = training.learner
    device = choose_device(training.trainer.device)
    learner.to(device)
    dataset = training.dataset.to(device)
    learner.start(dataset)
    learner.load_weights(load_weights(folder / "checkpoints" / f"{kind}.safetensors"))
    try:
        tally = judge(learner, getattr(dataset, split), training.trainer.eval_batch_size)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"The model of {folder} does not take these data: {fault(error)}") from error
    metrics = read_tally(tally, f"{split}/")
    facts = {
        "time": now(),
        "weights": kind,
        "split": split,
        "overrides": list(words),
        "metrics": metrics,
        "dataset": dataset.summary(),
    }
    _append(folder / FILE, to_json(facts))
    if split == "test":
        looks = summary.get("test_looks", 0) + 1
        write_atomic(folder / "summary.json", to_json({**summary, "test_looks": looks}, indent=1))
    return metrics


def _append(path: Path, line: str) -> None:
    """Write the file anew with one more line, so that a kill leaves it whole."""
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomic(path, f"{known}{line}\n")


def change_dataset(config: Mapping[str, object], words: Sequence[str]) -> dict[str, Any]:
    """Return a run's config with another data set, or with other settings of its data set.

    Args:
        config: The run's resolved config. It stays as it is.
        words: Overrides of the data set: dataset=NAME, dataset.key=value.

    Raises:
        ConfigError: An override is not one of the data set, or names an unknown key.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    chosen = [word for word in words if word.startswith("dataset=")]
    settings = [word for word in words if word not in chosen]
    if chosen:
        composed = configs.Composer().compose([*chosen, *settings])
        changed["procedure"]["dataset"] = composed.config["procedure"]["dataset"]
        return changed
    for word in settings:
        _change_setting(changed, word)
    return changed


def _change_setting(config: Mapping[str, object], word: str) -> None:
    """Change one setting of the config's data set, in place."""
    dataset = dataset_of(config) or {}
    key, equals, text = word.partition("=")
    *parents, last = key.split(".")
    node: dict[str, object] | None = {"dataset": dataset}
    for name in parents:
        child = node.get(name) if node else None
        node = child if isinstance(child, dict) else None
    if not equals or node is None or last not in node:
        known = [f"dataset.{name}" for name in dataset if not str(name).startswith("_")]
        raise ConfigError(f"{word} is not a setting of the run's data set.{did_you_mean(key, known)}")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{word!r} is not an override like key=value: {error}.") from error
