"""Learning by gradient: one batch changes the weights, and one batch judges them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dl_lab.tasks.inputs import predict
from dl_lab.training import distributed
from dl_lab.training.base_learner import BaseLearner
from dl_lab.training.schedules import Schedule
from dl_lab.training.startup import plain_step, spare_compiler
from dl_lab.training.warm_start import warm_start
from dl_lab.types import Batch, Splits, Tally, Task, UserError, add_tallies, map_columns, n_items, split_batch

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class GradientLearner(BaseLearner):
    """A model, the task it is trained for, and how its weights move."""

    settings = frozenset({"channels_last", "clip_norm", "n_processes"})

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: Callable[[Any], Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        schedule_every: Literal["epoch", "step"] = "epoch",
        precision: Precision = "fp32",
        clip_norm: float | None = None,
        accumulation: int = 1,
        channels_last: bool = False,
        compile: bool = False,
        out_of_memory: Literal["halve", "raise"] = "halve",
        lr_factors: Mapping[str, float] | None = None,
        schedule_monitor: str = "val/loss",
        start_from: str | None = None,
        start_except: Sequence[str] = (),
    ) -> None:
        """Build the optimizer and the schedule.

        Args:
            model: The model.
            task: The loss and the measures. A task that is an `nn.Module` is trained with the model.
            optimizer: Parameters -> optimizer.
            scheduler: Optimizer -> scheduler. A length that is not given (T_max, total_steps, ...) becomes the length
                of the whole training (see `Schedule`).
            schedule_every: Whether the scheduler steps after each "epoch" or after each "step", which is an update.
            precision: The autocast of the forward pass. "fp16" also scales the loss.
            clip_norm: The largest L2 norm that the whole gradient may have. None does not clip.
            accumulation: Number of micro-batches that a batch is split into. Their gradients add up to the gradient
                of the whole batch.
            channels_last: Whether images are stored with the channels last in memory. The values stay the same.
            compile: Whether the model is compiled.
            out_of_memory: "halve" doubles `accumulation` and repeats the batch when the device's memory is full, down
                to micro-batches of one item. The effective batch stays; batch normalisation sees smaller batches.
                Evaluation batches that do not fit are split in the same way (`evaluation_parts` in the notes).
            lr_factors: Discriminative learning rates (Howard and Ruder, arXiv 1801.06146, section 3.2). Parameters
                whose name starts with a key (a module's dotted name) learn at that multiple of the optimizer's rate.
                The longest key counts; all other parameters learn at the whole rate.
            schedule_monitor: The metric for a scheduler that takes one (ReduceLROnPlateau).
            start_from: The run or safetensors file whose weights the training begins with (see `warm_start`).
            start_except: Parts of the model that keep their initial weights all the same.

        Raises:
            ValueError: A key of `lr_factors` names no trained part.
            UserError: The scheduler sets one rate for all groups of `lr_factors`. A scheduler that needs the length of
                the training is checked when the fit starts.
        """
        if accumulation < 1:
            raise ValueError(f"accumulation {accumulation} is not at least 1")
        self.model = model
        self.task = task
        self.forward: nn.Module = _compile(model) if compile else model
        trained = _find_trained(model, task)
        self.trainable = list(trained.values())
        if not compile:
            spare_compiler()
        self.optimizer = optimizer(_group_by_factor(trained, lr_factors) if lr_factors else self.trainable)
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * group.get("lr_factor", 1)
        self.schedule = Schedule(scheduler, self.optimizer, schedule_every, schedule_monitor) if scheduler else None
        self.clip_norm = clip_norm
        self.accumulation = accumulation
        self.evaluation_parts = 1
        self.precision = precision
        self.channels_last = channels_last
        self.out_of_memory = out_of_memory
        self.start_from = start_from
        self.start_except = tuple(start_except)
        self.step = plain_step(self.optimizer)
        self.scaler: GradScaler | None = None  # fp16 on a GPU only
        self.n_processes = 1
        self._parallel: Callable[[Batch], tuple[Tensor, Tally]] | None = None
        self._unsynced: Callable[[], AbstractContextManager[object]] = nullcontext

    def initialise(self) -> None:
        """Take the weights of `start_from`."""
        if self.start_from is not None:
            warm_start(self.model, self.start_from, self.start_except)

    def start(self, dataset: Splits) -> None:
        """Let the task prepare for the data."""
        start = getattr(self.task, "start", None)
        if start is not None:
            start(dataset, self.device)

    def to(self, device: torch.device) -> None:
        """Move the model, and the task if it is a module."""
        super().to(device)
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # missing in the stub
        if self.precision == "fp16" and device.type == "cuda":
            self.scaler = GradScaler(device.type)

    def least_items(self) -> int:
        """Return two items for each micro-batch: batch normalisation refuses a batch of one item."""
        return 2 * self.accumulation

    def narrow(self, part: nn.Module) -> None:
        """Train this part of the model only. From now on a batch holds the inputs of the part."""
        self.forward = part if self.forward is self.model else _compile(part)

    def distribute(self, n_processes: int) -> None:
        """Prepare for several processes, which see parts of each batch and all make the step of the whole batch."""
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        elif any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            warnings.warn(
                "Batch normalisation sees only each process's part of a batch (on GPUs it sees the whole batch).",
                stacklevel=2,
            )
        program = distributed.build_parallel(self.forward, self.task, self.device)
        self._parallel = program
        self._unsynced = program.no_sync
        self.n_processes = n_processes
        self.out_of_memory = "raise"  # one process alone cannot repeat a step

    def _compute_loss(self, batch: Batch) -> tuple[Tensor, Tally]:
        if self._parallel is not None:
            return self._parallel(batch)
        return self.task.loss(self.forward, batch)

    def share_buffers(self) -> None:
        """Give the running means of the first process to all processes."""
        for module in self.modules().values():
            distributed.share_buffers(module)

    def update(self, batch: Batch, weight: float = 1.0) -> Tally:
        """Move the weights by the gradient of one batch."""
        while True:
            try:
                return self._update(batch, weight)
            except torch.OutOfMemoryError:
                if self.out_of_memory == "raise" or self.accumulation >= n_items(batch):
                    raise
                self._forget_gradients()
                self.accumulation *= 2
                warnings.warn(
                    f"Out of memory: micro-batches of {-(-n_items(batch) // self.accumulation)} items from now on. "
                    "The effective batch stays the same.",
                    stacklevel=2,
                )
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UserError(
                    f"Batch normalisation refuses a micro-batch of one item (the batch has {n_items(batch)} items, "
                    f"learner.accumulation is {self.accumulation}): use trainer.drop_last=true, or another "
                    "trainer.batch_size."
                ) from error

    def _update(self, batch: Batch, weight: float) -> Tally:
        if not self.model.training:
            self.model.train()
        tally: Tally = {}
        parts = list(self._micro_batches(batch, self.accumulation))
        for i, (part, share) in enumerate(parts, 1):
            with nullcontext() if i == len(parts) else self._unsynced():
                with self._autocast():
                    loss, part_tally = self._compute_loss(part)
                if share * weight != 1:
                    loss = loss * (share * weight)
                if self.scaler:
                    loss = self.scaler.scale(loss)
                loss.backward()
            tally = add_tallies(tally, part_tally) if tally else part_tally
        self._move_weights()
        self._forget_gradients()
        if self.schedule is not None:
            self.schedule.end_update()
        return tally

    def _move_weights(self) -> None:
        if self.scaler and self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trainable, self.clip_norm)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.step()

    def _forget_gradients(self) -> None:
        for parameter in self.trainable:  # faster than optimizer.zero_grad, which also tells the profiler
            parameter.grad = None

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Tally:
        """Judge one batch in evaluation mode."""
        if self.model.training:
            self.model.eval()
        while True:
            try:
                tally: Tally = {}
                for part, _ in self._micro_batches(batch, self.evaluation_parts):
                    with self._autocast():
                        own = self.task.measure(self.forward, part)
                    tally = add_tallies(tally, own) if tally else own
                return tally
            except torch.OutOfMemoryError:
                if self.out_of_memory == "raise" or self.evaluation_parts >= n_items(batch):
                    raise
                self.evaluation_parts *= 2
                size = -(-n_items(batch) // self.evaluation_parts)
                warnings.warn(f"Out of memory: evaluation batches of {size} items from now on.", stacklevel=2)

    @torch.no_grad()
    def predict(self, batch: Batch, module: nn.Module | None = None) -> Any:
        """Return the output of the model in evaluation mode. The labels of the batch are left out.

        Args:
            batch: The batch.
            module: Another module that predicts in place of the model.
        """
        if self.model.training:
            self.model.eval()
        with self._autocast():
            return predict(module or self.forward, self._arrange(batch))[0]

    def _micro_batches(self, batch: Batch, n_parts: int) -> Iterable[tuple[Batch, float]]:
        """Return the parts of a batch, and each part's share of the mean."""
        if n_parts == 1:
            return [(self._arrange(batch), 1)]
        size = n_items(batch)
        parts = split_batch(batch, min(n_parts, size))
        return [(self._arrange(part), n_items(part) / size) for part in parts]

    def _arrange(self, batch: Batch) -> Batch:
        return map_columns(batch, _channels_last) if self.channels_last else batch

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])

    def notes(self) -> dict[str, object]:
        """Return the numbers of micro-batches and of processes, and where the weights came from."""
        facts: dict[str, object] = {"accumulation": self.accumulation}
        if self.evaluation_parts > 1:
            facts["evaluation_parts"] = self.evaluation_parts
        if self.start_from is not None:
            facts["start_from"] = self.start_from
        if self.n_processes > 1:
            facts["processes"] = self.n_processes
        return facts

    def advice(self, loss: float) -> str:
        """Say where the task's loss is infinite, and give the usual advice."""
        where = getattr(self.task, "infinite_where", "")
        if not where or loss != math.inf:
            return super().advice(loss)
        return f"The loss is infinite where {where}. Otherwise: {super().advice(loss)}"


def _compile(module: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(module)  # declared as any callable; torch gives an OptimizedModule for a module
    return compiled


def _channels_last(column: Tensor) -> Tensor:
    return column.contiguous(memory_format=torch.channels_last) if column.dim() == 4 else column


def _find_trained(model: nn.Module, task: Task) -> dict[str, nn.Parameter]:
    """Return the trained parameters by name. Parameters of a task that is a module are called `task.<name>`."""
    named = list(model.named_parameters())
    if isinstance(task, nn.Module):
        known = {id(parameter) for _, parameter in named}
        named += [(f"task.{name}", p) for name, p in task.named_parameters() if id(p) not in known]
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def _group_by_factor(trained: Mapping[str, nn.Parameter], lr_factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return one group of parameters for each key of lr_factors, and the group "rest"."""
    groups: dict[str, dict[str, Any]] = {}
    for part, factor in {**lr_factors, "rest": lr_factors.get("rest", 1.0)}.items():
        groups[part] = {"params": [], "part": part, "lr_factor": float(factor)}
    for name, parameter in trained.items():
        fitting = [part for part in lr_factors if name == part or name.startswith(part + ".")]
        groups[max(fitting, key=len) if fitting else "rest"]["params"].append(parameter)
    for part in lr_factors:
        if not groups[part]["params"]:
            parts = dict.fromkeys(name.split(".")[0] for name in trained)
            raise ValueError(f"lr_factors.{part}: the model trains no such part; it trains {', '.join(parts)}")
    return [group for group in groups.values() if group["params"]]
