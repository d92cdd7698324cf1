"""Which key a user may mean who wrote one that the config does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dl_lab.configs import catalogue
from dl_lab.configs.words import did_you_mean, to_list

FEW = 4  # more parts than these that have a key are counted, not listed

# What other tools call a key or a group -> its name here.
SYNONYMS = {
    "accelerator": "device",
    "accumulate_grad_batches": "accumulation",
    "amp": "precision",
    "arch": "model",
    "augmentation": "augment",
    "augmentations": "augment",
    "bf16": "precision",
    "bs": "batch_size",
    "csv": "path",
    "csv_file": "path",
    "cuda": "device",
    "data_file": "path",
    "data_path": "path",
    "devices": "device",
    "dir": "path",
    "directory": "path",
    "epochs": "max_epochs",
    "file": "path",
    "file_path": "path",
    "filename": "path",
    "folder": "path",
    "fp16": "precision",
    "gpu": "device",
    "gpus": "device",
    "grad_clip": "clip_norm",
    "gradient_accumulation_steps": "accumulation",
    "gradient_clip_val": "clip_norm",
    "hidden_dim": "hidden",
    "hidden_size": "hidden",
    "iterations": "max_steps",
    "label": "target",
    "label_column": "target",
    "learning_rate": "lr",
    "limit_train_batches": "limit_batches",
    "log_every_n_steps": "log_steps",
    "max_grad_norm": "clip_norm",
    "mixed_precision": "precision",
    "n_epochs": "max_epochs",
    "n_steps": "max_steps",
    "net": "model",
    "network": "model",
    "num_epochs": "max_epochs",
    "num_layers": "n_layers",
    "num_steps": "max_steps",
    "num_workers": "workers",
    "random_seed": "seed",
    "random_state": "seed",
    "root": "path",
    "steps": "max_steps",
    "target_column": "target",
    "test_size": "test",
    "test_split": "test",
    "transform": "augment",
    "transforms": "augment",
    "val_check_interval": "validate_every_steps",
    "val_size": "val",
    "val_split": "val",
    "validation_split": "val",
    "wd": "weight_decay",
}
OTHERWISE = {"path": "folder"}  # a second name: that of a folder of images
_FOLDER = "The run folder is hydra.run.dir=FOLDER."
_LOSS = "The loss belongs to the task: task=OPTION."
_NAME = "A run has the name of its folder: hydra.run.dir=outputs/NAME."
_RESUME = "To continue a run: dl-lab resume RUN."
_SEVERAL = "Several processes train one model under torchrun: torchrun --standalone --nproc-per-node 2 -m dl_lab ..."
_TRY = "For a quick try of everything: profile=smoke."
# What other tools do with a key, and dl-lab in another way.
ELSEWHERE = {
    "ckpt_path": _RESUME,
    "resume": _RESUME,
    "resume_from_checkpoint": _RESUME,
    "criterion": _LOSS,
    "loss": _LOSS,
    "loss_fn": _LOSS,
    "debug": _TRY,
    "fast_dev_run": _TRY,
    "exp_name": _NAME,
    "experiment_name": _NAME,
    "name": _NAME,
    "run_name": _NAME,
    "log_dir": _FOLDER,
    "out_dir": _FOLDER,
    "run_dir": _FOLDER,
    "save_dir": _FOLDER,
    "shuffle": "The order of the training items is a part of the data: dataset/order=in_order.",
    "strategy": _SEVERAL,
}


def explain(key: str, known: Sequence[str], groups: Sequence[str], config_dir: str | None) -> str:
    """Suggest a key beside the wrong one; else what other tools' name for it is here; else the nearest of all.

    Args:
        key: The unknown key.
        known: The keys of the config.
        groups: The config groups.
        config_dir: The user's own folder of configs. None: the project's.

    Returns:
        The end of a message, with a space before it; "" where nothing is near.
    """
    parent, _, last = key.rpartition(".")
    last = SYNONYMS.get(last, last)
    for name in (last, OTHERWISE.get(last, last)):
        if parent and f"{parent}.{name}" in known:
            return f" Did you mean {parent}.{name}?"
    within = [path for path in known if path.startswith(f"{parent}.")] if parent else []
    siblings = [path.rpartition(".")[2] for path in within if path.rpartition(".")[0] == parent]
    siblings = [name for name in siblings if not name.startswith("_")]
    if not siblings:
        return _explain_alone(key, known, groups, config_dir)
    if deeper := [path for path in within if path.endswith(f".{last}")]:  # dataset.convert: dataset.decoding.convert
        return f" Did you mean {min(deeper, key=len)}?"
    flat = {path.removeprefix(f"{parent}.").replace(".", "_"): path for path in within}
    close = difflib.get_close_matches(last, flat, n=1, cutoff=0.85)
    if close and close[0] not in siblings:  # `dataset.split_seed` for `dataset.splits.seed`
        return f" Did you mean {flat[close[0]]}?"
    near = did_you_mean(last, siblings).replace("mean ", f"mean {parent}.")
    if not near:
        near = _say_parts_with(key, [parent], config_dir)
        near += _explain_alone(last, known, groups, config_dir) if not near else _say_path_of(last, known)
    return f"{near}\n{to_list(f'keys of {parent}', siblings)}"


def _explain_alone(key: str, known: Sequence[str], groups: Sequence[str], config_dir: str | None) -> str:
    """Explain a key that has no siblings: `lr`, `patience`, `early_stopping`, `ckpt_path`."""
    last = key.rpartition(".")[2]
    parts = [group for group in groups if group not in ("experiment", "sweep", "hydra")]
    return (
        _say_path_of(SYNONYMS.get(last, last), known)
        or (f" {ELSEWHERE[last]}" if last in ELSEWHERE else "")
        or _say_option(last, parts, config_dir)
        or _say_parts_with(key, parts, config_dir)
        or did_you_mean(SYNONYMS.get(key, key), [*known, *groups])
    )


def _say_option(name: str, groups: Sequence[str], config_dir: str | None) -> str:
    """Suggest the option of this name: `callbacks=early_stopping` for `early_stopping=true`."""
    options = [
        f"{group}={name}" for group in groups if any(e.name == name for e in catalogue.entries(group, config_dir))
    ]
    return f" Did you mean {' or '.join(options)}?" if options else ""


def _say_path_of(name: str, known: Sequence[str]) -> str:
    """Suggest the key of this name that the config has elsewhere: `trainer.lr` for `optimizer.lr`."""
    same = [path for path in known if path.rpartition(".")[2] == name]
    return f" Did you mean {min(same, key=len)}?" if same else ""


def _say_parts_with(key: str, groups: Sequence[str], config_dir: str | None) -> str:
    """Say which parts have a key: `momentum` is not one of optimizer=adam, but of optimizer=sgd_momentum."""
    name = key.rpartition(".")[2]
    name = SYNONYMS.get(name, name)
    found: dict[str, list[str]] = {}
    for group in groups:
        for entry in catalogue.entries(group, config_dir):
            for path in paths_of(entry.content):
                if path.rpartition(".")[2] == name:
                    found.setdefault(f"{group}.{path}", []).append(f"{group}={entry.name}")
    said = ""
    for path, parts in sorted(found.items(), key=lambda item: item[0].count("."))[:FEW]:
        shown = ", ".join(parts[:FEW]) + (f" and {len(parts) - FEW} more" if len(parts) > FEW else "")
        said += f" {'It' if path == key else path} is a key of {shown}."
    return said


def paths_of(content: Mapping[str, Any]) -> Iterator[str]:
    """List the dotted keys that the content of a YAML has, without those that no user sets (defaults, _target_)."""
    for name, value in content.items():
        if name == "defaults" or str(name).startswith("_"):
            continue
        yield str(name)
        if isinstance(value, Mapping):
            for path in paths_of(value):
                yield f"{name}.{path}"
