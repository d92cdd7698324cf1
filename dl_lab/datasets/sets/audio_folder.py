"""Your own sounds: one folder for each class, as log-mel images of equal length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import Loading, Order, fingerprint, shuffled
from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.dataset import Dataset, hold_tensors
from dl_lab.datasets.progress import show_progress
from dl_lab.datasets.rows import SPLITS, Parts, Rows
from dl_lab.datasets.speech.audio import AudioFault, LogMel, read_any
from dl_lab.datasets.speech.folders import Clips, Found, find_classes, skippable
from dl_lab.datasets.storage import Storage
from dl_lab.types import LabelledBatch, UserError, count

SILENT = 1  # what a sound turned out to be when its features were computed
DAMAGED = 2
NO_SIGNAL = 2**-14  # the largest value of a sound of 16 bits that is silent but for rounding


def audio_folder(
    path: str,
    n_classes: int,
    input_shape: Sequence[int],
    features: LogMel,
    clips: Clips,
    rows: Rows,
    storage: Storage,
    loading: Loading,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 128,
    order: Order = shuffled,
) -> Dataset:
    """Return sounds as LabelledBatch: log-mel images (1, n_mels, frames).

    Args:
        path: The folder, relative to the current folder or to the data folder: <class>/*.wav, or train/<class>/*.wav
            beside val and test. WAV, AIFF, AU, FLAC, Ogg and MP3 files are read.
        n_classes: The number of classes; the config learns it from the folders.
        input_shape: [1, n_mels, frames]; the config learns it from the files.
        features: How log-mel features are computed.
        clips: The length and the sample rate of all sounds.
        rows: How sounds become train, val and test if the folders name no splits.
        storage: The data folder, and the cache, which keeps the features.
        loading: Where the tensors reside.
        source: "real", or "generated" for a tone for each class.
        n_generated: Training items of the generated data set.
        order: The order of a training epoch.

    Raises:
        UserError: A file is damaged or too long, or a folder has no sounds; the message names it.
    """
    if source == "generated":
        batches = _generate(n_generated, n_classes, input_shape)
        return _build(batches, "generated", tuple(f"class {i}" for i in range(n_classes)), loading, order)
    found = find_classes(path, storage.data, clips)
    shape = [1, features.n_mels, features.n_frames(found.n_samples)]
    if [len(found.class_names), *shape] != [n_classes, *input_shape]:
        raise UserError(
            f"{found.root} has {len(found.class_names)} classes and makes images {shape}, but the config says"
            f" {n_classes} and {list(input_shape)}: the folder has changed since the config was made."
        )
    values, kinds = _read_features(found, features, clips, storage.cache)
    whole = kinds != DAMAGED
    if not whole.all():
        found = _select(found, np.flatnonzero(whole))
        values = values[torch.from_numpy(whole)]
    parts = _split(found, rows)
    batches: dict[str, LabelledBatch] = {}
    for split, own in parts.items():
        batches[split] = LabelledBatch(values[torch.from_numpy(own)], torch.from_numpy(found.labels[own]))
    sizes_of_splits = ", ".join(f"{split} {len(own)}" for split, own in parts.items())
    sizes = np.bincount(found.labels)
    counts = ", ".join(f"{name} {n}" for name, n in zip(found.class_names, sizes, strict=True))
    length = found.n_samples / clips.sample_rate
    shortest = found.shortest / clips.sample_rate
    about = [
        f"classes: {counts}",
        f"length: {length:.2f} s; shorter sounds (from {shortest:.2f} s) end in silence",
        "splits: " + ("as the folders say: " if found.given else "") + sizes_of_splits,
    ]
    return _build(
        batches,
        "part" if found.n_skipped else "full",
        found.class_names,
        loading,
        order,
        note=", ".join(_describe_changes(found, clips, int((kinds == SILENT).sum()))),
        about=about,
        preprocessing={
            "features": features.to_plain(),
            "sample_rate": clips.sample_rate,
            "n_samples": found.n_samples,
            "class_names": list(found.class_names),
        },
    )


def learn(path: str, features: LogMel, clips: Clips, storage: Storage, **_: object) -> dict[str, object]:
    """Return what the config takes from the folder: n_classes and input_shape."""
    found = find_classes(path, storage.data, clips)
    return {
        "n_classes": len(found.class_names),
        "input_shape": [1, features.n_mels, features.n_frames(found.n_samples)],
    }


def as_item(samples: Tensor, n_samples: int, features: LogMel) -> Tensor:
    """Return the log-mel image (n_mels, frames) of samples (n,), which are cut or followed by silence."""
    samples = samples[:n_samples]
    return features(torch.nn.functional.pad(samples, (0, n_samples - len(samples)))).T


def _split(found: Found, rows: Rows) -> Parts:
    if found.given is not None:
        given = np.array(found.given)
        parts = {split: np.flatnonzero(given == split) for split in SPLITS}
    else:
        parts = rows(len(found.paths), found.labels, _no_columns)
    absent = sorted(set(range(len(found.class_names))) - set(found.labels[parts["train"]].tolist()))
    if absent:
        raise UserError(f"{found.root}: the class {found.class_names[absent[0]]!r} has no training sound.")
    return parts


def _no_columns(name: str) -> list[str]:
    raise UserError(
        f"Sounds have no column {name!r}: put them into folders train, val and test, or choose another dataset/rows."
    )


# -- features -----------------------------------------------------------------------------------------------------


def _read_features(found: Found, settings: LogMel, clips: Clips, cache_dir: Path) -> tuple[Tensor, np.ndarray]:
    """Compute the features of all sounds once, and keep them in the cache.

    Returns:
        The features (n, 1, n_mels, frames), and (n,) uint8: 0, SILENT or DAMAGED, whose features are 0.
    """
    names: list[list[str | int]] = []
    for path in found.paths:
        about = path.stat()
        names.append([str(path.relative_to(found.root)), about.st_size, about.st_mtime_ns])
    key = key_of(settings.to_plain(), clips.sample_rate, clips.unreadable, found.n_samples, names)

    def fill(writer: Writer) -> None:
        shape = (len(found.paths), 1, settings.n_mels, settings.n_frames(found.n_samples))
        values = writer.array("features", shape, np.float32)
        kinds = writer.array("kinds", shape[:1], np.uint8)
        for i, path in enumerate(show_progress(found.paths, len(found.paths), "log-mel features")):
            try:
                samples = read_any(path, clips.sample_rate)
            except AudioFault as fault:
                if clips.unreadable == "error":
                    raise skippable(fault) from None
                values[i], kinds[i] = 0, DAMAGED
                continue
            kinds[i] = 0 if samples.abs().max() > NO_SIGNAL else SILENT
            with torch.no_grad():
                values[i, 0] = as_item(samples, found.n_samples, settings).numpy()

    arrays = load_or_fill(cache_dir, "audio_folder", key, fill).arrays
    return torch.from_numpy(arrays["features"]), np.array(arrays["kinds"])


def _select(found: Found, kept: np.ndarray) -> Found:
    """Return the sounds that are kept; the others count as damaged files."""
    return replace(
        found,
        paths=[found.paths[i] for i in kept],
        labels=found.labels[kept],
        given=found.given and [found.given[i] for i in kept],
        n_skipped=found.n_skipped + len(found.paths) - len(kept),
    )


def _describe_changes(found: Found, clips: Clips, n_silent: int) -> list[str]:
    """Say what was left out, and which sounds are not as their files have them."""
    rates = ", ".join(f"{rate:,}" for rate in found.other_rates)
    changes = {
        f"{count(found.n_skipped, 'damaged file')} skipped": found.n_skipped,
        f"{count(found.n_other, 'other file')} left out": found.n_other,
        f"{count(found.n_converted, 'sound')} converted from {rates} Hz": found.n_converted,
        f"channels of {count(found.n_mixed, 'sound')} mixed to one": found.n_mixed,
        f"{count(n_silent, 'sound')} without any signal": n_silent,
    }
    return [words for words, n in changes.items() if n]


def _generate(n: int, n_classes: int, shape: Sequence[int]) -> dict[str, LabelledBatch]:
    """Return noise with one bright band for each class."""
    rng = np.random.default_rng(0)
    batches: dict[str, LabelledBatch] = {}
    for split, size in {"train": n, "val": n // 4, "test": n // 4}.items():
        labels = np.arange(max(size, n_classes)) % n_classes
        images = rng.normal(0, 0.1, (len(labels), *shape)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            image[:, (label * shape[1]) // n_classes] += 1
        batches[split] = LabelledBatch(torch.from_numpy(images), torch.from_numpy(labels))
    return batches


def _build(
    batches: dict[str, LabelledBatch],
    label: Literal["full", "part", "generated"],
    class_names: tuple[str, ...],
    loading: Loading,
    order: Order,
    **facts: Any,  # more arguments of a Dataset
) -> Dataset:
    splits = hold_tensors(batches, loading, order)
    return Dataset(
        "audio_folder",
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=fingerprint(*itertools.chain.from_iterable(batches.values())),
        class_names=class_names,
        **facts,
    )
