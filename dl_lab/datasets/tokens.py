"""Texts as token numbers: kept ragged on the device, cut and padded batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import CPU, Order, fingerprint, in_order, own_of, parts_of, shuffled
from dl_lab.datasets.text import PADDING, Encoder
from dl_lab.types import Dataset, TokenBatch

Side = Literal["left", "right"]
End = Literal["head", "tail"]
POOL = 50  # batches that are sorted together: long enough for even lengths, short enough to stay shuffled


class Ragged(NamedTuple):
    """Texts of uneven length: all their numbers in a row (n_tokens,), and how many each has (n,) int64."""

    numbers: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], n_words: int) -> Ragged:
        """Numbers below n_words, in the smallest integer type that holds them."""
        flat = np.fromiter(chain.from_iterable(texts), dtype=np.int64)
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        return cls(torch.from_numpy(flat).to(smallest_integer(n_words)), lengths)

    def take(self, chosen: Tensor) -> Ragged:
        """The chosen texts, in that order."""
        starts, lengths = self.starts[chosen], self.lengths[chosen]
        return Ragged(self.numbers[_spread(starts, lengths)], lengths)

    def cut(self, length: int, keep: End) -> Ragged:
        """At most `length` numbers of each text, from its head or its tail."""
        lengths = self.lengths.clamp(max=length)
        starts = self.starts + (self.lengths - lengths if keep == "tail" else 0)
        return Ragged(self.numbers[_spread(starts, lengths)], lengths)

    @property
    def starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths


def _spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... for each text, one after the other."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)


def smallest_integer(size: int) -> torch.dtype:
    """The smallest type that holds 0 .. size - 1 and that torch can index (its unsigned 16 bits it cannot)."""
    return torch.uint8 if size <= 2**8 else torch.int16 if size <= 2**15 else torch.int32


@dataclass(frozen=True)
class Layout:
    """How texts become the rows of a batch.

    length: tokens at most. padding: the side of shorter texts that is filled. keep: which end of a longer text stays.
    bucketing: a batch is as long as its longest text, and texts of like length come together; else always `length`.
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
        """x (texts, longest) int64 and mask (texts, longest) bool, of texts that start at `starts` of `numbers`."""
        place = torch.arange(longest, device=numbers.device)[None, :]
        if self.padding == "left":
            place = place - (longest - lengths[:, None])
        mask = (place >= 0) & (place < lengths[:, None])
        position = (starts[:, None] + place).clamp(0, len(numbers) - 1)
        return numbers[position].long().masked_fill(~mask, self.pad_number), mask

    def encoded(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """One batch of new texts."""
        ragged = Ragged.of(texts, 2**31).cut(self.length, self.keep)
        longest = int(ragged.lengths.max()) if self.bucketing else self.length
        return self.batch(ragged.numbers, ragged.starts, ragged.lengths, longest)


@dataclass(frozen=True)
class TokenSplit:
    """A split of texts (each of at least one token), resident on the device, where a batch is gathered and padded.

    With bucketing an epoch shuffles the texts, sorts pools of `POOL` batches by length, and shuffles the batches: all
    of it on the host, where the lengths are known without asking the device.
    """

    texts: Ragged
    labels: Tensor
    layout: Layout
    order: Order = shuffled
    device: torch.device = CPU
    resident: tuple[Tensor, ...] = ()  # numbers, starts, lengths, labels on the device
    rank: int = 0  # of `n_ranks` processes, each with its part of every batch
    n_ranks: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def n_batches(self, batch_size: int) -> int:
        return -(-len(self) // batch_size)

    def to(self, device: torch.device) -> TokenSplit:
        columns = (self.texts.numbers, self.texts.starts, self.texts.lengths, self.labels)
        return replace(self, device=device, resident=tuple(column.to(device) for column in columns))

    def batches(self, batch_size: int) -> Iterator[TokenBatch]:
        return self._batches(own_of(torch.arange(len(self)).split(batch_size), self.rank, self.n_ranks))

    def divided(self, rank: int, n_ranks: int) -> TokenSplit:
        return replace(self, rank=rank, n_ranks=n_ranks)

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        return self._batches(parts_of(self._shuffled(batch_size, seed, epoch)[start:], self.rank, self.n_ranks))

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        return [len(batch) for batch in self._shuffled(batch_size, seed, epoch)[start:]]

    def _shuffled(self, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        order = torch.as_tensor(self.order(len(self), seed, epoch))
        batches = order.split(batch_size)
        if self.layout.bucketing and self.order is not in_order:
            pools = [pool[self.texts.lengths[pool].argsort(stable=True)] for pool in order.split(POOL * batch_size)]
            batches = [batch for pool in pools for batch in pool.split(batch_size)]
            batches = [batches[i] for i in torch.as_tensor(self.order(len(batches), seed, epoch)).tolist()]
        return batches

    def _batches(self, chosen: Sequence[Tensor]) -> Iterator[TokenBatch]:
        numbers, starts, lengths, labels = self.resident or self.to(self.device).resident
        sizes = [len(batch) for batch in chosen]
        on_device = torch.cat(list(chosen)).to(self.device).split(sizes) if chosen else ()
        for batch, indices in zip(chosen, on_device, strict=True):
            longest = int(self.texts.lengths[batch].max()) if self.layout.bucketing else self.layout.length
            x, mask = self.layout.batch(numbers, starts[indices], lengths[indices], longest)
            yield TokenBatch(x, mask, labels[indices])


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
    extras: Mapping[str, Any] | None = None,
) -> Dataset:
    """Splits of (texts, labels) as a data set whose encoder and layout travel with a run.

    With bucketing a split is stored by length, so that its batches in the stored order are not padded much either.
    """
    splits, columns = {}, []
    for split, (whole, labels) in texts.items():
        cut = whole.cut(layout.length, layout.keep)
        columns += [*cut, labels]
        stored = cut.lengths.argsort(stable=True) if layout.bucketing else torch.arange(len(labels))
        splits[split] = TokenSplit(cut.take(stored), labels[stored], layout, order)
    preprocessing = {
        "encoder": encoder.plain(),
        "layout": {name: getattr(layout, name) for name in layout.__dataclass_fields__},
        "class_names": list(class_names),
    }
    train, val, test = (splits[split] for split in ("train", "val", "test"))
    found = {"vocabulary": encoder.words, "encoder": encoder, "layout": layout, **(extras or {})}
    return Dataset(name, label, train, val, test, fingerprint(*columns), tuple(class_names), note, found, preprocessing)


def pad_number(specials: Sequence[str], pad_with: str = PADDING) -> int:
    """The padding's number. Raises ValueError where it is none of the specials."""
    if pad_with not in specials:
        raise ValueError(f"pad_with {pad_with!r} is none of the specials {', '.join(specials)}")
    return list(specials).index(pad_with)
