"""Make a run longer: a finished training continues with more epochs or updates."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dl_lab import configs
from dl_lab.configs.words import did_you_mean
from dl_lab.jobs.one import run_files
from dl_lab.runs.files import read_json, write_atomic
from dl_lab.runs.records import overrides as recorded_overrides
from dl_lab.types import ConfigError, UserError

KEYS = ("trainer.max_epochs", "trainer.max_steps")


def lengthen(folder: Path, config: Mapping[str, object], words: Sequence[str]) -> dict[str, Any]:
    """Return the run's config with a longer training, and write it into the run's folder.

    Args:
        folder: The run's folder.
        config: Its resolved config.
        words: Overrides like trainer.max_epochs=20.

    Raises:
        ConfigError: An override changes something else than the length, or does not make the training longer.
        UserError: The run trained nothing, its training ended early, or its schedule was planned for the shorter
            training.
    """
    longer: dict[str, Any] = copy.deepcopy(dict(config))
    trainer = longer["procedure"].get("trainer")
    if not isinstance(trainer, dict):
        raise UserError(f"{folder} trained nothing that could continue.")
    summary = read_json(folder / "summary.json") or {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in KEYS:
            hint = did_you_mean(key, list(KEYS))
            raise ConfigError(f"resume {word}: a resumed run only takes {' and '.join(KEYS)}.{hint}")
        name = key.partition(".")[2]
        done = summary.get("epochs" if name == "max_epochs" else "steps", 0)
        value = yaml.safe_load(text)
        if not isinstance(value, int) or isinstance(value, bool) or value <= done:
            raise ConfigError(f"{word} does not make {folder} longer: {done} {name.removeprefix('max_')} are done.")
        trainer[name] = value
        if isinstance(longer.get("trainer"), dict):
            longer["trainer"][name] = value
    if summary.get("stop_reason"):
        raise UserError(f"{folder} ended early ({summary['stop_reason']}): it cannot be made longer.")
    _refuse_planned_schedule(folder, longer["procedure"].get("learner"))
    for name, content in run_files(longer, [*recorded_overrides(folder), *words]).items():
        write_atomic(folder / name, content)
    return longer


def _refuse_planned_schedule(folder: Path, learner: object) -> None:
    """Refuse a schedule that spans the whole training: in a longer one, all its rates would have been others."""
    from dl_lab.training.schedules import missing_lengths

    described = learner.get("scheduler") if isinstance(learner, Mapping) else None
    if not isinstance(described, Mapping):
        return
    if missing_lengths(configs.build({"scheduler": described}, "scheduler")):
        raise UserError(
            f"{folder} cannot be made longer: its learning-rate schedule was planned for the whole training, and a "
            "longer one would have had other rates from the start. Start a new run with more epochs."
        )
