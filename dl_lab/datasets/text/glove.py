"""GloVe word vectors (Pennington, Socher, Manning, EMNLP 2014), in a text file or inside the release's archive.

A line has a word and then its numbers, with single blanks between them. Text files of word2vec and fastText are read as
well. The file is read once; later runs read the vectors from the cache.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

RELEASED = 400_000  # words of the release of 6 billion tokens
CHUNK = 10_000  # lines whose numbers are read together


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors.

    Args:
        words: The words.
        vectors: (n_words, dim) float32.
        label: How much of the release they are.
    """

    words: tuple[str, ...]
    vectors: Tensor
    label: Literal["full", "part", "generated"]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def of(
        self, words: Sequence[str], missing: Literal["normal", "zeros"] = "normal", std: float = 0.6
    ) -> tuple[Tensor, Tensor]:
        """Look up the vectors of other words.

        Args:
            words: The n words.
            missing: "normal" draws the vectors of unknown words from N(0, std²) by torch's own stream; "zeros" sets
                them to zero.
            std: The standard deviation of the draws.

        Returns:
            The vectors (n, dim), and whether each word was found (n,) bool.
        """
        found = torch.tensor([word in self.numbers for word in words], dtype=torch.bool)
        numbers = torch.tensor([self.numbers.get(word, 0) for word in words], dtype=torch.int64)
        shape = (len(words), self.vectors.shape[1])
        other = torch.randn(shape) * std if missing == "normal" else torch.zeros(shape)
        return torch.where(found[:, None], self.vectors[numbers], other), found


def glove(
    dim: int,
    storage: Storage,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1500,
    encoding: str = "utf-8",
) -> WordVectors:
    """Return the vectors of `dim` numbers. The label is "full" with all 400,000 words of the release.

    Args:
        dim: The numbers of a vector.
        storage: Where the files lie: the text file, then the archive that holds it. The first one that exists is read;
            if none exists, the archive is downloaded. The cache keeps vectors that were read once.
        source: "real", or "generated" for random vectors of the words of generated texts.
        n_generated: The number of words with generated vectors.
        encoding: The encoding of the words.

    Raises:
        UserError: A line is not in this encoding, is not a word and `dim` finite numbers, or repeats a word. The
            message names the line.
    """
    if source == "generated":
        words = ("man", "woman", "king", "queen", *(f"word{i}" for i in range(n_generated)))
        vectors = torch.randn(len(words), dim, generator=torch.Generator().manual_seed(0))
        return WordVectors(words, vectors, "generated")
    entries = storage.entries()
    present = [file for file in entries if file.locate(storage.data).exists()]
    path = storage.ensure(present[0] if present else entries[-1])
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()

    def fill(writer: Writer) -> None:
        words, vectors = read_vectors(path, dim, encoding)
        writer.save("vectors", vectors.numpy())
        writer.facts = {"words": words}

    entry = load_or_fill(storage.cache, "vectors", key_of(content, dim, encoding), fill)
    words = tuple(entry.facts["words"])
    vectors = torch.from_numpy(entry.arrays["vectors"])
    return WordVectors(words, vectors, "full" if len(words) == RELEASED else "part")


def read_vectors(path: Path, dim: int, encoding: str = "utf-8") -> tuple[tuple[str, ...], Tensor]:
    """Read words and vectors from a text file, or from the member `*.{dim}d.txt` of a zip archive.

    The last `dim` fields of a line are its numbers. Everything before them is the word, which may hold blanks (as in
    the release of 840 billion tokens). A first line of two whole numbers is the header of word2vec and fastText; it
    must agree with the lines below it. A byte order mark and blanks at the end of a line are ignored.

    Args:
        path: The file.
        dim: The numbers of a vector.
        encoding: The encoding of the words.

    Returns:
        The words, and the vectors (n, dim) float32.

    Raises:
        UserError: A line is not as it must be; the message names it.
    """
    words: dict[str, None] = {}
    numbers: list[bytes] = []
    first = 1
    promised: int | None = None
    with _open(path, dim) as (name, file):
        for line, raw in enumerate(file, 1):
            row = raw.rstrip(b" \r\n")
            if line == 1:
                row = row.removeprefix(codecs.BOM_UTF8)
                promised = _read_header(row, dim, name) if dim > 1 else None
                if promised is not None:
                    first = 2
                    continue
            word, rest = _split_line(row, dim, f"{name}, line {line}")
            try:
                text = word.decode(encoding)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{name}, line {line}: byte {error.start + 1} is not valid {encoding.upper()}."
                ) from error
            if not text or text in words:
                fault = f"the word {text!r} comes a second time" if text else "no word"
                raise UserError(f"{name}, line {line}: {fault}.")
            words[text] = None
            numbers.append(rest)
    if not words:
        raise UserError(f"{path} is empty.")
    if promised is not None and promised != len(words):
        raise UserError(f"{name}: the first line promises {promised:,} words, but the file has {len(words):,}.")
    vectors = np.empty((len(words), dim), dtype=np.float32)
    for start in range(0, len(words), CHUNK):
        chunk = numbers[start : start + CHUNK]
        try:
            fields = np.array(b" ".join(chunk).split(b" "))
            with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and is refused below
                vectors[start : start + CHUNK] = fields.astype(np.float32).reshape(-1, dim)
        except ValueError:
            raise UserError(_describe_bad_line(path, chunk, start + first)) from None
        if not np.isfinite(vectors[start : start + CHUNK]).all():
            raise UserError(_describe_bad_line(path, chunk, start + first))
    return tuple(words), torch.from_numpy(vectors)


def _read_header(row: bytes, dim: int, name: str) -> int | None:
    """Return how many words a header of word2vec or fastText promises; None for a line that is no such header."""
    fields = row.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    n_words, width = map(int, fields)
    if width != dim:
        raise UserError(
            f"{name}, line 1: the header says vectors of {width} numbers, not of {dim} (vectors.dim={width})."
        )
    return n_words


def _split_line(row: bytes, dim: int, where: str) -> tuple[bytes, bytes]:
    """Return the word of a line, and its numbers. Raise a UserError for more or fewer numbers than `dim`."""
    fields = row.rsplit(b" ", dim)
    if len(fields) == dim + 1 and not _is_number(fields[0].rpartition(b" ")[2], b" " in fields[0]):
        return fields[0], row[len(fields[0]) + 1 :]
    n_found = len(row.split(b" ")) - 1
    hint = ""
    if n_found == 0 and b"\t" in row:
        hint = " The fields are separated by tabs; they must be separated by blanks."
    raise UserError(f"{where}: {n_found} numbers after the word instead of {dim}.{hint}")


def _is_number(field: bytes, of_several: bool) -> bool:
    """Return whether the last part of a word of several parts is a number: then the line has too many numbers."""
    if not of_several:
        return False
    try:
        float(field)
    except ValueError:
        return False
    return True


def _describe_bad_line(path: Path, numbers: Sequence[bytes], first: int) -> str:
    for line, rest in enumerate(numbers, first):
        for field in rest.split(b" "):
            try:
                with np.errstate(over="ignore"):
                    is_finite = bool(np.isfinite(np.float32(float(field))))
            except ValueError:
                is_finite = False
            if not is_finite:
                return f"{path}, line {line}: {field.decode('utf-8', 'replace')!r} is not a finite number."
    return f"{path}: a number is too large."


@contextmanager
def _open(path: Path, dim: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the file, or its member of a zip archive without unpacking it. Yield a name for messages, and the lines."""
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
                # io.BufferedReader only calls methods that a member has; its stub asks for a RawIOBase.
                yield f"{path}: {names[0]}", io.BufferedReader(file)  # pyright: ignore[reportArgumentType]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        # Damaged data raise zlib.error; an unknown compression or encryption raises one of the last two.
        raise UserError(f"{path} cannot be read: {error}.") from error
