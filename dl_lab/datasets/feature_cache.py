"""Log-mel features of many clips, computed once in parallel and kept in a file that is mapped into memory.

A cache is named by the feature settings and by each clip's name, size and time of change: another setting or another
recording is another cache. It appears whole or not at all, and processes that want the same one wait for the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from dl_lab.datasets.audio import AudioFault, LogMel, inspect_wav, read_wav
from dl_lab.run import write_atomic
from dl_lab.types import UserError


@dataclass(frozen=True)
class Features:
    """values (rows, n_mels) of all good clips end to end; clip i has n_frames[i] rows from starts[i] (both (clips,)
    int64). faults: number of a clip -> why it has none; it has 0 frames. key: names settings and content."""

    values: Tensor
    starts: Tensor
    n_frames: Tensor
    faults: dict[int, AudioFault]
    key: str


def cached_features(
    paths: Sequence[Path], settings: LogMel, sample_rate: int, cache_dir: Path, skip: Sequence[str], workers: int = 0
) -> Features:
    """The features of every clip, in the order given. workers: threads that compute them, 0 for one a core.

    Raises the first clip's AudioFault of a kind that `skip` does not name; UserError where the cache cannot be written.
    """
    key = _key(paths, settings, sample_rate)
    folder = cache_dir.expanduser() / f"log_mel_{key}"
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                if not folder.is_dir():  # another process may have made it while we waited
                    _write(folder, paths, settings, sample_rate, skip, workers)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"Cannot write the cache {folder}: {error.strerror or error}.") from error
    features = _read(folder, key)
    for fault in features.faults.values():
        if fault.kind not in skip:
            raise fault
    return features


def _key(paths: Sequence[Path], settings: LogMel, sample_rate: int) -> str:
    digest = hashlib.sha256(json.dumps([settings.to_plain(), sample_rate], sort_keys=True).encode())
    for path in paths:
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _read(folder: Path, key: str) -> Features:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        values = np.load(folder / "features.npy", mmap_mode="c")  # never written to, but torch warns of read-only
    except (OSError, ValueError) as error:
        raise UserError(f"The cache {folder} cannot be read ({error}): delete it, it is made again.") from error
    n_frames = torch.tensor(index["n_frames"], dtype=torch.int64)
    faults = {int(i): AudioFault(kind, message) for i, (kind, message) in index["faults"].items()}
    return Features(torch.from_numpy(values), n_frames.cumsum(0) - n_frames, n_frames, faults, key)


def _write(
    folder: Path, paths: Sequence[Path], settings: LogMel, sample_rate: int, skip: Sequence[str], workers: int
) -> None:
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: we hold the lock
    temporary.mkdir()
    try:
        n_frames, faults = [], {}
        for i, path in enumerate(paths):
            try:
                n_frames.append(settings.n_frames(inspect_wav(path, sample_rate)))
            except AudioFault as fault:
                if fault.kind not in skip:
                    raise
                n_frames.append(0)
                faults[i] = (fault.kind, str(fault))
        _compute(temporary / "features.npy", paths, n_frames, settings, workers)
        write_atomic(temporary / "index.json", json.dumps({"n_frames": n_frames, "faults": faults}))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compute(file: Path, paths: Sequence[Path], n_frames: Sequence[int], settings: LogMel, workers: int) -> None:
    values = np.lib.format.open_memmap(file, "w+", np.float32, (max(sum(n_frames), 1), settings.n_mels))
    ends = np.cumsum(n_frames)
    settings(torch.zeros(1))  # the windows and filters are made once, before the threads share them

    def fill(i: int) -> None:
        with torch.no_grad():
            values[ends[i] - n_frames[i] : ends[i]] = settings(torch.from_numpy(read_wav(paths[i]))).numpy()

    good = [i for i, n in enumerate(n_frames) if n]
    threads = torch.get_num_threads()
    try:
        # Reading and the transforms let other threads run; each computes with one thread of its own.
        with ThreadPoolExecutor(workers or cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in _shown(pool.map(fill, good), len(good)):
                pass
    finally:
        torch.set_num_threads(threads)
    values.flush()


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shown(done: Iterator[None], total: int) -> Iterator[None]:
    """A progress bar on a terminal, silence elsewhere."""
    with _bar(total) as advance:
        for item in done:
            advance()
            yield item


@contextmanager
def _bar(total: int) -> Iterator:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("log-mel features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
