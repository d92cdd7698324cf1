"""The base of every learner: it keeps the books, so that a learner of one's own is `update` and `evaluate`.

The base finds the modules, optimizers, schedulers, `Schedule`s, gradient scalers and random generators among the
learner's attributes. Numbers and tensors among them are part of the state too, so that a counter survives a resumed
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dl_lab.training.schedules import Schedule, step_after_epoch
from dl_lab.types import Batch, ConfigError, Metrics, Splits, Tally, UserError

Kind = TypeVar("Kind")
STATEFUL = (Optimizer, LRScheduler, Schedule, GradScaler)


class Stateful(Protocol):
    """A part whose state a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and plain types."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take back what `state_dict` gave."""
        ...


class BaseLearner:
    """Device, weights, state, counts and rates of the modules and optimizers that its attributes hold.

    Write `__init__`, `update` and `evaluate`. The first module is the main one: the names of its weights have no
    prefix, and `load`, `export` and `predict` use it. The weights of another module are called
    `<attribute>/<name>`. Put several modules of one kind into an `nn.ModuleList`.

    A learner that works in several processes also overrides `distribute` and takes a `weight` in `update`.

    Attributes:
        settings: Names of attributes that are settings, not state: a checkpoint leaves them out.
        schedule_monitor: The metric for a scheduler that takes one.
        device: Where the learner works.
    """

    settings: frozenset[str] = frozenset()
    schedule_monitor: str = "val/loss"
    device: torch.device = torch.device("cpu")

    def update(self, batch: Batch, weight: float = 1.0) -> Tally:
        """Learn from one batch; see `types.Learner.update`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method update(batch)")

    def evaluate(self, batch: Batch) -> Tally:
        """Judge one batch; see `types.Learner.evaluate`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method evaluate(batch)")

    # -- the attributes ----------------------------------------------------------------------------------------

    def held(self, kind: type[Kind] | tuple[type[Kind], ...]) -> dict[str, Kind]:
        """Return the attributes of a kind by name, in the order in which they were first set."""
        return {name: value for name, value in vars(self).items() if isinstance(value, kind)}

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by attribute. A second name for the same weights is left out."""
        for name in self.held(nn.Parameter):
            raise UserError(
                f"{type(self).__name__}.{name} is a bare nn.Parameter: put it into a module, like an nn.ParameterDict."
            )
        known: set[int] = set()
        found: dict[str, nn.Module] = {}
        for name, module in self.held(nn.Module).items():
            tensors = {id(tensor) for tensor in _tensors(module)}
            if not found or not tensors <= known:
                found[name] = module
                known |= tensors
        return found

    def main_module(self) -> nn.Module | None:
        """Return the first module; None where there is none."""
        return next(iter(self.held(nn.Module).values()), None)

    # -- before the training ----------------------------------------------------------------------------------

    def initialise(self) -> None:
        """Keep the weights as they were drawn."""

    def start(self, dataset: Splits) -> None:
        """Do nothing: such a learner does not depend on the data."""

    def to(self, device: torch.device) -> None:
        """Move every module, and every tensor that an attribute holds."""
        self.device = device
        for module in self.modules().values():
            module.to(device)
        for name, tensor in self.held(Tensor).items():
            setattr(self, name, tensor.to(device))

    def plan(self, n_epochs: int, n_updates: int) -> None:
        """Tell every `Schedule` the length of the training."""
        for schedule in self.held(Schedule).values():
            schedule.plan(n_epochs, n_updates)

    def distribute(self, n_processes: int) -> None:
        """Refuse several processes."""
        raise ConfigError(f"A {type(self).__name__} works in one process: start it without torchrun.")

    def share_buffers(self) -> None:
        """Do nothing: a single process has nothing to share."""

    def least_items(self) -> int:
        """Return two: batch normalisation refuses a batch of one item."""
        return 2

    # -- during the training ----------------------------------------------------------------------------------

    def end_epoch(self, metrics: Metrics) -> None:
        """Step every scheduler that goes by epochs."""
        for scheduler in self.held(LRScheduler).values():
            step_after_epoch(scheduler, metrics, self.schedule_monitor)
        for schedule in self.held(Schedule).values():
            schedule.end_epoch(metrics)

    def rates(self) -> Metrics:
        """Return "lr", or a rate for each optimizer and group of parameters: "lr/<optimizer>/<group>"."""
        groups: dict[str, float] = {}
        optimizers = self.held(Optimizer)
        for name, optimizer in optimizers.items():
            for i, group in enumerate(optimizer.param_groups):
                parts = [name] if len(optimizers) > 1 else []
                if len(optimizer.param_groups) > 1:
                    parts.append(str(group.get("part", i)))
                groups["/".join(["lr", *parts])] = float(group["lr"])
        return groups

    def notes(self) -> dict[str, object]:
        """Return nothing: the record needs no more facts."""
        return {}

    def advice(self, loss: float) -> str:
        """Return the usual advice."""
        return "A smaller learning rate, gradient clipping (learner.clip_norm) or other scaling may help."

    # -- weights and state ------------------------------------------------------------------------------------

    def n_parameters(self) -> tuple[int, int]:
        """Return the numbers of all parameters and of the trainable ones; a shared parameter counts once."""
        parameters: dict[int, nn.Parameter] = {}
        for module in self.modules().values():
            for parameter in module.parameters():
                parameters[id(parameter)] = parameter
        n_all = sum(p.numel() for p in parameters.values())
        n_trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
        return n_all, n_trained

    def weights(self) -> dict[str, Tensor]:
        """Return the weights and buffers of every module, without a copy."""
        found: dict[str, Tensor] = {}
        for i, (attribute, module) in enumerate(self.modules().items()):
            for name, tensor in module.state_dict().items():
                found[f"{attribute}/{name}" if i else name] = tensor.detach()
        return found

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take back what `weights` gave."""
        for i, (attribute, module) in enumerate(self.modules().items()):
            if i:
                prefix = f"{attribute}/"
                own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
            else:
                own = {name: tensor for name, tensor in weights.items() if "/" not in name}
            module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every module, optimizer, scheduler and generator, and every number and tensor."""
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules().items()}
        for name, part in self._stateful():
            state[name] = part.state_dict()
        for name, generator in self.held(torch.Generator).items():
            state[name] = generator.get_state()
        for name, value in self.held((int, float, Tensor)).items():
            if name not in self.settings:
                state[name] = value
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, module in self.modules().items():
            module.load_state_dict(state[name])
        for name, part in self._stateful():
            part.load_state_dict(state[name])
        for name, generator in self.held(torch.Generator).items():
            generator.set_state(state[name])
        for name, value in self.held((int, float, Tensor)).items():
            if name not in state or name in self.settings:
                continue
            saved = state[name]
            setattr(self, name, saved.to(self.device) if isinstance(value, Tensor) else saved)

    def _stateful(self) -> Iterator[tuple[str, Stateful]]:
        yield from self.held(STATEFUL).items()


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
