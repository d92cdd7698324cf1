"""IMDB: 50,000 film reviews, half of them for training, negative or positive (Maas et al., ACL 2011).

Layout: aclImdb/{train,test}/{neg,pos}/<number>_<rating>.txt, as a folder or in a tar archive that is read as a stream
and never unpacked. Tokens of reviews that were read once are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import Order, shuffled
from dl_lab.datasets.cache import Entry, Writer, key_of, load_or_fill
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.delimited import decode
from dl_lab.datasets.progress import show_progress
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.encoders import Encoder, encoder_of, generate_texts, remove_tags
from dl_lab.datasets.text.texts import HeldOut, Texts
from dl_lab.datasets.text.tokens import Ragged, token_dataset
from dl_lab.types import UserError

CLASS_NAMES = ("negative", "positive")
FOLDER = "aclImdb"
SIZE = 25_000  # reviews in each half of the release
_REVIEW = re.compile(rf"(?:^|/){FOLDER}/(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")
Label = Literal["full", "part", "generated"]


class Review(NamedTuple):
    """One review.

    Attributes:
        half: "train" or "test".
        label: 0 for a negative, 1 for a positive review.
        number: The number in the name of its file.
        text: The review.
    """

    half: str
    label: int
    number: int
    text: str


class Corpus(NamedTuple):
    """Both halves, the negative reviews first, each class by number: labels (n,) int64 and texts of each half."""

    labels: dict[str, np.ndarray]
    texts: dict[str, list[str]]


class Part(NamedTuple):
    """The reviews of one split: the half that they come from, and their positions in it (n,)."""

    half: Literal["train", "test"]
    positions: np.ndarray


Encoded = dict[str, tuple[Ragged, Tensor]]  # split -> encoded texts, labels (n,) int64


def imdb(
    vocabulary_size: int,
    length: int,
    n_classes: int,
    storage: Storage,
    texts: Texts,
    held_out: HeldOut,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1024,
    order: Order = shuffled,
    encoding: str = "utf-8",
) -> Dataset:
    """Return reviews as TokenBatch. The vocabulary comes from the chosen training reviews.

    Args:
        vocabulary_size: The most words that the vocabulary may have, the specials included.
        length: The most tokens that a review may have; `texts.keep` says which end of a longer review stays.
        n_classes: 2.
        storage: Where the official archive and the re-packed one lie. The folder aclImdb is read where it exists, else
            the first archive that exists. The cache keeps the tokens of reviews that were read once.
        texts: How reviews become tokens.
        held_out: Which reviews are used. Validation reviews from the train half are drawn with both classes in
            proportion.
        source: "real", or "generated" for invented words that a model can learn.
        n_generated: Reviews of each generated half.
        order: The order of a training epoch.
        encoding: The encoding of the reviews.

    Raises:
        UserError: A member of the archive cannot be used; the message names it.
        ValueError: IMDB has another number of classes, or fewer reviews than `held_out` asks for.
    """
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"IMDB has {len(CLASS_NAMES)} classes, not {n_classes}")
    layout = texts.layout(length)
    label: Label = "generated"
    note = ""
    if source == "generated":
        corpus = _generate(n_generated)
        all_reviews = replace(held_out, n_train=None, n_val=len(corpus.texts["train"]) // 4)
        parts, encoder = _encode(corpus, all_reviews, texts, vocabulary_size)
    else:
        where, content, label = _find(storage)

        def fill(writer: Writer) -> None:
            corpus = read_corpus(where, texts.clean_html, encoding)
            _write(writer, *_encode(corpus, held_out, texts, vocabulary_size))

        tokens = [texts.tokenizer, vocabulary_size, list(texts.specials), texts.clean_html]
        entry = load_or_fill(storage.cache, "imdb", key_of(content, *tokens, encoding, asdict(held_out)), fill)
        parts, encoder = _read(entry)
        n_train = len(parts["train"][1])
        n_val = held_out.n_val if held_out.val_from == "train" else 0
        if n_train + n_val < SIZE or held_out.n_test is not None:
            label = "part"
        note = f"{n_train:,} of {SIZE:,} training reviews, split with seed {held_out.seed}"
    return token_dataset(
        "imdb",
        parts,
        encoder,
        layout,
        label=label,
        class_names=CLASS_NAMES,
        note=note,
        order=order,
        cleaning={"clean_html": texts.clean_html},
    )


def _encode(corpus: Corpus, held_out: HeldOut, texts: Texts, vocabulary_size: int) -> tuple[Encoded, Encoder]:
    """Encode the reviews of each split by the vocabulary of the training reviews."""
    rows = split_rows(corpus.labels, held_out)
    train_texts = [corpus.texts["train"][i] for i in rows["train"].positions]
    encoder = texts.train_encoder(train_texts, vocabulary_size)
    parts: Encoded = {}
    for split, (half, positions) in rows.items():
        chosen = [corpus.texts[half][i] for i in positions]
        numbers = [encoder.encode(text) for text in show_progress(chosen, len(chosen), f"IMDB: tokens of {split}")]
        labels = torch.from_numpy(corpus.labels[half][positions])
        parts[split] = (Ragged.of(numbers, len(encoder.words)), labels)
    return parts, encoder


def split_rows(labels: Mapping[str, np.ndarray], held_out: HeldOut) -> dict[str, Part]:
    """Divide the reviews of both halves into train, val and test.

    Validation from the test half takes its first reviews after a shuffle, and test takes the others, as in T4.
    Validation from the train half is a stratified draw.

    Args:
        labels: The labels (n,) of each half.
        held_out: How many reviews each split takes.

    Raises:
        ValueError: The halves have fewer reviews than `held_out` asks for.
    """
    n_train = held_out.n_train
    n_val = held_out.n_val
    sizes = {half: len(labels[half]) for half in ("train", "test")}
    n_left = sizes["train"]
    if held_out.val_from == "train":
        n_left -= n_val
    if not 0 < n_val < sizes[held_out.val_from] or (n_train or 1) > n_left:
        raise ValueError(
            f"n_train {n_train} and n_val {n_val} (from {held_out.val_from}) ask for more than {sizes} reviews"
        )
    rng = np.random.default_rng(held_out.seed)
    train = rng.permutation(sizes["train"])
    test = rng.permutation(sizes["test"])
    if held_out.val_from == "test":
        return {
            "train": Part("train", train[:n_train]),
            "val": Part("test", test[:n_val]),
            "test": Part("test", test[n_val:][: held_out.n_test]),
        }
    from sklearn.model_selection import train_test_split

    kept, val = train_test_split(
        np.arange(sizes["train"]), test_size=n_val, stratify=labels["train"], random_state=held_out.seed
    )
    return {
        "train": Part("train", np.asarray(kept)[:n_train]),
        "val": Part("train", np.asarray(val)),
        "test": Part("test", test[: held_out.n_test]),
    }


def _generate(n: int) -> Corpus:
    """Return n reviews of invented words in each half."""
    rng = np.random.default_rng(0)
    corpus = Corpus({}, {})
    for half in ("train", "test"):
        rows = generate_texts(max(n, 8), len(CLASS_NAMES), rng)
        corpus.labels[half] = np.array([label for label, _ in rows])
        corpus.texts[half] = [text for _, text in rows]
    return corpus


# -- reading ------------------------------------------------------------------------------------------------------


def _find(storage: Storage) -> tuple[Path, str, Label]:
    """Find the folder or the archive; where neither is there, fetch the official archive.

    Returns:
        The folder or archive, a digest of its content, and its label.
    """
    files = storage.entries()
    data_dir = storage.data
    folder = data_dir / FOLDER
    if (folder / "train").is_dir():
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*/*/*.txt")):
            about = path.stat()
            digest.update(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
        return folder, digest.hexdigest(), "full"
    present = [file for file in files if file.locate(data_dir).exists()]
    path = present[0].locate(data_dir) if present else storage.ensure(files[0])
    with open(path, "rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest(), "full"


def read_corpus(path: Path, clean_html: bool, encoding: str = "utf-8") -> Corpus:
    """Read all labelled reviews of a folder or a tar archive.

    Args:
        path: The folder or the archive.
        clean_html: Whether HTML tags become blanks.
        encoding: The encoding of the reviews.

    Raises:
        UserError: A path leaves the archive's folder, a text is not in this encoding, a review is empty (the message
            names the member), or the reviews are not 12,500 of each class in each half.
    """
    members = _walk_folder(path) if path.is_dir() else _walk_archive(path)
    reviews: list[Review] = []
    for name, raw in members:
        found = _REVIEW.search(name)
        if found:
            reviews.append(_read_review(found, raw, f"{path}: {name}", clean_html, encoding))
    reviews.sort(key=lambda review: (review.label, review.number))
    corpus = Corpus({}, {})
    for half in ("train", "test"):
        own = [review for review in reviews if review.half == half]
        corpus.labels[half] = np.array([review.label for review in own], dtype=np.int64)
        corpus.texts[half] = [review.text for review in own]
        counts = np.bincount(corpus.labels[half], minlength=2).tolist()
        if counts != [SIZE // 2, SIZE // 2]:
            raise UserError(
                f"{path}: the {half} half has {counts[0]:,} negative and {counts[1]:,} positive reviews instead of "
                f"{SIZE // 2:,} each: part of it is missing."
            )
    return corpus


def _read_review(found: re.Match[str], raw: bytes, where: str, clean_html: bool, encoding: str) -> Review:
    half, kind, number, _ = found.groups()
    text = decode(raw, where, encoding)
    if clean_html:
        text = remove_tags(text)
    if not text.strip():
        raise UserError(f"{where}: the review is empty.")
    return Review(half, int(kind == "pos"), int(number), text)


def _walk_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    paths = sorted(folder.glob("*/*/*.txt"))
    for path in show_progress(paths, len(paths), "IMDB: reviews"):
        yield f"{FOLDER}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _walk_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r|*") as packed:
            for member in show_progress(packed, None, "IMDB: reviews"):
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise UserError(
                        f"{archive}: the path {member.name!r} leaves the archive's folder; nothing was read."
                    )
                file = packed.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name, file.read()
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, TypeError, ValueError) as error:
        # The last two come from tarfile itself, where the header of a stream or of a member is cut or damaged.
        raise UserError(f"{archive} cannot be read: {error}.") from error


# -- the cache ----------------------------------------------------------------------------------------------------


def _write(writer: Writer, parts: Encoded, encoder: Encoder) -> None:
    for split, (ragged, labels) in parts.items():
        writer.save(f"{split}.numbers", ragged.numbers.numpy())
        writer.save(f"{split}.lengths", ragged.lengths.numpy())
        writer.save(f"{split}.labels", labels.numpy())
    writer.facts = {"encoder": encoder.plain()}


def _read(entry: Entry) -> tuple[Encoded, Encoder]:
    arrays = {name: torch.from_numpy(array) for name, array in entry.arrays.items()}
    parts: Encoded = {}
    for split in ("train", "val", "test"):
        ragged = Ragged(arrays[f"{split}.numbers"], arrays[f"{split}.lengths"])
        parts[split] = (ragged, arrays[f"{split}.labels"])
    return parts, encoder_of(entry.facts["encoder"])
