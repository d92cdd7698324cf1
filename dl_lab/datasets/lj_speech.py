"""LJ Speech 1.1: 13,100 clips of one speaker reading seven non-fiction books, 23.9 hours (K. Ito, L. Johnson, 2017).

Layout: LJSpeech-1.1/metadata.csv with the fields name|transcript|normalised transcript, no header and no quoting;
LJSpeech-1.1/wavs/<name>.wav, mono 16 bit PCM, 22,050 Hz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dl_lab.datasets import tone_speech
from dl_lab.datasets.audio import AudioFault, LogMel, read_wav
from dl_lab.datasets.batches import Order, Residence, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.characters import SYMBOLS, encode_all
from dl_lab.datasets.feature_cache import cached_features
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.ragged_column import RaggedColumn
from dl_lab.types import Dataset, SpeechBatch, UserError

N_CLIPS = 13_100
SAMPLE_RATE = 22_050
SPLITS = ("train", "val", "test")
Fault = Literal["no_audio", "no_row", "no_text", "sample_rate", "damaged"]
WORDS = {
    "no_audio": "without a recording",
    "no_row": "without a row in metadata.csv",
    "no_text": "without a transcript",
    "sample_rate": "of another sample rate",
    "damaged": "that cannot be read",
}


@dataclass(frozen=True)
class Clip:
    """One recording to listen to: its name, its transcript, and where its samples are."""

    name: str
    text: str
    source: Path | np.ndarray

    def samples(self) -> np.ndarray:
        """(n,) float32 in [-1, 1] at 22,050 Hz."""
        return read_wav(self.source) if isinstance(self.source, Path) else self.source


def lj_speech(
    data_dir: str,
    cache_dir: str,
    files: Sequence[Mapping[str, Any]],
    n_symbols: int,
    text_length: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    mel_sample_rate: int,
    source: Literal["real", "generated"] = "real",
    pad_frames: int | None = None,
    fractions: Sequence[float] = (0.75, 0.05),
    n_train: int | None = None,
    n_val: int | None = None,
    n_test: int | None = None,
    skip: Sequence[Fault] = (),
    n_generated: int = 512,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Clips as SpeechBatch, their features computed once into cache_dir.

    text_length: of the tokens, START and STOP among them; longer transcripts are cut. pad_frames: every clip is padded
    or cut to so many frames (the course: 2,754); null: each batch to its longest clip. fractions: the shares of
    training and validation of the clips in the order of metadata.csv, test is the rest: of all 13,100 clips the
    course's 9,825 / 655 / 2,620. n_train, n_val, n_test: the first so many of each split. skip: the faults whose clips
    are left out and counted in the note; any other fault is an error that names the clip. workers: processes that
    gather batches when the features do not fit on the device.

    Raises UserError for a fault, AudioFault among them; ValueError for splits without a clip.
    """
    if n_symbols != len(SYMBOLS):
        raise ValueError(f"n_symbols {n_symbols} is not the number of symbols, {len(SYMBOLS)}")
    if pad_frames is not None and pad_frames < 1:
        raise ValueError(f"pad_frames {pad_frames} is not at least 1")
    settings = LogMel(n_fft, hop_length, n_mels, mel_sample_rate)
    if source == "generated":
        chosen, label, note = generated_clips(n_generated), "generated", ""
        sounds = {split: _computed(clips, settings) for split, clips in chosen.items()}
        content = [sound.values for sound in sounds.values()]
    else:
        clips, n_skipped = read_metadata(ensure(data_files(files)[0], Path(data_dir)), skip)
        paths = [clip.source for clip in clips if isinstance(clip.source, Path)]
        try:
            features = cached_features(paths, settings, SAMPLE_RATE, Path(cache_dir), skip)
        except AudioFault as fault:
            raise UserError(_skippable(str(fault).rstrip("."), fault.kind)) from None
        n_skipped += Counter(fault.kind for fault in features.faults.values())
        places = {clip.name: i for i, clip in enumerate(clips) if i not in features.faults}
        good = [clip for clip in clips if clip.name in places]
        chosen = split_clips(good, fractions, (n_train, n_val, n_test))
        label = "full" if sum(map(len, chosen.values())) == N_CLIPS and not n_skipped else "part"
        note = _note(chosen, n_skipped)
        whole = RaggedColumn(features.values, features.starts, features.n_frames)
        sounds = {
            split: whole.select(torch.tensor([places[clip.name] for clip in own])) for split, own in chosen.items()
        }
        content = [torch.tensor(list(features.key.encode()))]
    columns = {split: _columns(sounds[split], own, text_length, pad_frames) for split, own in chosen.items()}
    for split in columns.values():
        content += split[1:]
    splits: dict[str, Any] = {
        split: TensorSplit(column, _unchanged, order, residence, workers) for split, column in columns.items()
    }
    return Dataset(
        "lj_speech",
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint(*content),
        note=note,
        extras={"clips": chosen, "sample_rate": SAMPLE_RATE, "hop_length": hop_length},
        preprocessing={"features": settings.to_plain(), "sample_rate": SAMPLE_RATE, "text_length": text_length}
        | {"pad_frames": pad_frames, "symbols": SYMBOLS},
    )


def _unchanged(batch: SpeechBatch) -> SpeechBatch:
    return batch


def _columns(sounds: RaggedColumn, clips: Sequence[Clip], text_length: int, pad_frames: int | None) -> SpeechBatch:
    n_frames = sounds.lengths if pad_frames is None else sounds.lengths.clamp(max=pad_frames)
    padded: Any = replace(sounds, pad_to=pad_frames)  # what a TensorSplit needs of a tensor
    return SpeechBatch(padded, n_frames, encode_all([clip.text for clip in clips], text_length))


def _computed(clips: Sequence[Clip], settings: LogMel) -> RaggedColumn:
    parts = [settings(torch.from_numpy(clip.samples())) for clip in clips]
    lengths = torch.tensor([len(part) for part in parts])
    return RaggedColumn(torch.cat(parts), lengths.cumsum(0) - lengths, lengths)


# -- the release --------------------------------------------------------------------------------------------------


def read_metadata(folder: Path, skip: Sequence[str]) -> tuple[list[Clip], Counter[str]]:
    """The clips in the order of metadata.csv with their normalised transcripts, and how many were skipped by kind.

    Raises UserError naming file and line for a row that is not as published, and for faults that `skip` does not name.
    """
    path, wavs = folder / "metadata.csv", folder / "wavs"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        there = {file.stem: file for file in sorted(wavs.iterdir()) if file.suffix == ".wav" and file.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder} cannot be read as LJ Speech: {error}.") from error
    clips, seen, skipped = [], set(), Counter[str]()
    for number, line in enumerate(lines, 1):
        fields = line.split("|")
        if len(fields) != 3:
            raise UserError(f"{path}, line {number}: {len(fields)} fields instead of 3 (name|text|normalised text).")
        name, text = fields[0], fields[2].strip()
        if name in seen:
            raise UserError(f"{path}, line {number}: {name} has a row already.")
        seen.add(name)
        if name not in there:
            _fault("no_audio", f"{path}, line {number}: there is no {wavs.name}/{name}.wav", skip)
            skipped["no_audio"] += 1
        elif not text:
            _fault("no_text", f"{path}, line {number}: {name} has an empty transcript", skip)
            skipped["no_text"] += 1
        else:
            clips.append(Clip(name, text, there[name]))
    for name in sorted(there.keys() - seen):
        _fault("no_row", f"{there[name]} has no row in {path.name}", skip)
        skipped["no_row"] += 1
    if not clips:
        raise UserError(f"{folder} has no clip that can be used.")
    return clips, skipped


def _fault(kind: str, message: str, skip: Sequence[str]) -> None:
    if kind not in skip:
        raise UserError(_skippable(message, kind))


def _skippable(message: str, kind: str) -> str:
    return f"{message} (dataset.skip=[{kind}] leaves such clips out)."


def split_clips(
    clips: Sequence[Clip], fractions: Sequence[float], limits: Sequence[int | None]
) -> dict[str, list[Clip]]:
    """Contiguous parts in the order given, the first so many of each. Raises ValueError for a split without a clip."""
    train, val = fractions
    if train <= 0 or val <= 0 or train + val >= 1:
        raise ValueError(f"fractions {train} and {val} leave nothing for a split")
    ends = [round(len(clips) * share) for share in (0.0, train, train + val, 1.0)]
    parts: dict[str, list[Clip]] = {}
    for split, start, end, limit in zip(SPLITS, ends[:-1], ends[1:], limits, strict=True):
        parts[split] = list(clips[start:end][:limit])
        if not parts[split]:
            raise ValueError(f"{len(clips)} clips leave none for {split} with fractions {list(fractions)}")
    return parts


def _note(parts: Mapping[str, Sequence[Clip]], skipped: Mapping[str, int]) -> str:
    sizes = [len(part) for part in parts.values()]
    if sum(sizes) == N_CLIPS:
        return ""
    words = [f"{sum(sizes):,} of {N_CLIPS:,} clips, in order {'/'.join(f'{size:,}' for size in sizes)}"]
    return ", ".join([*words, *(f"{n} {WORDS[kind]} skipped" for kind, n in skipped.items() if n)])


# -- toy speech ---------------------------------------------------------------------------------------------------


def generated_clips(n: int) -> dict[str, list[Clip]]:
    """Random words in tones: n clips for training, n / 8 (at least 4) each for validation and test."""
    sizes = {"train": n, "val": max(n // 8, 4), "test": max(n // 8, 4)}
    return {
        split: [
            Clip(f"{split}-{i:04}", text, tone_speech.spoken(text, seed=place * 1_000_003 + i))
            for i, text in enumerate(tone_speech.random_texts(size, seed=place))
        ]
        for place, (split, size) in enumerate(sizes.items())
    }
