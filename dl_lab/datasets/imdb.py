"""IMDB: 50,000 film reviews, half of them for training, negative or positive (Maas et al., ACL 2011).

Layout: aclImdb/{train,test}/{neg,pos}/<number>_<rating>.txt, as a folder or in a tar archive that is read as a stream
and never unpacked. What was read and tokenised once is kept under the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from dl_lab.datasets.batches import Order, shuffled
from dl_lab.datasets.files import DataFile, data_files, ensure
from dl_lab.datasets.text import Encoder, Tokenizer, encoder_of, generated_texts, train_encoder, without_tags
from dl_lab.datasets.tokens import End, Layout, Ragged, Side, pad_number, token_dataset
from dl_lab.run import write_atomic
from dl_lab.types import Dataset, UserError

CLASS_NAMES = ("negative", "positive")
FOLDER = "aclImdb"
SIZE = 25_000  # reviews of each half of the release
_REVIEW = re.compile(rf"(?:^|/){FOLDER}/(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")
Label = Literal["full", "part", "generated"]


class Review(NamedTuple):
    """half: train or test. label: 0 negative, 1 positive. number: of the file."""

    half: str
    label: int
    number: int
    text: str


class Corpus(NamedTuple):
    """Both halves in the order negative, positive, by number: labels (n,) int64 and texts of each."""

    labels: dict[str, np.ndarray]
    texts: dict[str, list[str]]


def imdb(
    vocabulary_size: int,
    length: int,
    n_classes: int,
    data_dir: str,
    cache_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    n_train: int | None = None,
    n_val: int = 12_500,
    val_from: Literal["train", "test"] = "test",
    split_seed: int = 4242,
    n_generated: int = 1024,
    tokenizer: Tokenizer = "basic_english",
    specials: Sequence[str] = ("<unk>", "<pad>"),
    pad_with: str = "<pad>",
    clean_html: bool = True,
    padding: Side = "right",
    keep: End = "head",
    bucketing: bool = True,
    order: Order = shuffled,
) -> Dataset:
    """Reviews as TokenBatch; the vocabulary is that of the chosen training reviews.

    files: the official archive and the re-packed one; the folder aclImdb is read where it is there, else the first
    archive that is. n_val reviews are taken out of val_from, from the train half stratified by class; n_train of the
    train half's others are kept (null: all). See `ag_news_tokens` for the rest.
    """
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"IMDB has {len(CLASS_NAMES)} classes, not {n_classes}")
    layout = Layout(length, padding, keep, bucketing, pad_number(specials, pad_with))

    def encoded(corpus: Corpus) -> tuple[dict[str, tuple[Ragged, torch.Tensor]], Encoder]:
        rows = split_rows(corpus.labels, n_train, n_val, val_from, split_seed)
        training = [corpus.texts["train"][i] for i in rows["train"][1]]
        encoder = train_encoder(tokenizer, training, vocabulary_size, specials)
        parts = {}
        for split, (half, chosen) in rows.items():
            texts = [encoder.encode(corpus.texts[half][i]) for i in progress(chosen, f"tokens of {split}")]
            parts[split] = Ragged.of(texts, len(encoder.words)), torch.from_numpy(corpus.labels[half][chosen])
        return parts, encoder

    if source == "generated":
        corpus, label, note = _generated(n_generated), "generated", ""
        n_train, n_val = None, len(corpus.texts["train"]) // 4
        parts, encoder = encoded(corpus)
    else:
        settings = [tokenizer, vocabulary_size, list(specials), clean_html, n_train, n_val, val_from, split_seed]
        where, content, label = _found(data_files(files), Path(data_dir).expanduser())
        key = hashlib.sha256(json.dumps([content, *settings]).encode()).hexdigest()[:16]
        cached = Path(cache_dir).expanduser() / f"imdb_{key}.safetensors"
        if not cached.exists():
            _write(cached, *encoded(read_corpus(where, clean_html)))
        parts, encoder = _read(cached)
        kept = len(parts["train"][1])
        reduced = kept + (n_val if val_from == "train" else 0) < SIZE
        label, note = (
            ("part" if reduced else label),
            f"{kept:,} of {SIZE:,} training reviews, split with seed {split_seed}",
        )
    return token_dataset("imdb", parts, encoder, layout, label=label, class_names=CLASS_NAMES, note=note, order=order)


def split_rows(
    labels: Mapping[str, np.ndarray], n_train: int | None, n_val: int, val_from: str, seed: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Split -> (half, which of its reviews). From the test half, val is the first n_val after a shuffle, and test the
    others, as in T4; from the train half a stratified draw. Raises ValueError where the halves are too small."""
    n = {half: len(labels[half]) for half in ("train", "test")}
    if not 0 < n_val < n[val_from] or (n_train or 1) > n["train"] - (n_val if val_from == "train" else 0):
        raise ValueError(f"n_train {n_train} and n_val {n_val} (from {val_from}) ask for more than {n} reviews")
    rng = np.random.default_rng(seed)
    train, test = rng.permutation(n["train"]), rng.permutation(n["test"])
    if val_from == "test":
        return {"train": ("train", train[:n_train]), "val": ("test", test[:n_val]), "test": ("test", test[n_val:])}
    from sklearn.model_selection import train_test_split

    every = np.arange(n["train"])
    kept, val = map(np.asarray, train_test_split(every, test_size=n_val, stratify=labels["train"], random_state=seed))
    return {"train": ("train", kept[:n_train]), "val": ("train", val), "test": ("test", test)}


def _generated(n: int) -> Corpus:
    """n reviews of invented words in each half."""
    rng = np.random.default_rng(0)
    labels, texts = {}, {}
    for half in ("train", "test"):
        rows = generated_texts(max(n, 8), len(CLASS_NAMES), rng)
        labels[half], texts[half] = np.array([row[0] for row in rows]), [row[1] for row in rows]
    return Corpus(labels, texts)


# -- reading ------------------------------------------------------------------------------------------------------


def _found(files: Sequence[DataFile], data_dir: Path) -> tuple[Path, str, Label]:
    """(folder or archive, what identifies its content, label); the official archive is fetched where none is there."""
    folder = data_dir / FOLDER
    if (folder / "train").is_dir():
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*/*/*.txt")):
            about = path.stat()
            digest.update(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
        return folder, digest.hexdigest(), "full"
    there = [file for file in files if file.locate(data_dir).exists()]
    path = there[0].locate(data_dir) if there else ensure(files[0], data_dir)
    with open(path, "rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest(), "full"


def read_corpus(path: Path, clean_html: bool) -> Corpus:
    """All labelled reviews of a folder or a tar archive.

    Raises UserError, naming the member, for a path that leaves the archive's folder, text that is not UTF-8, an empty
    review, and where the reviews are not 12,500 of each class in each half.
    """
    members = _of_folder(path) if path.is_dir() else _of_archive(path)
    reviews = [_checked(path, name, raw, clean_html) for name, raw in members if _REVIEW.search(name)]
    corpus = Corpus({}, {})
    for half in ("train", "test"):
        rows = sorted((review for review in reviews if review.half == half), key=lambda r: (r.label, r.number))
        corpus.labels[half] = np.array([review.label for review in rows], dtype=np.int64)
        corpus.texts[half] = [review.text for review in rows]
        counts = np.bincount(corpus.labels[half], minlength=2).tolist()
        if counts != [SIZE // 2, SIZE // 2]:
            raise UserError(
                f"{path}: the {half} half has {counts[0]:,} negative and {counts[1]:,} positive reviews instead of "
                f"{SIZE // 2:,} each: part of it is missing."
            )
    return corpus


def _checked(path: Path, name: str, raw: bytes, clean_html: bool) -> Review:
    half, label, number, _ = _REVIEW.search(name).groups()  # pyright: ignore[reportOptionalMemberAccess]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {name}: byte {error.start + 1} is not valid UTF-8.") from error
    if clean_html:
        text = without_tags(text)
    if not text.strip():
        raise UserError(f"{path}: {name}: the review is empty.")
    return Review(half, int(label == "pos"), int(number), text)


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    paths = sorted(folder.glob("*/*/*.txt"))
    for path in progress(paths, "reviews"):
        yield f"{FOLDER}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _of_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r|*") as packed:
            for member in progress(packed, "reviews"):
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise UserError(
                        f"{archive}: the path {member.name!r} leaves the archive's folder; nothing was read."
                    )
                file = packed.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name, file.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} cannot be read: {error}.") from error


def progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """The items, with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    total = len(items) if isinstance(items, Sequence | np.ndarray) else None
    return track(items, f"IMDB: {what}", total, console=Console(stderr=True), disable=not sys.stderr.isatty())


# -- the cache ----------------------------------------------------------------------------------------------------


def _write(path: Path, parts: Mapping[str, tuple[Ragged, torch.Tensor]], encoder: Encoder) -> None:
    from safetensors.torch import save

    tensors = {}
    for split, (ragged, labels) in parts.items():
        tensors |= {f"{split}.{name}": column for name, column in (*ragged._asdict().items(), ("labels", labels))}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(tensors, {"encoder": json.dumps(encoder.plain())}))


def _read(path: Path) -> tuple[dict[str, tuple[Ragged, torch.Tensor]], Encoder]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            encoder = encoder_of(json.loads(file.metadata()["encoder"]))
            parts = {}
            for split in ("train", "val", "test"):
                numbers, lengths, labels = (file.get_tensor(f"{split}.{n}") for n in ("numbers", "lengths", "labels"))
                parts[split] = Ragged(numbers, lengths), labels
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"The cache {path} cannot be read ({error}): delete it.") from error
    return parts, encoder
