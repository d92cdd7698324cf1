"""One job on several processes: `torchrun -m dl_lab ...` with DistributedDataParallel.

Every process computes the gradient of its part of each batch; the parts' gradients add up to that of the whole batch,
so N processes do what one does at the same batch size, to rounding. What has a random part (dropout, augmentation)
draws other numbers, and batch normalisation sees the whole batch on GPUs only. Only the process of rank 0 writes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.types import Batch, Interrupted, Tally, Task, UserError, add_tallies


@dataclass(frozen=True)
class World:
    """The processes of this job. rank: this one's number, 0 to size - 1; local_rank: its number on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank. All processes must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value. All processes must call it."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum_each(self, tallies: Sequence[Tally]) -> list[Tally]:
        """The tallies of the same steps, added over the processes in the order of their ranks."""
        if self.size == 1:
            return list(tallies)
        found = self.gather([_on_host(tally) for tally in tallies])
        return [functools.reduce(add_tallies, step) for step in zip(*found, strict=True)]

    def part_of(self, n: int) -> int:
        """How many of a batch's n items are this process's, as `Tensor.tensor_split` divides them."""
        whole, rest = divmod(n, self.size)
        return whole + (self.rank < rest)


def _on_host(tally: Tally) -> Tally:
    return {name: _measure_on_host(measure) for name, measure in tally.items()}


def _measure_on_host(measure: Any) -> Any:
    fields = {field.name: getattr(measure, field.name) for field in dataclasses.fields(measure)}
    return type(measure)(**{k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in fields.items()})


def is_several() -> bool:
    """Whether torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@functools.cache
def world() -> World:
    """The processes that torchrun started; the first call connects them. Raises UserError where that fails."""
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
    """Disconnect."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        world.cache_clear()


@contextmanager
def together() -> Iterator[None]:
    """A process that is gone interrupts the others: what was saved last is gone on with."""
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if world().size == 1 or not gone:
            raise
        raise Interrupted("Another process of this job is gone.") from error


def own_seed(seed: int) -> None:
    """Let the random parts differ between the processes; rank 0 draws what a single process would."""
    if world().rank:
        digest = hashlib.sha256(f"{seed} rank {world().rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class LossOfPart(nn.Module):
    """A task's loss as a module, so that DistributedDataParallel sees whatever the task calls of the model."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Batch) -> tuple[Tensor, Tally]:
        return self.task.loss(self.model, batch)


def parallel(model: nn.Module, task: Task, device: torch.device) -> nn.parallel.DistributedDataParallel:
    """The loss whose backward pass averages the gradients over the processes."""
    return nn.parallel.DistributedDataParallel(
        LossOfPart(model, task),
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # `share_buffers` once an epoch: accumulation may differ in the last batch
    )


def share_buffers(model: nn.Module) -> None:
    """Rank 0's buffers (running means) for all."""
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)


def describe() -> Mapping[str, Any]:
    """What env.json says about the processes."""
    if not is_several():
        return {}
    return {"processes": world().size, "torchrun": os.environ.get("TORCHELASTIC_RUN_ID", "")}
