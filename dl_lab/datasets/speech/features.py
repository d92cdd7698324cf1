"""Log-mel features of many clips, computed once in parallel and kept in the cache, which is mapped into memory.

The key of a cache entry depends on the settings of the features and on each clip's name, size and time of change.
Another setting or another recording makes another entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.progress import show_progress
from dl_lab.datasets.speech.audio import AudioFault, LogMel, inspect_wav, read_wav
from dl_lab.runs.machine import cores


@dataclass(frozen=True)
class Features:
    """The features of many clips, end to end.

    Attributes:
        values: (rows, n_mels) of all clips without a fault.
        starts: (clips,) int64, the first row of each clip.
        n_frames: (clips,) int64, the number of rows of each clip; 0 for a clip with a fault.
        faults: The number of a clip -> the fault.
        key: The key of the cache entry, which names settings and content.
    """

    values: Tensor
    starts: Tensor
    n_frames: Tensor
    faults: dict[int, AudioFault]
    key: str


def read_features(
    paths: Sequence[Path], settings: LogMel, sample_rate: int, cache_dir: Path, skip: Sequence[str], workers: int = 0
) -> Features:
    """Compute the features of clips, or read them from the cache.

    Args:
        paths: The WAV files.
        settings: How features are computed.
        sample_rate: The sample rate that every file must have, in Hz.
        cache_dir: The folder of the cache.
        skip: Kinds of faults that leave a clip out instead of raising an error.
        workers: Threads that compute features; 0 for one on each core.

    Returns:
        The features of every clip, in the order of the files.

    Raises:
        AudioFault: A clip has a fault of a kind that `skip` does not name.
        UserError: The cache cannot be written.
    """

    def fill(writer: Writer) -> None:
        n_frames: list[int] = []
        faults: dict[str, tuple[str, str]] = {}
        for i, path in enumerate(paths):
            try:
                n_frames.append(settings.n_frames(inspect_wav(path, sample_rate)))
            except AudioFault as fault:
                if fault.kind not in skip:
                    raise
                n_frames.append(0)
                faults[str(i)] = (fault.kind, str(fault).removeprefix(str(path)))  # the folder may move later
        values = writer.array("features", (sum(n_frames), settings.n_mels), np.float32)
        _compute(values, paths, n_frames, settings, workers)
        writer.facts = {"n_frames": n_frames, "faults": faults}

    key = _make_key(paths, settings, sample_rate)
    entry = load_or_fill(cache_dir, "log_mel", key, fill)
    faults: dict[int, AudioFault] = {}
    for number, (kind, reason) in entry.facts["faults"].items():
        faults[int(number)] = AudioFault(kind, f"{paths[int(number)]}{reason}")
    for fault in faults.values():
        if fault.kind not in skip:
            raise fault
    n_frames = torch.tensor(entry.facts["n_frames"], dtype=torch.int64)
    values = torch.from_numpy(entry.arrays["features"])
    return Features(values, n_frames.cumsum(0) - n_frames, n_frames, faults, key)


def _make_key(paths: Sequence[Path], settings: LogMel, sample_rate: int) -> str:
    clips: list[list[str | int]] = []
    for path in paths:
        about = path.stat()
        clips.append([path.name, about.st_size, about.st_mtime_ns])
    return key_of(settings.to_plain(), sample_rate, clips)


def _compute(
    values: np.ndarray, paths: Sequence[Path], n_frames: Sequence[int], settings: LogMel, workers: int
) -> None:
    """Fill `values` (rows, n_mels) with the features of every clip that has frames."""
    ends = np.cumsum(n_frames)
    settings(torch.zeros(1))  # makes windows and filters once, before the threads share them

    def fill(i: int) -> None:
        samples = torch.from_numpy(read_wav(paths[i]))
        with torch.no_grad():
            values[ends[i] - n_frames[i] : ends[i]] = settings(samples).numpy()

    good = [i for i, n in enumerate(n_frames) if n]
    threads = torch.get_num_threads()
    try:
        # Reading and the transforms let other threads run; each computes with one thread of its own.
        with ThreadPoolExecutor(workers or cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in show_progress(pool.map(fill, good), len(good), "log-mel features"):
                pass
    finally:
        torch.set_num_threads(threads)
