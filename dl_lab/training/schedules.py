"""Schedules of the learning rate that torch does not have in one piece."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def warmup_decay(optimizer: Optimizer, total: int, warmup: float, decay: float, floor: float) -> LRScheduler:
    """The rate grows linearly from `floor` of it to the whole in int(warmup * total) steps, then falls linearly to
    `floor` in int(decay * total), and stays there.

    What torch's SequentialLR of two LinearLR does, also where a part has no steps. Raises ValueError for shares that
    are not between 0 and 1.
    """
    if not (0 <= warmup <= 1 and 0 <= decay <= 1 and 0 <= floor <= 1):
        raise ValueError(f"warmup {warmup}, decay {decay} and floor {floor} are shares, between 0 and 1")
    rising, falling = int(warmup * total), int(decay * total)

    def share(step: int) -> float:
        if step < rising:
            return floor + (1 - floor) * step / rising
        return 1 - (1 - floor) * min((step - rising) / falling, 1.0) if falling else 1.0

    return LambdaLR(optimizer, share)
