"""Which sounds a folder has: one folder for each class, and their lengths, read from the headers of the files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dl_lab.datasets.rows import SPLITS
from dl_lab.datasets.speech.audio import AudioFault, Sound, inspect_any
from dl_lab.types import UserError

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
        n_mixed: The number of sounds of several channels.
        other_rates: The sample rates that are converted, in Hz, sorted.
        n_converted: The number of sounds of these rates.
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
    n_mixed: int
    other_rates: Sequence[int]
    n_converted: int


def find_sounds(folder: Path) -> tuple[list[Path], int]:
    """Return the sound files below a folder, sorted, and the number of other files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    sounds = [file for file in files if file.suffix.lower() in SUFFIXES]
    return sounds, len(files) - len(sounds)


def find_classes(path: str, data_dir: Path, clips: Clips) -> Found:
    """Find the sounds of a folder, which is relative to the current folder or to the data folder.

    Raises:
        UserError: There is no such folder, or its sounds cannot be used; the message names the file.
    """
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


def skippable(fault: AudioFault) -> UserError:
    """Return the error for a damaged file, with the setting that leaves it out."""
    return UserError(f"{str(fault).rstrip('.')} (dataset.clips.unreadable=skip leaves it out).")


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
    headers: list[Sound] = []
    n_skipped = 0
    for entry in entries:
        try:
            headers.append(inspect_any(entry.path, clips.sample_rate))
        except AudioFault as fault:
            if clips.unreadable == "error":
                raise skippable(fault) from None
            n_skipped += 1
            continue
        kept.append(entry)
    if not kept:
        raise UserError(f"{root} has no readable sound.")
    numbers = {name: number for number, name in enumerate(names)}
    lengths = [sound.n_samples for sound in headers]
    other_rates = [sound.rate for sound in headers if sound.rate != clips.sample_rate]
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
        n_mixed=sum(sound.channels > 1 for sound in headers),
        other_rates=sorted(set(other_rates)),
        n_converted=len(other_rates),
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
