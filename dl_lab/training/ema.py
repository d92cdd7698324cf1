"""An exponential moving average of the weights. The average is judged and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dl_lab.training.session import Callback, Evaluated, Session
from dl_lab.types import Metrics


class EMA(Callback):
    """Averages the weights over the updates (Polyak averaging) and judges the average.

    After each update the average a becomes d a + (1 - d) w, with d the smaller of `decay` and (1 + t) / (10 + t) after
    t updates, so that the first weights are soon forgotten. Validation, best weights, last weights and test use the
    average. The training itself continues with the weights as they are. Running means are averaged too; integer buffers
    are copied.

    Args:
        decay: The largest share of the old average that an update keeps.

    Raises:
        ValueError: `decay` is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not between 0 and 1")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}  # the weights in training, while the average is judged

    def fit_start(self, session: Session) -> None:
        """Begin with the initial weights, or with the average of a checkpoint."""
        weights = session.learner.weights()
        if not self._average:
            self._average = _copy(weights)
        self._average = {name: tensor.to(weights[name].device) for name, tensor in self._average.items()}

    @torch.no_grad()
    def update_end(self, session: Session) -> None:
        """Move the average."""
        decay = min(self.decay, (1 + session.step) / (10 + session.step))
        averages: list[Tensor] = []
        targets: list[Tensor] = []
        for name, weight in session.learner.weights().items():
            if weight.is_floating_point():
                averages.append(self._average[name])
                targets.append(weight)
            else:
                self._average[name].copy_(weight)
        get_ema_multi_avg_fn(decay)(averages, targets, session.step)

    def evaluation_start(self, session: Session, split: Evaluated) -> None:
        """Put the average in place of the weights."""
        self._trained = _copy(session.learner.weights())
        session.learner.load_weights(self._average)

    def evaluation_end(self, session: Session, split: Evaluated, metrics: Metrics) -> None:
        """Put the weights back, unless the training is over."""
        if split == "val":
            session.learner.load_weights(self._trained)
        self._trained = {}

    def state_dict(self) -> dict[str, object]:
        """Return the average."""
        return {"average": self._average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._average = dict(state["average"])


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
