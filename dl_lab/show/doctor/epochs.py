"""Rules about the metrics of the epochs: overfitting, underfitting, a training that is too short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

from dl_lab.show.doctor.evidence import Evidence
from dl_lab.show.doctor.findings import Finding, draw, number


def find_overfitting(evidence: Evidence) -> Iterator[Finding]:
    """Find a validation loss that rises while the training loss falls."""
    train = evidence.curve("train/loss")
    val = evidence.curve("val/loss")
    if len(val) < 5 or len(train) != len(val) or evidence.state not in ("done", "interrupted"):
        return
    best = min(range(len(val)), key=val.__getitem__)
    after = len(val) - 1 - best
    rise = val[-1] - val[best]
    scale = max(abs(val[best]), 1e-12)
    rises = rise > 0.15 * scale and rise > 3 * _noise(val[: best + 1])
    falls = train[best] - train[-1] > 0
    if after >= 3 and rises and falls and train[-1] < val[-1]:
        tries = ["callbacks=early_stopping", "optimizer.weight_decay=1e-4"]
        if (evidence.setting("model") or {}).get("dropout") is not None:
            tries.insert(1, "model.dropout=0.5")
        yield Finding(
            "overfitting",
            f"Since epoch {best + 1} val/loss rose from {number(val[best])} to {number(val[-1])} while train/loss fell "
            f"from {number(train[best])} to {number(train[-1])}.",
            "The net learns the training items by heart. The test figures are those of the best epoch's weights.",
            tries,
            0.7,
            draw(val),
        )


def find_short_training(evidence: Evidence) -> Iterator[Finding]:
    """Find a loss that still falls steeply at the end, or a schedule that is longer than the training."""
    val = evidence.curve("val/loss")
    epochs = evidence.summary.get("epochs")
    if not evidence.is_over or len(val) < 4 or not epochs:
        return
    stopped = str(evidence.summary.get("stop_reason") or "")
    schedule = schedule_length(evidence)
    if schedule is not None and not stopped and schedule > 1.5 * epochs:
        yield Finding(
            "schedule-longer-than-training",
            f"The schedule is {schedule:g} epochs long, the training {epochs}.",
            "The learning rate never reaches the end of its schedule.",
            (f"trainer.max_epochs={int(schedule)}", f"scheduler.T_max={epochs}"),
            0.75,
        )
        return
    drops = [before - after for before, after in pairwise(val)]
    late = drops[-max(2, len(drops) // 4) :]
    total = val[0] - min(val)
    if total <= 0 or min(late) <= 0:
        return
    fall = sum(late) / len(late)
    if fall > 0.05 * abs(val[-1]) and fall > 0.08 * total and val[-1] == min(val):
        if stopped and "improve" in stopped:
            name = "early-stopping-too-early"
            means = "Early stopping ended a training that was still getting better."
            tries: Sequence[str] = ("callbacks.early_stopping.patience=10",)
        else:
            name = "training-too-short"
            means = "The net was still getting better when the training ended."
            tries = (f"trainer.max_epochs={2 * int(epochs)}",)
        yield Finding(
            name,
            f"val/loss was still falling by {fall / abs(val[-1]):.0%} an epoch at the end (epoch "
            f"{epochs}, {number(val[-1])}).",
            means,
            tries,
            0.55,
            draw(val),
        )


def find_early_stop(evidence: Evidence) -> Iterator[Finding]:
    """Find early stopping whose patience is shorter than the noise of its metric."""
    if not evidence.is_over or "improve" not in str(evidence.summary.get("stop_reason") or ""):
        return
    train = evidence.curve("train/loss")
    val = evidence.curve("val/loss")
    patience = evidence.setting("trainer.callbacks.early_stopping.patience")
    if len(train) < 2 or len(val) != len(train) or not isinstance(patience, int):
        return
    chance = evidence.chance_loss
    falling = (train[0] - train[-1]) / max(abs(train[0]), 1e-12)
    gap = val[-1] - train[-1]
    barely = chance is not None and min(val) > 0.85 * chance
    if patience <= 2 and (barely or falling < 0.2) and gap < 0.1 * abs(val[-1]):
        yield Finding(
            "early-stopping-too-early",
            f"The training stopped in epoch {len(train)} with patience {patience}; train/loss had fallen by "
            f"{max(0.0, falling):.0%}.",
            "A pause of a few epochs is usual at the start. The patience is shorter than that pause.",
            (f"callbacks.early_stopping.patience={max(10, 5 * patience)}",),
            0.7,
            draw(val),
        )


def find_underfitting(evidence: Evidence) -> Iterator[Finding]:
    """Find a training loss that has stopped falling far above zero, without a gap to validation."""
    train = evidence.curve("train/accuracy")
    val = evidence.curve("val/accuracy")
    losses = evidence.curve("train/loss")
    share = evidence.share_of_largest("val")
    if not evidence.is_over or len(train) < 8 or len(val) != len(train) or share is None or len(losses) < 8:
        return
    late = losses[-4:]
    flat = max(late) - min(late) < 0.03 * abs(late[-1])
    poor = train[-1] - share < 0.35 * (1 - share)
    above_chance = train[-1] > share + 0.05
    if flat and poor and above_chance and val[-1] > train[-1] - 0.05:
        yield Finding(
            "underfitting",
            f"train/accuracy stands at {number(train[-1])} and val/accuracy at {number(val[-1])}; the loss no longer "
            "falls.",
            "The net is too small, or regularisation holds it back. A larger net, less regularisation or other inputs "
            "would help. More epochs would not.",
            ("model.hidden=[256,256]", "model.dropout=0", "optimizer.weight_decay=0"),
            0.5,
            draw(losses),
        )


def schedule_length(evidence: Evidence) -> float | None:
    """Return the length of a cosine schedule in epochs; None where the config gives none."""
    scheduler = evidence.setting("learner.scheduler")
    if not isinstance(scheduler, dict) or not isinstance(scheduler.get("T_max"), int | float):
        return None
    length = float(scheduler["T_max"])
    if evidence.setting("learner.schedule_every") == "step":
        steps = evidence.summary.get("steps")
        epochs = evidence.summary.get("epochs")
        return length * epochs / steps if steps and epochs else None
    return length


def _noise(values: Sequence[float]) -> float:
    """Return how much a falling curve typically rises from one epoch to the next."""
    rises = [after - before for before, after in pairwise(values) if after > before]
    return median(rises) if rises else 0.0
