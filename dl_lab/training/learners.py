"""Learning by gradient: one batch changes the weights, one batch judges them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dl_lab.training import distributed
from dl_lab.training.startup import plain_step, spare_compiler
from dl_lab.types import Batch, Metrics, Tally, Task, UserError, add_tallies

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _wants_total(scheduler: Callable[..., LRScheduler]) -> bool:
    """Whether a scheduler's `total_steps` is still open."""
    parameter = inspect.signature(scheduler).parameters.get("total_steps")
    return parameter is not None and parameter.default in (None, parameter.empty)


class GradientLearner:
    """A model, what it is trained for, and how its weights move.

    optimizer: parameters -> Optimizer. scheduler: Optimizer -> LRScheduler, stepped after each epoch ("epoch")
    or each update ("step"); one of updates whose `total_steps` was not given (OneCycleLR) gets the number of updates
    of the whole training. accumulation: the batch is split into this many micro-batches whose gradients add up
    to the gradient of the whole batch. clip_norm: largest L2 norm of the whole gradient. precision: autocast of
    the forward pass (fp16 with loss scaling). channels_last: images in that memory order (same values).
    out_of_memory: "halve" doubles `accumulation` and repeats the batch when the device's memory is full, down to
    micro-batches of one item: the effective batch stays, batch normalisation sees smaller ones. An evaluation
    whose batch does not fit is split likewise (`evaluation_parts` in the notes).
    lr_factors: discriminative learning rates (Howard and Ruder, arXiv 1801.06146, section 3.2): parameters whose name
    starts with a key (a module's dotted name) learn at that multiple of the optimizer's lr, the longest key counts;
    all others at 1. Raises ValueError for a key that is no trained part; UserError, at the latest when a fit starts,
    for a scheduler that sets one rate for all.
    """

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
    ) -> None:
        if accumulation < 1:
            raise ValueError(f"accumulation {accumulation} is not at least 1")
        self.model, self.task = model, task
        self.forward: Any = torch.compile(model) if compile else model
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not compile:
            spare_compiler()
        self.optimizer = optimizer(_groups(model, lr_factors) if lr_factors else self.trainable)
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * group.get("lr_factor", 1)
        self.planned = scheduler if scheduler and schedule_every == "step" and _wants_total(scheduler) else None
        self.scheduler = self._scheduled(scheduler) if scheduler and not self.planned else None
        self.schedule_every, self.clip_norm, self.accumulation = schedule_every, clip_norm, accumulation
        self.evaluation_parts = 1
        self.precision, self.channels_last, self.out_of_memory = precision, channels_last, out_of_memory
        self.step = plain_step(self.optimizer)
        self.scaler: GradScaler | None = None  # fp16 on a GPU only
        self.device = torch.device("cpu")
        self.n_processes = 1
        self._parallel: Callable[[Batch], tuple[Tensor, Tally]] | None = None
        self._unsynced: Callable[[], AbstractContextManager[Any]] = nullcontext

    def to(self, device: torch.device) -> None:
        self.device = device
        self.model.to(device)
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if self.precision == "fp16" and device.type == "cuda":
            self.scaler = GradScaler(device.type)

    def plan(self, n_updates: int) -> None:
        if self.planned is not None:
            # One more: it is stepped after the last update too, and OneCycleLR's last step leads below its least rate.
            self.scheduler = self._scheduled(self.planned, total_steps=n_updates + 1)

    def _scheduled(self, scheduler: Callable[..., LRScheduler], **facts: int) -> LRScheduler:
        """Raises UserError for one that would make all rates of `lr_factors` the same, or has no update for a phase."""
        factors = [group.get("lr_factor", 1) for group in self.optimizer.param_groups]
        try:
            made = scheduler(self.optimizer, **facts)
        except ZeroDivisionError:  # OneCycleLR, where its rise or fall is a single update
            raise UserError(
                f"The schedule has too few updates ({facts.get('total_steps', 0) - 1}) for its phases: "
                "more epochs, smaller batches or another scheduler.pct_start."
            ) from None
        starts = {group["initial_lr"] for group in self.optimizer.param_groups}
        if len(set(factors)) > len(starts):
            raise UserError(f"lr_factors do not go with {type(made).__name__}, which sets the rates itself.")
        return made

    def narrow(self, part: nn.Module) -> None:
        """From now on batches are what enters this part of the model; the rest of it stays as it is."""
        self.forward = torch.compile(part) if self.forward is not self.model else part

    def distribute(self, n_processes: int) -> None:
        """From now on, `update` sees one process's part of each batch, and all take the step of the whole one."""
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        elif any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            warnings.warn("Batch normalisation sees each process's part of a batch only (on GPUs all).", stacklevel=2)
        program = distributed.parallel(self.forward, self.task, self.device)
        self._parallel, self._unsynced, self.n_processes = program, program.no_sync, n_processes
        self.out_of_memory = "raise"  # one process alone cannot repeat a step

    def _loss(self, batch: Batch) -> tuple[Tensor, Tally]:
        return self._parallel(batch) if self._parallel else self.task.loss(self.forward, batch)

    def share_buffers(self) -> None:
        """Rank 0's running means for all processes."""
        distributed.share_buffers(self.model)

    def update(self, batch: Batch, weight: float = 1.0) -> Tally:
        """weight: of several processes, N times this one's share of the whole batch."""
        while True:
            try:
                return self._update(batch, weight)
            except torch.OutOfMemoryError:
                if self.out_of_memory == "raise" or self.accumulation >= len(batch[0]):
                    raise
                self._forget_gradients()
                self.accumulation *= 2
                warnings.warn(
                    f"Out of memory: micro-batches of {-(-len(batch[0]) // self.accumulation)} from now on, "
                    "the effective batch stays.",
                    stacklevel=2,
                )

    def _update(self, batch: Batch, weight: float) -> Tally:
        if not self.model.training:
            self.model.train()
        tally: Tally = {}
        parts = list(self._micro_batches(batch, self.accumulation))
        for i, (part, share) in enumerate(parts, 1):
            with nullcontext() if i == len(parts) else self._unsynced():
                with self._autocast():
                    loss, part_tally = self._loss(part)
                loss = loss if share * weight == 1 else loss * (share * weight)
                (self.scaler.scale(loss) if self.scaler else loss).backward()
            tally = add_tallies(tally, part_tally) if tally else part_tally
        self._move_weights()
        self._forget_gradients()
        if self.scheduler is not None and self.schedule_every == "step":
            self.scheduler.step()
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
        for parameter in self.trainable:  # optimizer.zero_grad does the same, and tells the profiler (0.15 ms)
            parameter.grad = None

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Tally:
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
                if self.out_of_memory == "raise" or self.evaluation_parts >= len(batch[0]):
                    raise
                self.evaluation_parts *= 2
                size = -(-len(batch[0]) // self.evaluation_parts)
                warnings.warn(f"Out of memory: evaluation in batches of {size} from now on.", stacklevel=2)

    @torch.no_grad()
    def predict(self, batch: Batch, module: nn.Module | None = None) -> Any:
        """What the model (or another module) returns for a batch in evaluation mode; its labels are left out."""
        if self.model.training:
            self.model.eval()
        with self._autocast():
            return (module or self.forward)(*self._laid_out(batch)[:-1])

    def _micro_batches(self, batch: Batch, n_parts: int) -> Iterable[tuple[Batch, float]]:
        """The parts of a batch and each one's share of its mean."""
        if n_parts == 1:
            return [(self._laid_out(batch), 1)]
        size = len(batch[0])
        parts = zip(*[column.tensor_split(min(n_parts, size)) for column in batch], strict=True)
        return [(self._laid_out(type(batch)(*part)), len(part[0]) / size) for part in parts]

    def _laid_out(self, batch: Batch) -> Batch:
        if not self.channels_last:
            return batch
        return type(batch)(*[c.contiguous(memory_format=torch.channels_last) if c.dim() == 4 else c for c in batch])

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])

    def end_epoch(self, metrics: Metrics) -> None:
        if self.scheduler is not None and self.schedule_every == "epoch":
            self.scheduler.step()

    def notes(self) -> dict[str, Any]:
        """What a record of the run must say about how it was trained."""
        several = {"processes": self.n_processes} if self.n_processes > 1 else {}
        evaluated = {"evaluation_parts": self.evaluation_parts} if self.evaluation_parts > 1 else {}
        return {"accumulation": self.accumulation, **evaluated, **several}

    def rates(self) -> Metrics:
        groups = self.optimizer.param_groups
        if len(groups) == 1:
            return {"lr": float(groups[0]["lr"])}
        return {f"lr/{group.get('part', i)}": float(group["lr"]) for i, group in enumerate(groups)}

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def n_parameters(self) -> tuple[int, int]:
        return sum(p.numel() for p in self.model.parameters()), sum(p.numel() for p in self.trainable)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "accumulation": self.accumulation,
            "scheduler": self.scheduler.state_dict() if self.scheduler else {},
            "scaler": self.scaler.state_dict() if self.scaler else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.accumulation = state["accumulation"]
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])


def _groups(model: nn.Module, lr_factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """One group of parameters for each key of lr_factors, and "rest"."""
    groups: dict[str, dict[str, Any]] = {
        part: {"params": [], "part": part, "lr_factor": float(factor)} for part, factor in lr_factors.items()
    }
    groups.setdefault("rest", {"params": [], "part": "rest", "lr_factor": 1.0})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = [part for part in lr_factors if name == part or name.startswith(part + ".")]
            groups[max(fitting, key=len) if fitting else "rest"]["params"].append(parameter)
    empty = [part for part in lr_factors if not groups[part]["params"]]
    if empty:
        parts = dict.fromkeys(n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad)
        raise ValueError(f"lr_factors.{empty[0]}: the model trains no such part; it trains {', '.join(parts)}")
    return [group for group in groups.values() if group["params"]]
