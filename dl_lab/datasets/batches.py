"""Splits: tensors resident on the device, or streamed from host memory by workers; the same batches either way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from dl_lab.types import Batch

Residence = Literal["auto", "device", "stream"]
Order = Callable[[int, int, int], Any]  # (n, seed, epoch) -> a permutation of n items: a tensor or an array
CPU = torch.device("cpu")


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of n items (int64), a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    return torch.randperm(n, generator=generator)


def in_order(n: int, seed: int, epoch: int) -> Tensor:
    """The stored order, for sources that do not shuffle."""
    return torch.arange(n)


def uniform(n: int, n_draws: int, seed: int, epoch: int) -> Tensor:
    """n_draws numbers in [0, 1) for each of n items (n, n_draws), a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(_mix(seed, epoch, "draws"))
    return torch.rand(n, n_draws, generator=generator)


def _mix(*parts: int | str) -> int:
    """One 63-bit seed of all; neighbouring epochs and seeds share nothing (seed + epoch would)."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class TensorSplit:
    """A split held as tensors whose first axis is the item.

    `columns` is a NamedTuple of tensors, kept as small as they come (uint8 images); `transform` turns a raw batch,
    already on the device, into what the model takes. Resident columns live on the device and a batch is one
    index_select; streamed ones stay in host memory and workers gather the batches. n_draws > 0: in a training
    epoch `transform` takes, after the batch, that many uniform numbers for each item (batch, n_draws), to augment it.
    """

    columns: Any
    transform: Callable[..., Batch]
    order: Order = shuffled
    residence: Residence = "auto"
    workers: int = 2
    device: torch.device = CPU
    n_draws: int = 0
    rank: int = 0  # of `n_ranks` processes, each with its part of every batch
    n_ranks: int = 1

    def __len__(self) -> int:
        return len(self.columns[0])

    def n_batches(self, batch_size: int) -> int:
        return -(-len(self) // batch_size)

    def to(self, device: torch.device) -> TensorSplit:
        residence = self.residence
        if residence == "auto":
            residence = "device" if _fits(self.columns, device) else "stream"
        columns = _moved(self.columns, device) if residence == "device" else self.columns
        return replace(self, columns=columns, device=device, residence=residence)

    def divided(self, rank: int, n_ranks: int) -> TensorSplit:
        return replace(self, rank=rank, n_ranks=n_ranks)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        return self._batches(own_of(torch.arange(len(self)).split(batch_size), self.rank, self.n_ranks))

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        draws = uniform(len(self), self.n_draws, seed, epoch) if self.n_draws else None
        batches = self._shuffled(batch_size, seed, epoch)[start:]
        return self._batches(parts_of(batches, self.rank, self.n_ranks), draws)

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        return [len(batch) for batch in self._shuffled(batch_size, seed, epoch)[start:]]

    def _shuffled(self, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        return torch.as_tensor(self.order(len(self), seed, epoch)).split(batch_size)

    def _batches(self, indices: Sequence[Tensor], draws: Tensor | None = None) -> Iterator[Batch]:
        raw = self._streamed(indices) if self.residence == "stream" else self._resident(indices)
        if draws is None:
            return (self.transform(batch) for batch in raw)
        own = draws[torch.cat(list(indices))].to(self.device) if indices else draws[:0]
        return map(self.transform, raw, own.split([len(chosen) for chosen in indices]))

    def _resident(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        batch = type(self.columns)
        if self.device.type != "cpu":  # one copy of the whole order instead of one per batch
            sizes = [len(chosen) for chosen in indices]
            indices = torch.cat(list(indices)).to(self.device).split(sizes) if indices else ()
        for chosen in indices:
            yield batch(*[column.index_select(0, chosen) for column in self.columns])

    def _streamed(self, indices: Sequence[Tensor]) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        loader: DataLoader[Any] = DataLoader(
            _Gather(self.columns),  # pyright: ignore[reportArgumentType]
            batch_size=None,
            sampler=list(indices),  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's own stream
        )
        for columns in loader:
            yield _moved(type(self.columns)(*columns), self.device)


def own_of(batches: Sequence[Tensor], rank: int, n_ranks: int) -> Sequence[Tensor]:
    """One process's part of each batch of indices; what is empty is left out."""
    if n_ranks == 1:
        return batches
    return [part for batch in batches if len(part := batch.tensor_split(n_ranks)[rank])]


def parts_of(batches: Sequence[Tensor], rank: int, n_ranks: int) -> Sequence[Tensor]:
    """One process's part of each batch of indices, its first item where it is empty (see `Split.divided`)."""
    if n_ranks == 1:
        return batches
    return [part if len(part := batch.tensor_split(n_ranks)[rank]) else batch[:1] for batch in batches]


class _Gather:
    """Indexes all columns by a tensor of indices, inside a worker."""

    def __init__(self, columns: Any) -> None:
        self.columns = columns

    def __getitem__(self, chosen: Tensor) -> tuple[Tensor, ...]:
        return tuple(column.index_select(0, chosen) for column in self.columns)


def _moved(columns: Any, device: torch.device) -> Any:
    return type(columns)(*[column.to(device, non_blocking=True) for column in columns])


def _fits(columns: Any, device: torch.device) -> bool:
    """Whether the columns take at most half of the device's free memory."""
    if device.type != "cuda":
        return True
    needed = sum(column.numel() * column.element_size() for column in columns)
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= free // 2


def fingerprint(*columns: Tensor) -> str:
    """Identifies the content: sha256 over the bytes, shapes and types (first 16 hex digits)."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.dtype} {tuple(column.shape)}".encode())
        digest.update(column.contiguous().numpy().data)
    return digest.hexdigest()[:16]
