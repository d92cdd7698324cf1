"""LJ Speech 1.1: 13,100 clips of one speaker reading seven non-fiction books, 23.9 hours (K. Ito, L. Johnson, 2017).

Layout: LJSpeech-1.1/metadata.csv with the fields name|transcript|normalised transcript, no header and no quoting;
LJSpeech-1.1/wavs/<name>.wav, mono 16 bit PCM, 22,050 Hz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from dl_lab.datasets.batches import Loading, Order, fingerprint, shuffled
from dl_lab.datasets.dataset import Dataset, hold_tensors
from dl_lab.datasets.delimited import parse_rows, read_text
from dl_lab.datasets.ragged_column import RaggedColumn
from dl_lab.datasets.speech.audio import AudioFault, LogMel
from dl_lab.datasets.speech.clips import Clip, Limits, Parts, SpeechContent, check_symbols, generate_clips, split_clips
from dl_lab.datasets.speech.features import Features, read_features
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.characters import SYMBOLS, encode_all
from dl_lab.types import SpeechBatch, UserError

N_CLIPS = 13_100
SAMPLE_RATE = 22_050
SPLITS = ("train", "val", "test")
FIELDS = ("name", "text", "normalised text")
LIKELY_HEADERS = ("id", "name", "file", "filename", "clip", "path")
Fault = Literal["no_audio", "no_row", "no_text", "sample_rate", "damaged", "too_long", "too_short"]
WORDS = {
    "no_audio": "without a recording",
    "no_row": "without a row in metadata.csv",
    "no_text": "without a transcript",
    "sample_rate": "of another sample rate",
    "damaged": "that cannot be read",
    "too_long": "that are too long",
    "too_short": "that are too short for their transcripts",
}


def lj_speech(
    storage: Storage,
    features: LogMel,
    n_symbols: int,
    text_length: int,
    loading: Loading,
    parts: Parts,
    limits: Limits,
    source: Literal["real", "generated"] = "real",
    pad_frames: int | None = None,
    skip: Sequence[Fault] = (),
    encoding: str = "utf-8",
    n_generated: int = 512,
    order: Order = shuffled,
) -> Dataset:
    """Return clips as SpeechBatch. Their features are computed once and kept in the cache.

    Args:
        storage: Where the archive of the release lies, which unpacks to LJSpeech-1.1. Its cache keeps the features.
        features: How features are computed.
        n_symbols: The number of symbols of the alphabet: 35.
        text_length: The most tokens of a transcript, START and STOP included; longer transcripts are cut.
        loading: Where the tensors reside.
        parts: How the clips become train, val and test.
        limits: The limits of lengths, and of letters without a symbol.
        source: "real", or "generated" for a tone for each letter. The generated data set is named tone_speech.
        pad_frames: The number of frames that every clip is padded or cut to (the course: 2,754). None pads each batch
            to its longest clip.
        skip: The faults whose clips are left out and counted in the note. Any other fault is an error that names the
            clip.
        encoding: The encoding of metadata.csv.
        n_generated: Training clips of the generated data set.
        order: The order of a training epoch.

    Raises:
        UserError: A clip has a fault that `skip` does not name.
        ValueError: A setting makes no sense, or a split has no clip.
    """
    if n_symbols != len(SYMBOLS):
        raise ValueError(f"n_symbols {n_symbols} is not the number of symbols, {len(SYMBOLS)}")
    if pad_frames is not None and pad_frames < 1:
        raise ValueError(f"pad_frames {pad_frames} is not at least 1")
    if source == "generated":
        chosen = generate_clips(n_generated)
        name = "tone_speech"
        label = "generated"
        note = ""
        sounds = {split: _compute(clips, features) for split, clips in chosen.items()}
        content = [sound.values for sound in sounds.values()]
    else:
        folder = storage.ensure(storage.entries()[0])
        clips, n_skipped = read_metadata(folder, skip, encoding)
        found = _read_features(clips, features, storage.cache, skip)
        n_skipped += Counter(fault.kind for fault in found.faults.values())
        good: list[int] = []
        for i, clip in enumerate(clips):
            n_frames = int(found.n_frames[i])
            if i in found.faults:
                continue
            kind = limits.find_fault(n_frames, SAMPLE_RATE / features.hop_length, clip.text, text_length, pad_frames)
            if kind is None:
                good.append(i)
                continue
            seconds = n_frames * features.hop_length / SAMPLE_RATE
            _skip_or_raise(kind, _describe_length(kind, clip, seconds, limits), skip)
            n_skipped[kind] += 1
        places = {clips[i].name: i for i in good}
        chosen = split_clips([clips[i] for i in good], parts.fractions, (parts.n_train, parts.n_val, parts.n_test))
        unknown = check_symbols(chosen, limits.max_unknown)
        name = "lj_speech"
        label = "full" if sum(map(len, chosen.values())) == N_CLIPS and not n_skipped else "part"
        note = ", ".join(filter(None, [_describe_selection(chosen, n_skipped), unknown]))
        whole = RaggedColumn(found.values, found.starts, found.n_frames)
        sounds: dict[str, RaggedColumn] = {}
        for split, own in chosen.items():
            sounds[split] = whole.select(torch.tensor([places[clip.name] for clip in own]))
        content = [torch.tensor(list(found.key.encode()))]
    columns: dict[str, SpeechBatch] = {}
    for split, own in chosen.items():
        columns[split] = _build_columns(sounds[split], own, text_length, pad_frames)
        content += columns[split][1:]
    splits = hold_tensors(columns, loading, order)
    return Dataset(
        name,
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint(*content),
        note=note,
        content=SpeechContent(chosen, SAMPLE_RATE, features.hop_length),
        preprocessing={
            "features": features.to_plain(),
            "sample_rate": SAMPLE_RATE,
            "text_length": text_length,
            "pad_frames": pad_frames,
            "symbols": SYMBOLS,
        },
    )


def _read_features(clips: Sequence[Clip], settings: LogMel, cache_dir: Path, skip: Sequence[str]) -> Features:
    paths = [clip.source for clip in clips if isinstance(clip.source, Path)]
    try:
        return read_features(paths, settings, SAMPLE_RATE, cache_dir, skip)
    except AudioFault as fault:
        raise UserError(_advise_skipping(str(fault).rstrip("."), fault.kind)) from None


def _describe_length(kind: str, clip: Clip, seconds: float, limits: Limits) -> str:
    if kind == "too_long":
        return (
            f"{clip.source} lasts {seconds:.1f} s, more than dataset.limits.longest={limits.longest:g}; raise the limit"
            " together with model.encoder.max_frames, or cut all clips with dataset.pad_frames"
        )
    return (
        f"{clip.source} lasts {seconds:.2f} s, too short for the {len(clip.text)} characters of its transcript"
        " (dataset.limits.frames_per_symbol=null allows it where the model is not trained with CTC)"
    )


def _build_columns(
    sounds: RaggedColumn, clips: Sequence[Clip], text_length: int, pad_frames: int | None
) -> SpeechBatch:
    n_frames = sounds.lengths if pad_frames is None else sounds.lengths.clamp(max=pad_frames)
    padded: Any = replace(sounds, pad_to=pad_frames)  # a RaggedColumn has the methods that a TensorSplit calls
    return SpeechBatch(padded, n_frames, encode_all([clip.text for clip in clips], text_length))


def _compute(clips: Sequence[Clip], settings: LogMel) -> RaggedColumn:
    parts = [settings(torch.from_numpy(clip.samples())) for clip in clips]
    lengths = torch.tensor([len(part) for part in parts])
    return RaggedColumn(torch.cat(parts), lengths.cumsum(0) - lengths, lengths)


# -- the release --------------------------------------------------------------------------------------------------


def read_metadata(folder: Path, skip: Sequence[str], encoding: str = "utf-8") -> tuple[list[Clip], Counter[str]]:
    """Read metadata.csv.

    Args:
        folder: The folder LJSpeech-1.1.
        skip: The faults whose clips are left out.
        encoding: The encoding of metadata.csv.

    Returns:
        The clips in the order of the file, with their normalised transcripts, and the number of skipped clips of each
        fault.

    Raises:
        UserError: A row is not as published, or has a fault that `skip` does not name; the message names file and line.
    """
    path = folder / "metadata.csv"
    wavs = folder / "wavs"
    text = read_text(path, encoding)
    try:
        recordings = {file.stem: file for file in sorted(wavs.iterdir()) if file.suffix == ".wav" and file.is_file()}
    except OSError as error:
        raise UserError(f"{wavs} cannot be read: {error.strerror}.") from error
    clips: list[Clip] = []
    seen: set[str] = set()
    skipped = Counter[str]()
    for row in parse_rows(text, str(path), "|", quotes=False):
        where = f"{path}, line {row.line}"
        if len(row.cells) != len(FIELDS):
            raise UserError(f"{where}: {len(row.cells)} fields instead of 3 ({'|'.join(FIELDS)}).")
        name = row.cells[0].strip()
        transcript = row.cells[2].strip()
        if row.line == 1 and name not in recordings and name.lower() in LIKELY_HEADERS:
            raise UserError(f"{where}: {row.cells} is a header. metadata.csv of LJ Speech has none: delete this line.")
        if name in seen:
            raise UserError(f"{where}: {name} already has a row.")
        seen.add(name)
        if name not in recordings:
            _skip_or_raise("no_audio", f"{where}: there is no {wavs.name}/{name}.wav", skip)
            skipped["no_audio"] += 1
        elif not transcript:
            _skip_or_raise("no_text", f"{where}: {name} has an empty transcript", skip)
            skipped["no_text"] += 1
        else:
            clips.append(Clip(name, transcript, recordings[name]))
    for name in sorted(recordings.keys() - seen):
        _skip_or_raise("no_row", f"{recordings[name]} has no row in {path.name}", skip)
        skipped["no_row"] += 1
    if not clips:
        raise UserError(f"{folder} has no usable clip.")
    return clips, skipped


def _skip_or_raise(kind: str, message: str, skip: Sequence[str]) -> None:
    if kind not in skip:
        raise UserError(_advise_skipping(message, kind))


def _advise_skipping(message: str, kind: str) -> str:
    return f"{message} (dataset.skip=[{kind}] leaves such clips out)."


def _describe_selection(parts: Mapping[str, Sequence[Clip]], skipped: Mapping[str, int]) -> str:
    """Return words for the note about the clips that are used and those that are skipped; "" for all clips."""
    sizes = [len(part) for part in parts.values()]
    if sum(sizes) == N_CLIPS:
        return ""
    words = [f"{sum(sizes):,} of {N_CLIPS:,} clips, in order {'/'.join(f'{size:,}' for size in sizes)}"]
    words += [f"{n} {WORDS[kind]} skipped" for kind, n in skipped.items() if n]
    return ", ".join(words)
