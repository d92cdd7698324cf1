"""Linear classifier: logistic (softmax) regression once it is trained with cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn


class Linear(nn.Sequential):
    """(batch, *input_shape) -> (batch, n_classes) logits: one affine map of the flattened input."""

    def __init__(self, input_shape: Sequence[int], n_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(input_shape), n_classes))
