"""GloVe word vectors (Pennington, Socher, Manning, EMNLP 2014), as a file of text or inside the release's archive.

One word a line, then its numbers, parted by single blanks. Read once, then kept as a tensor under the cache folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.files import data_files, ensure
from dl_lab.run import write_atomic
from dl_lab.types import UserError

RELEASED = 400_000  # words of the 6B release
CHUNK = 10_000  # lines whose numbers are read together


@dataclass(frozen=True)
class WordVectors:
    """words, and a vector for each: vectors (n_words, dim) float32. label: how much of the release they are."""

    words: tuple[str, ...]
    vectors: Tensor
    label: Literal["full", "part", "generated"]

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def of(
        self, words: Sequence[str], missing: Literal["normal", "zeros"] = "normal", std: float = 0.6
    ) -> tuple[Tensor, Tensor]:
        """Vectors (n, dim) of other words, and which were found (n,) bool; those not found are drawn from
        N(0, std²), by torch's own stream, or zeros."""
        found = torch.tensor([word in self.numbers for word in words], dtype=torch.bool)
        numbers = torch.tensor([self.numbers.get(word, 0) for word in words], dtype=torch.int64)
        shape = len(words), self.vectors.shape[1]
        other = torch.randn(shape) * std if missing == "normal" else torch.zeros(shape)
        return torch.where(found[:, None], self.vectors[numbers], other), found


def glove(
    dim: int,
    data_dir: str,
    cache_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1500,
) -> WordVectors:
    """The vectors of `dim` numbers. files: the text file, then the archive that holds it; the first that is there is
    read, and the archive fetched where none is. "full" with all 400,000 words of the release.

    source generated: random vectors of the words of generated texts. Raises UserError, naming the line, for a line
    that is not UTF-8 or not a word and `dim` finite numbers, and for a word that comes twice.
    """
    if source == "generated":
        words = ("man", "woman", "king", "queen", *(f"word{i}" for i in range(n_generated)))
        vectors = torch.randn(len(words), dim, generator=torch.Generator().manual_seed(0))
        return WordVectors(words, vectors, "generated")
    entries, folder = data_files(files), Path(data_dir).expanduser()
    there = [file for file in entries if file.locate(folder).exists()]
    path = there[0].locate(folder) if there else ensure(entries[-1], folder)
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    cached = Path(cache_dir).expanduser() / f"glove_{content[:16]}_{dim}.safetensors"
    if not cached.exists():
        _write(cached, *read_vectors(path, dim))
    words, vectors = _read(cached)
    return WordVectors(words, vectors, "full" if len(words) == RELEASED else "part")


def read_vectors(path: Path, dim: int) -> tuple[tuple[str, ...], Tensor]:
    """Words and vectors (n, dim) of a text file, or of the member `*.{dim}d.txt` of a zip archive."""
    words: dict[str, None] = {}
    numbers: list[bytes] = []
    with _opened(path, dim) as (name, file):
        for line, raw in enumerate(file, 1):
            word, _, rest = raw.rstrip(b"\r\n").partition(b" ")
            where = f"{name}, line {line}"
            if rest.count(b" ") != dim - 1 or not rest:
                n_found = len(rest.split())
                raise UserError(f"{where}: {n_found} numbers after the word instead of {dim}.")
            try:
                text = word.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: byte {error.start + 1} is not valid UTF-8.") from error
            if not text or text in words:
                raise UserError(f"{where}: " + (f"the word {text!r} comes a second time." if text else "no word."))
            words[text] = None
            numbers.append(rest)
    if not words:
        raise UserError(f"{path} is empty.")
    vectors = np.empty((len(words), dim), dtype=np.float32)
    for start in range(0, len(words), CHUNK):
        chunk = numbers[start : start + CHUNK]
        try:
            vectors[start : start + CHUNK] = np.array(b" ".join(chunk).split(b" ")).astype(np.float32).reshape(-1, dim)
        except ValueError:
            raise UserError(_first_bad_line(path, chunk, start + 1)) from None
        if not np.isfinite(vectors[start : start + CHUNK]).all():
            raise UserError(_first_bad_line(path, chunk, start + 1))
    return tuple(words), torch.from_numpy(vectors)


def _first_bad_line(path: Path, numbers: Sequence[bytes], first: int) -> str:
    for line, rest in enumerate(numbers, first):
        for field in rest.split(b" "):
            try:
                fine = bool(np.isfinite(float(field)))
            except ValueError:
                fine = False
            if not fine:
                return f"{path}, line {line}: {field.decode('utf-8', 'replace')!r} is not a finite number."
    return f"{path}: a number is too large."


@contextmanager
def _opened(path: Path, dim: int) -> Iterator[tuple[str, IO[bytes]]]:
    """(name for messages, lines). A zip archive is read in place and never unpacked."""
    if path.suffix != ".zip":
        with open(path, "rb") as file:
            yield str(path), file
        return
    try:
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if name.endswith(f".{dim}d.txt")]
            if not names:
                raise UserError(
                    f"{path} has no file *.{dim}d.txt: it holds {', '.join(packed.namelist()) or 'nothing'}."
                )
            with packed.open(names[0]) as file:
                yield f"{path}: {names[0]}", io.BufferedReader(file)  # pyright: ignore[reportArgumentType]
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _write(path: Path, words: Sequence[str], vectors: Tensor) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save({"vectors": vectors}, {"words": json.dumps(words)}))


def _read(path: Path) -> tuple[tuple[str, ...], Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return tuple(json.loads(file.metadata()["words"])), file.get_tensor("vectors")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"The cache {path} cannot be read ({error}): delete it.") from error
