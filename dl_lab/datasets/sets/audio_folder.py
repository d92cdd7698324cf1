"""Your own sounds: one folder for each class, as log-mel images of equal length."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import Loading, Order, fingerprint, shuffled
from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.dataset import Dataset, hold_tensors
from dl_lab.datasets.progress import show_progress
from dl_lab.datasets.rows import SPLITS, Parts, Rows
from dl_lab.datasets.speech.audio import AudioFault, LogMel, n_samples_of, read_any
from dl_lab.datasets.storage import Storage
from dl_lab.types import LabelledBatch, UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".oga", ".mp3", ".aif", ".aiff", ".au", ".snd")
FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Clips:
    """The length and the sample rate of all sounds, and what happens to files that do not fit.

    Args:
        seconds: The length of every item, in seconds. None: the length of the longest file.
        longest: The longest file, in seconds, if `seconds` is None.
        longer: Whether a file longer than `seconds` is an error or is cut.
        unreadable: Whether a damaged file is an error, or is skipped and counted.
        sample_rate: The sample rate of all items, in Hz; files of another rate are converted.
    """

    seconds: float | None = None
    longest: float = 30.0
    longer: Literal["error", "cut"] = "error"
    unreadable: Literal["error", "skip"] = "error"
    sample_rate: int = 16_000


@dataclass(frozen=True)
class Found:
    """The sounds of a folder.

    Args:
        root: The folder.
        paths: The files of the sounds, in a fixed order.
        labels: (n,) int64, the class of each sound.
        given: (n,) the split that each sound's folder names. None: the folders name no splits.
        class_names: The names of the class folders, sorted.
        n_samples: Samples of every item.
        n_skipped: The number of damaged files that are left out.
        n_other: The number of files that are no sounds.
        shortest: Samples of the shortest sound.
    """

    root: Path
    paths: list[Path]
    labels: np.ndarray
    given: list[str] | None
    class_names: tuple[str, ...]
    n_samples: int
    n_skipped: int
    n_other: int
    shortest: int


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
    found = _find(path, storage.data, clips)
    shape = [1, features.n_mels, features.n_frames(found.n_samples)]
    if [len(found.class_names), *shape] != [n_classes, *input_shape]:
        raise UserError(
            f"{found.root} has {len(found.class_names)} classes and makes images {shape}, but the config says"
            f" {n_classes} and {list(input_shape)}: the folder has changed since the config was made."
        )
    values = _read_features(found, features, clips.sample_rate, storage.cache)
    parts = _split(found, rows)
    batches: dict[str, LabelledBatch] = {}
    for split, own in parts.items():
        batches[split] = LabelledBatch(values[torch.from_numpy(own)], torch.from_numpy(found.labels[own]))
    sizes = np.bincount(found.labels)
    counts = ", ".join(f"{name} {n}" for name, n in zip(found.class_names, sizes, strict=True))
    length = found.n_samples / clips.sample_rate
    shortest = found.shortest / clips.sample_rate
    about = [
        f"classes: {counts}",
        f"length: {length:.2f} s; shorter sounds (from {shortest:.2f} s) end in silence",
        "splits: " + ("as the folders train, val and test say" if found.given else type(rows).__name__),
    ]
    omissions = {"damaged files skipped": found.n_skipped, "files that are no sounds left out": found.n_other}
    notes = [f"{n} {words}" for words, n in omissions.items() if n]
    return _build(
        batches,
        "part" if found.n_skipped else "full",
        found.class_names,
        loading,
        order,
        note=", ".join(notes),
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
    found = _find(path, storage.data, clips)
    return {
        "n_classes": len(found.class_names),
        "input_shape": [1, features.n_mels, features.n_frames(found.n_samples)],
    }


def as_item(samples: Tensor, n_samples: int, features: LogMel) -> Tensor:
    """Return the log-mel image (n_mels, frames) of samples (n,), which are cut or followed by silence."""
    samples = samples[:n_samples]
    return features(torch.nn.functional.pad(samples, (0, n_samples - len(samples)))).T


def find_sounds(folder: Path) -> tuple[list[Path], int]:
    """Return the sound files below a folder, sorted, and the number of other files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    sounds = [file for file in files if file.suffix.lower() in SUFFIXES]
    return sounds, len(files) - len(sounds)


# -- which files --------------------------------------------------------------------------------------------------


def _find(path: str, data_dir: Path, clips: Clips) -> Found:
    given = Path(path).expanduser()
    candidates = [given] if given.is_absolute() else [given, data_dir / given]
    for root in candidates:
        if root.is_dir():
            files = tuple((str(file), file.stat().st_mtime_ns) for file in sorted(root.rglob("*")) if file.is_file())
            return _look(root, clips, files)
    names = " nor ".join(str(candidate.absolute()) for candidate in candidates)
    raise UserError(f"dataset.path: there is no folder {names}.")


class Entry(NamedTuple):
    """A sound file: its class, its path, and the split that its folder names ("" for none)."""

    label: str
    path: Path
    split: str


@functools.lru_cache(maxsize=2)
def _look(root: Path, clips: Clips, files: tuple[tuple[str, int], ...]) -> Found:
    """Find the sounds of a folder. `files` are its files with their times of change: other files are another call."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise UserError(f"{root} has no class folders: sounds belong in {root}/<class>/.")
    by_split = {folder: FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in FOLDERS}
    is_split = len(by_split) == len(folders)
    if is_split and set(by_split.values()) != set(SPLITS):
        raise UserError(
            f"{root} has the folders {', '.join(folder.name for folder in folders)}; train, val and test are needed."
        )
    entries: list[Entry] = []
    n_other = 0
    for split, name, folder in _list_class_folders(folders, by_split if is_split else None):
        sounds, others = find_sounds(folder)
        n_other += others
        if not sounds:
            raise UserError(f"{folder} has no sounds ({', '.join(SUFFIXES)}).")
        entries += [Entry(name, sound, split) for sound in sounds]
    names = tuple(sorted({entry.label for entry in entries}))
    if len(names) < 2:
        raise UserError(f"{root} has one class, {''.join(names)}: there is nothing to learn.")
    kept: list[Entry] = []
    lengths: list[int] = []
    n_skipped = 0
    for entry in entries:
        try:
            lengths.append(n_samples_of(entry.path, clips.sample_rate))
        except AudioFault as fault:
            if clips.unreadable == "error":
                raise UserError(f"{str(fault).rstrip('.')} (dataset.clips.unreadable=skip leaves it out).") from None
            n_skipped += 1
            continue
        kept.append(entry)
    if not kept:
        raise UserError(f"{root} has no readable sound.")
    numbers = {name: number for number, name in enumerate(names)}
    return Found(
        root=root,
        paths=[entry.path for entry in kept],
        labels=np.array([numbers[entry.label] for entry in kept], dtype=np.int64),
        given=[entry.split for entry in kept] if is_split else None,
        class_names=names,
        n_samples=_choose_length(kept, lengths, clips),
        n_skipped=n_skipped,
        n_other=n_other,
        shortest=min(lengths),
    )


def _list_class_folders(folders: Sequence[Path], by_split: dict[Path, str] | None) -> Iterator[tuple[str, str, Path]]:
    """Yield (split or "", class, folder) for every class folder."""
    for folder in folders:
        if by_split is None:
            yield "", folder.name, folder
            continue
        for own in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            yield by_split[folder], own.name, own


def _choose_length(entries: Sequence[Entry], lengths: Sequence[int], clips: Clips) -> int:
    """Return the samples of every item. Raise a UserError for a sound that is too long."""
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    seconds = lengths[longest] / clips.sample_rate
    name = entries[longest].path
    if clips.seconds is None:
        if seconds > clips.longest:
            raise UserError(
                f"{name} lasts {seconds:.1f} s, more than dataset.clips.longest={clips.longest:g}. Set"
                " dataset.clips.seconds to the length of every item, and dataset.clips.longer=cut to cut longer sounds."
            )
        return lengths[longest]
    if clips.seconds <= 0:
        raise ValueError(f"clips.seconds {clips.seconds} is not more than 0")
    wanted = max(round(clips.seconds * clips.sample_rate), 1)
    if lengths[longest] > wanted and clips.longer == "error":
        raise UserError(
            f"{name} lasts {seconds:.2f} s, more than dataset.clips.seconds={clips.seconds:g}: raise it, or set"
            " dataset.clips.longer=cut."
        )
    return wanted


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


def _read_features(found: Found, settings: LogMel, sample_rate: int, cache_dir: Path) -> Tensor:
    """Return the features (n, 1, n_mels, frames) of all sounds, computed once and kept in the cache."""
    names: list[list[str | int]] = []
    for path in found.paths:
        about = path.stat()
        names.append([str(path.relative_to(found.root)), about.st_size, about.st_mtime_ns])
    key = key_of(settings.to_plain(), sample_rate, found.n_samples, names)

    def fill(writer: Writer) -> None:
        shape = (len(found.paths), 1, settings.n_mels, settings.n_frames(found.n_samples))
        values = writer.array("features", shape, np.float32)
        for i, path in enumerate(show_progress(found.paths, len(found.paths), "log-mel features")):
            with torch.no_grad():
                values[i, 0] = as_item(read_any(path, sample_rate), found.n_samples, settings).numpy()

    return torch.from_numpy(load_or_fill(cache_dir, "audio_folder", key, fill).arrays["features"])


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
