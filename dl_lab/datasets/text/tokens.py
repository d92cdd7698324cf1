"""Texts as token numbers: stored end to end on the device, cut and padded batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import CPU, Order, fingerprint, in_order, own_of, parts_of, shuffled
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.text.encoders import PADDING, Encoder
from dl_lab.types import TokenBatch

Side = Literal["left", "right"]
End = Literal["head", "tail"]
POOL = 50  # batches that are sorted together: long enough for even lengths, short enough to stay shuffled


class Ragged(NamedTuple):
    """Texts of uneven length, end to end.

    Attributes:
        numbers: (n_tokens,) the numbers of all texts.
        lengths: (n,) int64, how many numbers each text has.
    """

    numbers: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], n_words: int) -> Ragged:
        """Store texts in the smallest integer type that holds numbers below n_words."""
        flat = np.fromiter(chain.from_iterable(texts), dtype=np.int64)
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        return cls(torch.from_numpy(flat).to(smallest_integer(n_words)), lengths)

    def take(self, chosen: Tensor) -> Ragged:
        """Return the chosen texts, in that order."""
        starts = self.starts[chosen]
        lengths = self.lengths[chosen]
        return Ragged(self.numbers[_list_positions(starts, lengths)], lengths)

    def cut(self, length: int, keep: End) -> Ragged:
        """Return at most `length` numbers of each text, from its head or its tail."""
        lengths = self.lengths.clamp(max=length)
        starts = self.starts
        if keep == "tail":
            starts = starts + self.lengths - lengths
        return Ragged(self.numbers[_list_positions(starts, lengths)], lengths)

    @property
    def starts(self) -> Tensor:
        """The position of each text's first number: (n,) int64."""
        return self.lengths.cumsum(0) - self.lengths


def _list_positions(starts: Tensor, lengths: Tensor) -> Tensor:
    """Return start, start + 1, ... for each text, one text after the other."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)


def smallest_integer(size: int) -> torch.dtype:
    """Return the smallest type that holds 0 .. size - 1 and that torch can index (unsigned 16 bits it cannot)."""
    if size <= 2**8:
        return torch.uint8
    return torch.int16 if size <= 2**15 else torch.int32


@dataclass(frozen=True)
class Layout:
    """How texts become the rows of a batch.

    Args:
        length: The most tokens of a text.
        padding: The side of a shorter text that is filled.
        keep: The end of a longer text that stays.
        bucketing: Whether texts of similar length come together, in batches as long as their longest text. If not,
            every batch is `length` long.
        pad_number: The number that fills shorter texts.

    Raises:
        ValueError: `length` is less than 1.
    """

    length: int
    padding: Side = "right"
    keep: End = "head"
    bucketing: bool = True
    pad_number: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length {self.length} is not at least 1")

    def batch(self, numbers: Tensor, starts: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Gather and pad texts.

        Args:
            numbers: (n_tokens,) the numbers of all texts.
            starts: (texts,) the position of each text's first number.
            lengths: (texts,) the length of each text.
            longest: The length of the rows.

        Returns:
            x (texts, longest) int64, and mask (texts, longest) bool, True for a token.
        """
        place = torch.arange(longest, device=numbers.device)[None, :]
        if self.padding == "left":
            place = place - (longest - lengths[:, None])
        mask = (place >= 0) & (place < lengths[:, None])
        position = (starts[:, None] + place).clamp(0, len(numbers) - 1)
        return numbers[position].long().masked_fill(~mask, self.pad_number), mask

    def pad(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Cut and pad new texts as one batch; see `batch`."""
        ragged = Ragged.of(texts, 2**31).cut(self.length, self.keep)
        longest = int(ragged.lengths.max()) if self.bucketing else self.length
        return self.batch(ragged.numbers, ragged.starts, ragged.lengths, longest)


@dataclass(frozen=True)
class TokenSplit:
    """A split of texts (each of at least one token) that reside on the device, which gathers and pads the batches.

    With bucketing, an epoch shuffles the texts, sorts pools of `POOL` batches by length, and shuffles the batches. All
    this happens on the host, which knows the lengths without asking the device.

    Args:
        texts: The texts, on the host.
        labels: (n,) int64.
        layout: How texts become the rows of a batch.
        order: The order of a training epoch.
        device: The device of the batches.
        resident: Numbers, starts, lengths and labels on the device; empty before `to`.
        rank: The number of this process, which has its part of every batch.
        n_ranks: The number of processes.
    """

    texts: Ragged
    labels: Tensor
    layout: Layout
    order: Order = shuffled
    device: torch.device = CPU
    resident: tuple[Tensor, ...] = ()
    rank: int = 0
    n_ranks: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self) // batch_size)

    def to(self, device: torch.device) -> TokenSplit:
        """Return the same split on a device."""
        columns = (self.texts.numbers, self.texts.starts, self.texts.lengths, self.labels)
        return replace(self, device=device, resident=tuple(column.to(device) for column in columns))

    def batches(self, batch_size: int) -> Iterator[TokenBatch]:
        """Return every text once, in the stored order."""
        return self._gather(own_of(torch.arange(len(self)).split(batch_size), self.rank, self.n_ranks))

    def divided(self, rank: int, n_ranks: int) -> TokenSplit:
        """Return the part of one of several processes."""
        return replace(self, rank=rank, n_ranks=n_ranks)

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        """Return the batches of an epoch from number `start` on."""
        batches = self._shuffle(batch_size, seed, epoch)[start:]
        return self._gather(parts_of(batches, self.rank, self.n_ranks))

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        """Return how many texts the batches of an epoch have in all processes."""
        return [len(batch) for batch in self._shuffle(batch_size, seed, epoch)[start:]]

    def _shuffle(self, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        order = torch.as_tensor(self.order(len(self), seed, epoch))
        batches = order.split(batch_size)
        if self.layout.bucketing and self.order is not in_order:
            by_length: list[Tensor] = []
            for pool in order.split(POOL * batch_size):
                rank = self.texts.lengths[pool].argsort(stable=True)
                by_length += pool[rank].split(batch_size)
            batch_order = torch.as_tensor(self.order(len(by_length), seed, epoch))
            batches = [by_length[i] for i in batch_order.tolist()]
        return batches

    def _gather(self, chosen: Sequence[Tensor]) -> Iterator[TokenBatch]:
        numbers, starts, lengths, labels = self.resident or self.to(self.device).resident
        sizes = [len(batch) for batch in chosen]
        on_device = torch.cat(list(chosen)).to(self.device).split(sizes) if chosen else ()
        for batch, indices in zip(chosen, on_device, strict=True):
            longest = int(self.texts.lengths[batch].max()) if self.layout.bucketing else self.layout.length
            x, mask = self.layout.batch(numbers, starts[indices], lengths[indices], longest)
            yield TokenBatch(x, mask, labels[indices])


@dataclass(frozen=True)
class TextContent:
    """The content of a data set of texts beside its splits, which figures and word vectors need.

    Attributes:
        vocabulary: The words by number.
        encoder: Turns a text into numbers.
        layout: Turns numbers into the rows of a batch. None: the rows are bags of words.
    """

    words: ClassVar[str] = "texts"
    vocabulary: Sequence[str]
    encoder: Encoder
    layout: Layout | None = None


def token_dataset(
    name: str,
    texts: Mapping[str, tuple[Ragged, Tensor]],
    encoder: Encoder,
    layout: Layout,
    *,
    label: Literal["full", "part", "generated"],
    class_names: Sequence[str],
    note: str = "",
    order: Order = shuffled,
    about: Sequence[str] = (),
    cleaning: Mapping[str, object] | None = None,
) -> Dataset:
    """Build a data set of encoded texts. A run saves the encoder and the layout.

    With bucketing, a split is stored by length, so that its batches in the stored order have little padding too.

    Args:
        name: The name of the data set.
        texts: Split -> encoded texts, labels (n,) int64.
        encoder: The encoder of the texts.
        layout: How texts become the rows of a batch.
        label: How much of the official data the texts are.
        class_names: The classes by number.
        note: What a reader of the results must know about the data.
        order: The order of a training epoch.
        about: How a file of the user's was understood, one sentence an entry.
        cleaning: The changes of each text before the encoder (clean_html). They are saved, so that `predict` makes the
            same changes.
    """
    splits: dict[str, TokenSplit] = {}
    columns: list[Tensor] = []
    for split, (whole, labels) in texts.items():
        cut = whole.cut(layout.length, layout.keep)
        columns += [*cut, labels]
        stored = cut.lengths.argsort(stable=True) if layout.bucketing else torch.arange(len(labels))
        splits[split] = TokenSplit(cut.take(stored), labels[stored], layout, order)
    preprocessing = {
        "encoder": encoder.plain(),
        "layout": asdict(layout),
        "class_names": list(class_names),
        **(cleaning or {}),
    }
    return Dataset(
        name,
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint(*columns),
        tuple(class_names),
        note,
        preprocessing,
        about=about,
        content=TextContent(encoder.words, encoder, layout),
    )


def pad_number(specials: Sequence[str], pad_with: str = PADDING) -> int:
    """Return the number of the padding.

    Raises:
        ValueError: The padding is none of the specials.
    """
    if pad_with not in specials:
        raise ValueError(f"pad_with {pad_with!r} is none of the specials {', '.join(specials)}")
    return list(specials).index(pad_with)
