"""Linear classifier: trained with cross-entropy it is logistic (softmax) regression."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn


class Linear(nn.Sequential):
    """One affine map of the flattened input: (batch, *input_shape) -> (batch, n_classes) logits.

    Args:
        input_shape: Shape of one item.
        n_classes: Number of logits.
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(input_shape), n_classes))
