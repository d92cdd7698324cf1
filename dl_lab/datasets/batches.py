"""Splits: tensors that reside on the device, or that workers stream from host memory, with the same batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.types import Batch, columns_of, n_items, rebuild

Residence = Literal["auto", "device", "stream"]
Order = Callable[[int, int, int], "Tensor | np.ndarray"]  # (n, seed, epoch) -> a permutation of n items
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Loading:
    """Where the items of a data set reside, and how many processes gather its batches.

    Args:
        residence: "device" keeps all items on the device. "stream" keeps them in host memory and moves batches. "auto"
            chooses the device if the items fit into half of its free memory.
        workers: Processes that gather the batches of a streamed data set.
    """

    residence: Residence
    workers: int


AUTO = Loading("auto", 2)  # for data sets built in Python; conf/dataset/loading/auto.yaml is the default of configs


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """Return a permutation of n items (int64), a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    return torch.randperm(n, generator=generator)


def in_order(n: int, seed: int, epoch: int) -> Tensor:
    """Return the stored order, for sources that do not shuffle."""
    return torch.arange(n)


def uniform(n: int, n_draws: int, seed: int, epoch: int) -> Tensor:
    """Return n_draws numbers in [0, 1) for each of n items (n, n_draws), a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, "draws"))
    return torch.rand(n, n_draws, generator=generator)


def mix_seed(*parts: int | str) -> int:
    """Return one seed of 63 bits for all parts. Neighbouring seeds and epochs share nothing, as seed + epoch would."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class TensorSplit:
    """A split held as tensors whose first axis is the item.

    A batch of resident columns is one index_select on the device. Streamed columns stay in host memory, and workers
    gather the batches.

    Args:
        columns: A NamedTuple or a mapping of tensors, as small as they come (uint8 images).
        transform: Turns a raw batch, already on the device, into the batch that the model takes.
        order: The order of a training epoch.
        residence: Where the columns reside (see `Loading`).
        workers: Processes that gather streamed batches.
        device: The device of the batches.
        n_draws: How many uniform numbers for each item `transform` takes in a training epoch to augment the batch, as
            a second argument (batch, n_draws).
        rank: The number of this process, which has its part of every batch.
        n_ranks: The number of processes.
    """

    columns: Batch
    transform: Callable[..., Batch]
    order: Order = shuffled
    residence: Residence = "auto"
    workers: int = 2
    device: torch.device = CPU
    n_draws: int = 0
    rank: int = 0
    n_ranks: int = 1

    def __len__(self) -> int:
        return n_items(self.columns)

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self) // batch_size)

    def to(self, device: torch.device) -> TensorSplit:
        """Return the split with batches on a device, where its columns move if they are to reside there."""
        residence = self.residence
        if residence == "auto":
            residence = "device" if _fits(self.columns, device) else "stream"
        columns = _move(self.columns, device) if residence == "device" else self.columns
        return replace(self, columns=columns, device=device, residence=residence)

    def divided(self, rank: int, n_ranks: int) -> TensorSplit:
        """Return the part of one of several processes."""
        return replace(self, rank=rank, n_ranks=n_ranks)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Return every item once, in the stored order."""
        return self._gather(own_of(torch.arange(len(self)).split(batch_size), self.rank, self.n_ranks))

    def select(self, indices: Tensor) -> Batch:
        """Return one batch of chosen items, in this order, as `batches` gives them.

        Args:
            indices: (n,) int64, on the CPU.
        """
        columns = columns_of(self.columns)
        chosen = [column.index_select(0, indices.to(column.device)) for column in columns]
        return self.transform(_move(rebuild(self.columns, chosen), self.device))

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on."""
        draws = uniform(len(self), self.n_draws, seed, epoch) if self.n_draws else None
        batches = self._shuffle(batch_size, seed, epoch)[start:]
        return self._gather(parts_of(batches, self.rank, self.n_ranks), draws)

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        """Return how many items the batches of an epoch have in all processes."""
        return [len(batch) for batch in self._shuffle(batch_size, seed, epoch)[start:]]

    def _shuffle(self, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        return torch.as_tensor(self.order(len(self), seed, epoch)).split(batch_size)

    def _gather(self, indices: Sequence[Tensor], draws: Tensor | None = None) -> Iterator[Batch]:
        raw = self._stream(indices) if self.residence == "stream" else self._index(indices)
        if draws is None:
            return (self.transform(batch) for batch in raw)
        own = draws[torch.cat(list(indices))].to(self.device) if indices else draws[:0]
        return map(self.transform, raw, own.split([len(chosen) for chosen in indices]))

    def _index(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        if self.device.type != "cpu":  # one copy of the whole order, not one of each batch
            sizes = [len(chosen) for chosen in indices]
            indices = torch.cat(list(indices)).to(self.device).split(sizes) if indices else ()
        for chosen in indices:
            yield rebuild(self.columns, [column.index_select(0, chosen) for column in columns_of(self.columns)])

    def _stream(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        loader: DataLoader[tuple[Tensor, ...]] = DataLoader(
            _Gather(self.columns),  # pyright: ignore[reportArgumentType]  # a Dataset, but indexed by tensors
            batch_size=None,
            sampler=list(indices),  # pyright: ignore[reportArgumentType]  # declared for single items
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a seed for its workers: the run's own stream must not move
        )
        for columns in loader:
            yield _move(rebuild(self.columns, columns), self.device)


def own_of(batches: Sequence[Tensor], rank: int, n_ranks: int) -> Sequence[Tensor]:
    """Return one process's part of each batch of indices, without empty parts."""
    if n_ranks == 1:
        return batches
    parts = [batch.tensor_split(n_ranks)[rank] for batch in batches]
    return [part for part in parts if len(part)]


def parts_of(batches: Sequence[Tensor], rank: int, n_ranks: int) -> Sequence[Tensor]:
    """Return one process's part of each batch of indices; the batch's first item in place of an empty part.

    See `Split.divided`.
    """
    if n_ranks == 1:
        return batches
    parts: list[Tensor] = []
    for batch in batches:
        part = batch.tensor_split(n_ranks)[rank]
        parts.append(part if len(part) else batch[:1])
    return parts


class _Gather:
    """Indexes all columns by a tensor of indices, inside a worker."""

    def __init__(self, columns: Batch) -> None:
        self.columns = columns

    def __getitem__(self, chosen: Tensor) -> tuple[Tensor, ...]:
        return tuple(column.index_select(0, chosen) for column in columns_of(self.columns))


def _move(columns: Batch, device: torch.device) -> Batch:
    return rebuild(columns, [column.to(device, non_blocking=True) for column in columns_of(columns)])


def _fits(columns: Batch, device: torch.device) -> bool:
    """Return whether the columns take at most half of the device's free memory."""
    if device.type != "cuda":
        return True
    needed = sum(column.numel() * column.element_size() for column in columns_of(columns))
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= free // 2


def fingerprint(*columns: Tensor) -> str:
    """Return a name of the content: the first 16 hex digits of the sha256 over bytes, shapes and types."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.dtype} {tuple(column.shape)}".encode())
        digest.update(column.contiguous().numpy().data)
    return digest.hexdigest()[:16]
