"""Judging a split, and keeping the best weights."""

from __future__ import annotations

import itertools
import math

import torch

from dl_lab.training.distributed import World
from dl_lab.training.session import Session
from dl_lab.types import Learner, Metrics, Split, Tally, UserError, add_tallies

ALONE = World()


def judge(learner: Learner, split: Split, batch_size: int, limit: int | None = None, world: World = ALONE) -> Tally:
    """Return the tally of a split, added over all processes.

    Args:
        learner: The learner that judges.
        split: This process's part of the split.
        batch_size: Items of a batch; it changes no result.
        limit: The most batches to judge. None judges all.
        world: The processes.
    """
    tally: Tally = {}
    with torch.no_grad():  # a learner of one's own may forget it; one that needs gradients here enables them
        for batch in itertools.islice(split.batches(batch_size), limit):
            tally = add_tallies(tally, learner.evaluate(batch))
    return world.sum_each([tally])[0]


def keep_best(session: Session, metrics: Metrics, monitor: str, mode: str, epoch: float) -> None:
    """Keep a copy of the weights if the monitored metric is better than ever. A metric that is not finite loses.

    Args:
        session: The session, which gets the weights as `best`.
        metrics: The metrics of the validation, by their full names.
        monitor: The metric that decides.
        mode: "min" or "max".
        epoch: The epoch of the weights; a fraction within an epoch.

    Raises:
        UserError: The metric is not measured.
    """
    if monitor not in metrics:
        raise UserError(f"monitor {monitor!r} is not measured; there are {', '.join(sorted(metrics))}.")
    if session.best and not is_better(metrics[monitor], session.best["metrics"][monitor], mode):
        return
    weights = {name: tensor.clone() for name, tensor in session.learner.weights().items()}
    session.best = {"epoch": epoch, "metrics": metrics, "weights": weights}


def is_better(new: float, old: float, mode: str) -> bool:
    """Return whether a value of the monitored metric replaces an older one."""
    if not math.isfinite(old):
        return True
    return math.isfinite(new) and (new < old if mode == "min" else new > old)
