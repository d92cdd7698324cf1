"""Data sets of torch (`torch.utils.data`) as splits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from dl_lab.datasets.batches import CPU, Order, mix_seed, own_of, parts_of, shuffled
from dl_lab.types import Batch, ConfigError, LabelledBatch, map_columns

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class LoaderSplit:
    """A data set of torch as a split: map-style (with `len` and `[i]`), or iterable.

    A map-style data set is shuffled in an order that depends on (seed, epoch) only. The random numbers that its `[i]`
    draws depend on (seed, epoch, i) only, so that a resumed run sees the same augmentations. An iterable data set comes
    in its own order. Its method `set_epoch(epoch)`, if it has one, is called before each epoch. Without a length, an
    epoch has `n_batches_per_epoch` batches.

    Two columns become a `LabelledBatch` (x, y). A mapping stays a mapping, whose labels are called "y" or "labels".

    Attributes:
        dataset: The data set of torch.
        collate: Makes a batch of a list of items. None takes torch's own function.
        workers: Processes that load the items.
        drop_last: Whether a smaller last batch of an epoch is left out.
        n_batches_per_epoch: Batches of an epoch of an iterable data set.
        order: (n, seed, epoch) -> the order of the items.
        device: The device of the batches.
        rank: The number of this process, which has its part of every batch.
        n_ranks: The number of processes.
    """

    dataset: Any
    collate: Collate | None = None
    workers: int = 0
    drop_last: bool = False
    n_batches_per_epoch: int | None = None
    order: Order = shuffled
    device: torch.device = CPU
    rank: int = 0
    n_ranks: int = 1

    @property
    def is_iterable(self) -> bool:
        """Whether the data set comes in its own order."""
        return isinstance(self.dataset, IterableDataset)

    def __len__(self) -> int:
        """The number of items; 0 where it is not known."""
        return len(self.dataset) if isinstance(self.dataset, Sized) else 0

    def n_batches(self, batch_size: int) -> int:
        """Return the number of batches of an epoch.

        Raises:
            ConfigError: The data set has no length, and `n_batches_per_epoch` is missing.
        """
        if self.n_batches_per_epoch is not None:
            return self.n_batches_per_epoch
        if not isinstance(self.dataset, Sized):
            raise ConfigError(f"A {type(self.dataset).__name__} has no length: give n_batches_per_epoch.")
        whole, rest = divmod(len(self), batch_size)
        return whole if self.drop_last and whole else whole + (rest > 0)

    def to(self, device: torch.device) -> LoaderSplit:
        """Return the same split with batches on `device`."""
        return replace(self, device=device)

    def divided(self, rank: int, n_ranks: int) -> LoaderSplit:
        """Return the part of one of several processes.

        Raises:
            ConfigError: An iterable data set cannot be divided.
        """
        if self.is_iterable and n_ranks > 1:
            raise ConfigError("An iterable data set works in one process: start it without torchrun.")
        return replace(self, rank=rank, n_ranks=n_ranks)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Return every item once, in the stored order."""
        if self.is_iterable:
            return self._stream(batch_size, 0, 0)
        indices = torch.arange(len(self)).split(batch_size)
        return self._load(own_of(indices, self.rank, self.n_ranks), mix_seed("stored"))

    def epoch(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on."""
        if self.is_iterable:
            return self._stream(batch_size, epoch, start)
        indices = self._indices(batch_size, seed, epoch)[start:]
        return self._load(parts_of(indices, self.rank, self.n_ranks), mix_seed(seed, epoch, "items"))

    def sizes(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> list[int]:
        """Return how many items the batches of an epoch have in all processes."""
        if self.is_iterable:
            return [batch_size] * (self.n_batches(batch_size) - start)
        return [len(indices) for indices in self._indices(batch_size, seed, epoch)[start:]]

    def _indices(self, batch_size: int, seed: int, epoch: int) -> Sequence[Tensor]:
        order = torch.as_tensor(self.order(len(self), seed, epoch))
        return order.split(batch_size)[: self.n_batches(batch_size)]

    def _load(self, indices: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Seeded(self.dataset, seed, in_worker=self.workers > 0),  # pyright: ignore[reportArgumentType]  # it has no base class
            batch_sampler=[chosen.tolist() for chosen in indices],
            collate_fn=self.collate or default_collate,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader draws a seed for its workers: the run's own stream must not move
        )
        return map(self._finish, loader)

    def _stream(self, batch_size: int, epoch: int, start: int) -> Iterator[Batch]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size=batch_size,
            drop_last=self.drop_last,
            collate_fn=self.collate or default_collate,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        return map(self._finish, itertools.islice(loader, start, self.n_batches_per_epoch))

    def _finish(self, batch: Batch) -> Batch:
        if type(batch) in (list, tuple) and len(batch) == 2:
            batch = LabelledBatch(*batch)
        return map_columns(batch, lambda column: column.to(self.device, non_blocking=True))


class _Seeded:
    """A data set whose items draw random numbers that depend on (seed, item) only."""

    def __init__(self, dataset: Any, seed: int, in_worker: bool) -> None:
        self.dataset = dataset
        self.seed = seed
        self.in_worker = in_worker

    def __getitem__(self, i: int) -> Any:
        if self.in_worker:
            self._seed_generators(i)
            return self.dataset[i]
        torch_state = torch.get_rng_state()  # these generators are the run's own
        numpy_state = np.random.get_state()
        python_state = random.getstate()
        try:
            self._seed_generators(i)
            return self.dataset[i]
        finally:
            torch.set_rng_state(torch_state)
            np.random.set_state(numpy_state)
            random.setstate(python_state)

    def _seed_generators(self, i: int) -> None:
        seed = mix_seed(self.seed, i)
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
