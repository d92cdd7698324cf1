"""Damaged files of every format: 200 cuts and flipped bytes each give values or one sentence, never a traceback.

Images and archives of images are in test_fuzz.py.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import soundfile

from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.tables import read_series
from dl_lab.datasets.sets import ag_news, imdb, lj_speech
from dl_lab.datasets.speech.audio import inspect_any, inspect_wav, read_any
from dl_lab.datasets.tables.reading import Format, read_table
from dl_lab.datasets.text.glove import read_vectors
from dl_lab.types import UserError

N_CASES = 200
RATE = 8_000


def damage(raw: bytes, seed: int) -> bytes:
    """A cut, or a few bytes changed: more often near the start, where headers are."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        return raw[: int(rng.integers(0, len(raw)))]
    changed = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, min(len(raw), 64) if seed % 4 else len(raw)))
        changed[place] = int(rng.integers(0, 256))
    return bytes(changed)


def csv_of_series() -> bytes:
    rows = [f"2020-01-{day:02} 00:00:00,{day}.5,{day}" for day in range(1, 29)]
    return "\n".join(["timestamp,a,b", *rows, ""]).encode()


def csv_of_table() -> bytes:
    return "".join(["name,a,b\n", *(f'"x, {i}",{i}.5,{i % 3}\n' for i in range(30))]).encode()


def parquet() -> bytes:
    file = io.BytesIO()
    pandas.DataFrame({"name": ["x", None] * 15, "a": np.arange(30) / 2, "b": np.arange(30) % 3}).to_parquet(file)
    return file.getvalue()


def vectors() -> bytes:
    return "".join(f"wörd{i} {i} 0.5 -1e-3\n" for i in range(30)).encode()


def zipped_vectors() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("glove.3d.txt", vectors())
    return file.getvalue()


def news() -> bytes:
    return "".join(f'"{i % 4 + 1}","title {i}","a ""quoted"" text, {i}"\n' for i in range(24)).encode()


def reviews() -> bytes:
    """Two reviews of each class in each half."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for half in ("train", "test"):
            for label in ("neg", "pos"):
                for i in range(2):
                    text = f"a {label} review é {i}".encode()
                    member = tarfile.TarInfo(f"aclImdb/{half}/{label}/{i}_7.txt")
                    member.size = len(text)
                    packed.addfile(member, io.BytesIO(text))
    return file.getvalue()


def sound(container: str, subtype: str) -> Callable[[], bytes]:
    def write() -> bytes:
        file = io.BytesIO()
        wave = 0.3 * np.sin(np.arange(2000) / 5)
        soundfile.write(file, wave, RATE, format=container, subtype=subtype)
        return file.getvalue()

    return write


def metadata() -> bytes:
    return "".join(f"LJ{i:03}|Text {i}|Text number {i}é\n" for i in range(20)).encode()


def read_metadata(path: Path) -> Any:
    (path.parent / "wavs").mkdir(exist_ok=True)
    for i in range(20):
        (path.parent / "wavs" / f"LJ{i:03}.wav").touch()
    (path.parent / "metadata.csv").write_bytes(path.read_bytes())
    return lj_speech.read_metadata(path.parent, ("no_audio", "no_row", "no_text"))


def read_sound(path: Path) -> Any:
    samples = read_any(path, RATE)
    assert len(samples) > 0
    return samples


SERIES = Layout(columns=("a", "b"), step_minutes=1440)
FORMATS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], Any]]] = {
    "a series": ("x.csv", csv_of_series, lambda path: read_series(path, SERIES)),
    "a table": ("x.csv", csv_of_table, lambda path: read_table(path, Format())),
    "a Parquet table": ("x.parquet", parquet, lambda path: read_table(path, Format())),
    "word vectors": ("x.txt", vectors, lambda path: read_vectors(path, 3)),
    "zipped word vectors": ("x.zip", zipped_vectors, lambda path: read_vectors(path, 3)),
    "AG News": ("x.csv", news, ag_news.read_rows),
    "an IMDB archive": ("x.tar.gz", reviews, lambda path: imdb.read_corpus(path, clean_html=True)),
    "metadata of LJ Speech": ("x.csv", metadata, read_metadata),
    "WAV": ("x.wav", sound("WAV", "PCM_16"), read_sound),
    "WAV of floats": ("x.wav", sound("WAV", "FLOAT"), read_sound),
    "the header of a WAV": ("x.wav", sound("WAV", "PCM_16"), lambda path: inspect_wav(path, RATE)),
    "AIFF": ("x.aiff", sound("AIFF", "PCM_16"), read_sound),
    "AU": ("x.au", sound("AU", "PCM_16"), read_sound),
    "FLAC": ("x.flac", sound("FLAC", "PCM_16"), read_sound),
    "Ogg": ("x.ogg", sound("OGG", "VORBIS"), read_sound),
    "MP3": ("x.mp3", sound("MP3", "MPEG_LAYER_III"), read_sound),
    "the length of an MP3": ("x.mp3", sound("MP3", "MPEG_LAYER_III"), lambda path: inspect_any(path, RATE).n_samples),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_gives_values_or_one_sentence(kind, tmp_path, monkeypatch):
    name, make, read = FORMATS[kind]
    monkeypatch.setattr(imdb, "SIZE", 4)
    raw = make()
    path = tmp_path / name
    path.write_bytes(raw)
    read(path)  # the whole file is fine
    messages: list[str] = []
    for seed in range(N_CASES):
        path.write_bytes(damage(raw, seed))
        try:
            read(path)
        except UserError as error:
            messages.append(str(error))
        except BaseException as error:
            pytest.fail(f"{kind}, case {seed}: {type(error).__name__}: {error}")
    assert not [message for message in messages if str(tmp_path) not in message or "\n" in message]
    assert len(messages) > N_CASES / 10
