"""One recurrent layer over a window, and a linear forecast from its last state."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class RecurrentForecaster(nn.Module):
    """(batch, length, features) -> (batch, horizon, features).

    With an LSTM of 64 units on 13 features 21,069 parameters, bidirectional 42,125. The last state of each
    direction is read: the backward one has then seen the whole window (its output at the last step would have
    seen one step). The dropout is a layer of its own: nn.LSTM's acts between layers only, of which there is
    one.
    """

    def __init__(
        self,
        n_features: int,
        horizon: int = 1,
        hidden: int = 64,
        cell: Literal["lstm", "gru", "rnn"] = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.recurrent = CELLS[cell](n_features, hidden, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden * (2 if bidirectional else 1), horizon * n_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.recurrent(x)
        last = state[0] if isinstance(state, tuple) else state  # (directions, batch, hidden)
        forecast = self.head(torch.cat(last.unbind(), dim=1))
        return forecast.unflatten(1, (self.horizon, -1))
