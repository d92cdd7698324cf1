"""One job on several processes: `torchrun -m dl_lab ...` with DistributedDataParallel.

Every process computes the gradient of its part of each batch. The parts' gradients add up to the gradient of the whole
batch, so that N processes do, up to rounding, what one process does at the same batch size. Random parts (dropout,
augmentation) draw other numbers in each process. Batch normalisation sees the whole batch on GPUs only. Only rank 0
writes.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from dl_lab.runs.machine import is_several
from dl_lab.types import Batch, Interrupted, Tally, Task, UserError, add_tallies, measure_state

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes of this job.

    Attributes:
        rank: The number of this process, 0 to size - 1.
        size: The number of processes.
        local_rank: The number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, by rank. All processes must call it."""
        if self.size == 1:
            return [value]
        values = [value] * self.size  # each place takes the value of its rank
        torch.distributed.all_gather_object(values, value)
        return values

    def share(self, value: Value) -> Value:
        """Return the value of rank 0. All processes must call it."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def any(self, holds: bool) -> bool:
        """Return whether a condition holds in any process. All processes must call it."""
        return any(self.gather(holds))

    def sum_each(self, tallies: Sequence[Tally]) -> list[Tally]:
        """Return the tallies of the same steps, added over the processes in the order of their ranks."""
        if self.size == 1:
            return list(tallies)
        found = self.gather([_move_to_host(tally) for tally in tallies])
        return [functools.reduce(add_tallies, step) for step in zip(*found, strict=True)]

    def part_of(self, n: int) -> int:
        """Return how many of a batch's n items this process has, as `Tensor.tensor_split` divides them."""
        whole, rest = divmod(n, self.size)
        return whole + (self.rank < rest)


def _move_to_host(tally: Tally) -> Tally:
    moved: Tally = {}
    for name, measure in tally.items():
        moved[name] = type(measure)(*[_move_to_cpu(part) for part in measure_state(measure)])
    return moved


def _move_to_cpu(part: object) -> object:
    if isinstance(part, Tensor):
        return part.detach().cpu()
    if isinstance(part, nn.Module):  # a metric of torchmetrics
        return part.cpu()
    return part


@functools.cache
def world() -> World:
    """Return the processes that torchrun started. The first call connects them.

    Raises:
        UserError: The processes cannot reach each other.
    """
    if not is_several():
        return World()
    found = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    try:
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if _has_a_gpu(found) else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"The {found.size} processes cannot reach each other: {error}") from error
    return found


def _has_a_gpu(found: World) -> bool:
    return torch.distributed.is_nccl_available() and found.local_rank < torch.cuda.device_count()


def leave() -> None:
    """Disconnect this process from the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        world.cache_clear()


@contextmanager
def together() -> Iterator[None]:
    """Interrupt this process when another process of the job is gone. The run continues from its last checkpoint.

    Raises:
        Interrupted: Another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if world().size == 1 or not gone:
            raise
        raise Interrupted("Another process of this job is gone.") from error


def seed_by_rank(seed: int) -> None:
    """Seed torch by rank, so that random parts differ between the processes. Rank 0 keeps its random stream."""
    if world().rank:
        digest = hashlib.sha256(f"{seed} rank {world().rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class LossOfPart(nn.Module):
    """A task's loss as a module, so that DistributedDataParallel sees every call of the model."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss of a batch, and its tally."""
        return self.task.loss(self.model, batch)


def build_parallel(model: nn.Module, task: Task, device: torch.device) -> nn.parallel.DistributedDataParallel:
    """Return the loss whose backward pass averages the gradients over the processes."""
    return nn.parallel.DistributedDataParallel(
        LossOfPart(model, task),
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # `share_buffers` once an epoch: accumulation may differ in the last batch
    )


def share_buffers(model: nn.Module) -> None:
    """Copy the buffers (running means) of rank 0 to all processes."""
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)


def describe() -> Mapping[str, object]:
    """Return what env.json says about the processes."""
    if not is_several():
        return {}
    return {"processes": world().size, "torchrun": os.environ.get("TORCHELASTIC_RUN_ID", "")}
