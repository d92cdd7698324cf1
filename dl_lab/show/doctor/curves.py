"""Rules about the losses: a training that diverges, stays at chance or learns too slowly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import median, stdev
from typing import Any

from dl_lab.show.doctor.evidence import Evidence
from dl_lab.show.doctor.findings import Finding, draw, number
from dl_lab.types import BROKEN_DATA

ENOUGH_UPDATES = 30  # a shorter training says little about its loss


def find_divergence(evidence: Evidence) -> Iterator[Finding]:
    """Find a loss that became infinite, or that ended far above its start."""
    losses = evidence.losses
    tries = (*lower_rates(evidence.lr), "learner.clip_norm=1")
    if "loss became" in evidence.error or any(not math.isfinite(value) for value in losses):
        step = next((i for i, value in enumerate(losses, 1) if not math.isfinite(value)), len(losses))
        where = ""
        if evidence.broken:
            weights = ", ".join(evidence.broken.get("weights", [])[:3])
            where = f" Weights that are no longer finite: {weights}."
            if evidence.broken.get("layer"):
                where += f" The first output that is not finite comes from {evidence.broken['layer']}."
        if BROKEN_DATA in evidence.error:
            yield Finding(
                "diverging",
                f"The training loss stopped being a finite number at update {step}. {BROKEN_DATA}"
                f"{evidence.error.partition(BROKEN_DATA)[2]}",
                "A net cannot compute with such values. Mend these items, or leave them out.",
                (),
                1.0,
                draw(losses),
            )
            return
        yield Finding(
            "diverging",
            f"The training loss stopped being a finite number at update {step}.{where}",
            "An update was so large that the weights overflowed. The learning rate is too high for this net, or a "
            "value in the data or the loss is not finite.",
            tries,
            1.0,
            draw(losses),
        )
        return
    if len(losses) < ENOUGH_UPDATES:
        return
    first = losses[0]
    last = median(losses[-max(10, len(losses) // 10) :])
    peak = max(losses)
    ceiling = max(first, evidence.chance_loss or 0.0)
    if first > 0 and last > 1.5 * ceiling:
        yield Finding(
            "diverging",
            f"The training loss rose from {number(first)} to {number(last)} (peak {number(peak)}).",
            "The updates overshoot: the net ends worse than it began.",
            tries,
            0.95,
            draw(losses),
        )
    elif first > 0 and max(losses[: len(losses) // 2]) > 5 * ceiling:
        step = max(range(len(losses) // 2), key=losses.__getitem__) + 1
        yield Finding(
            "learning-rate-too-high",
            f"The training loss rose from {number(first)} to {number(peak)} at update {step} before it fell.",
            "The first updates throw the net far away from its initial weights. It may never recover.",
            (*tries, "scheduler=warmup_decay"),
            0.85,
            draw(losses),
        )


def find_chance_level(evidence: Evidence) -> Iterator[Finding]:
    """Find a net that does no better than a guess from the classes' shares."""
    if not evidence.is_over or evidence.summary.get("steps", 0) < ENOUGH_UPDATES or not evidence.is_classification:
        return
    share = evidence.share_of_largest("val")
    accuracy = evidence.curve("val/accuracy")
    # A model in NumPy measures no val/loss.
    name = "val/loss" if evidence.curve("val/loss") else "val/cross_entropy"
    losses = evidence.curve(name)
    chance = evidence.chance_loss
    n = sum(evidence.counts("val").values())
    if share is None or not accuracy or not n:
        return
    n_classes = sum(1 for count in evidence.counts("train").values() if count)
    best = max(accuracy)
    margin = 2.5 * math.sqrt(max(share * (1 - share), 0.01) / n)
    balanced = evidence.curve("val/balanced_accuracy")
    predicts_one = bool(balanced) and abs(balanced[-1] - 1 / n_classes) < 0.02
    # The entropy, not the chance of the loss: such a fault is likely in a task of one's own.
    entropy = evidence.entropy
    if best < share - 2 * margin and losses and entropy and min(losses) < 0.9 * entropy:
        yield Finding(
            "wrong-sign-or-order",
            f"The loss fell to {number(min(losses))}, below the {number(entropy)} of a guess, while the accuracy "
            f"({number(best)}) stays below the {number(share)} of the commonest class.",
            "The loss and the accuracy disagree: the scores have the wrong sign, or the labels of the loss and of "
            "the measurement are numbered differently.",
            (),
            0.95,
        )
        return
    if best > share + margin or n_classes < 2:
        return
    training = evidence.curve("train/accuracy")
    if training and training[-1] > share + 0.15:
        return  # the net learns and does not generalise, which is another disease
    if share > 1.6 / n_classes:
        yield Finding(
            "accuracy-of-the-majority",
            f"val/accuracy is {number(best)}; the commonest class alone is {number(share)} of the validation items.",
            "The net does no better than the constant answer of the commonest class. Accuracy hides this where classes "
            "are unbalanced.",
            ("task.weight=auto", "trainer.monitor=val/balanced_accuracy trainer.mode=max"),
            0.9,
        )
        return
    # The classes may have been counted in a sample; the balanced accuracy is of the whole split.
    size = evidence.summary.get("dataset", {}).get("sizes", {}).get("val") or n
    if balanced and max(balanced) > 1 / n_classes + 2.5 * math.sqrt((1 - 1 / n_classes) / n_classes / size):
        return
    if name == "val/cross_entropy" and losses and chance and losses[-1] > 10 * chance:
        yield Finding(
            "diverging",
            f"{name} ends at {number(losses[-1])}; a guess has {number(chance)}. val/accuracy is {number(best)}, and "
            f"the commonest class alone is {number(share)} of the validation items.",
            "The updates overshoot: the net ends worse than a guess.",
            lower_rates(evidence.lr),
            0.95,
            draw(evidence.losses),
        )
        return
    of_chance = f", chance is {number(chance)}" if chance else ""
    loss = f"; {name} is {number(losses[-1])}{of_chance}" if losses else ""
    answers = " The net answers one class for nearly every item." if predicts_one else ""
    yield Finding(
        "plateau-at-chance",
        f"After {evidence.summary.get('steps')} updates val/accuracy is {number(best)} and the commonest class "
        f"{number(share)}{loss}.{answers}",
        "The net has learned the classes' shares and nothing about the inputs. The usual cause is the learning rate, "
        "the scale of the inputs or the initial weights.",
        (*better_rates(evidence), "optimizer=adam"),
        0.9,
        draw(evidence.losses),
    )


def find_mean_prediction(evidence: Evidence) -> Iterator[Finding]:
    """Find a regression that predicts the mean of its target."""
    chance = evidence.chance_loss
    losses = evidence.curve("val/loss")
    squared = evidence.task in ("Forecasting", "Regression")
    if not squared or not chance or not losses or len(evidence.losses) < ENOUGH_UPDATES or not evidence.is_over:
        return
    if 0.97 <= min(losses) / chance <= 1.2:
        yield Finding(
            "predicts-the-mean",
            f"The least val/loss is {number(min(losses))}; the variance of the target is {number(chance)}.",
            "The net does no better than the mean of the target. The inputs do not reach the output, or the target is "
            "not scaled.",
            better_rates(evidence),
            0.8,
        )


def find_slow_learning(evidence: Evidence) -> Iterator[Finding]:
    """Find a loss that hardly moved while the updates are tiny beside the weights."""
    losses = evidence.losses
    if len(losses) < ENOUGH_UPDATES or not evidence.is_over or not evidence.looks:
        return
    if not all(map(math.isfinite, losses)):
        return
    n = max(5, len(losses) // 10)
    first, last = median(losses[:n]), median(losses[-n:])
    # Batches differ, so the median of n losses has an error of its own.
    error = 1.25 * stdev(losses[-n:]) / math.sqrt(n)
    ratios = [ratio for look in evidence.looks[-3:] for ratio in update_ratios(evidence, look)]
    if not ratios or first <= 0:
        return
    typical = median(ratios)
    moved = (first - last) / abs(first)
    if typical < 1e-4 and moved < 0.2 and last <= first * 1.02 + 2 * error:
        yield Finding(
            "learning-rate-too-low",
            f"An update changes a weight by {number(typical)} of its size (1e-3 is usual), and {len(losses)} updates "
            f"lowered the loss by {max(0.0, moved):.0%}.",
            "The steps are too small for a training of this length.",
            higher_rates(evidence.lr),
            0.8,
            draw(losses),
        )


def find_large_updates(evidence: Evidence) -> Iterator[Finding]:
    """Find large updates: at the start larger than the weights themselves, later larger than a fifth of them."""
    if not evidence.looks or not evidence.losses:
        return
    ratios = []
    for look in evidence.looks:
        found = update_ratios(evidence, look)
        most = 1.0 if look.get("step", 0) < 4 else 0.2
        if found and median(found) > most:
            ratios.append(median(found))
    if not ratios:
        return
    last = median(evidence.losses[-max(5, len(evidence.losses) // 10) :])
    if evidence.chance_loss and last < 0.5 * evidence.chance_loss:
        return  # the net learns all the same
    yield Finding(
        "learning-rate-too-high",
        f"An update changes a weight by up to {number(max(ratios))} of its size (1e-3 is usual).",
        "Each step undoes what earlier steps have learned.",
        (*lower_rates(evidence.lr), "learner.clip_norm=1"),
        0.8,
    )


def update_ratios(evidence: Evidence, look: Mapping[str, Any]) -> list[float]:
    """Return the change of each weight matrix in one look, relative to its size."""
    found = []
    for _, facts in evidence.matrices(look):
        weight = facts.get("weight")
        change = facts.get("change")
        if weight and change is not None:
            found.append(change / weight)
    return found


def lower_rates(lr: float | None) -> tuple[str, ...]:
    """Suggest a learning rate that is ten times lower."""
    return _set_rate(lr / 10 if lr else 0.001)


def higher_rates(lr: float | None) -> tuple[str, ...]:
    """Suggest learning rates that are ten and a hundred times higher."""
    return (*_set_rate(lr * 10), *_set_rate(lr * 100)) if lr else _set_rate(0.01)


def _set_rate(lr: float) -> tuple[str, ...]:
    """Return the override for each place where a rate may stand. A run keeps the one that it reads."""
    return (f"optimizer.lr={lr:.3g}", f"model.lr={lr:.3g}")


def better_rates(evidence: Evidence) -> tuple[str, ...]:
    """Suggest lower rates where updates are large beside the weights, higher ones where they are tiny, else both."""
    ratios = [ratio for look in evidence.looks[1:] for ratio in update_ratios(evidence, look)]
    typical = median(ratios) if ratios else 1e-3
    if typical > 1e-2:
        return lower_rates(evidence.lr)
    if typical < 1e-4:
        return higher_rates(evidence.lr)
    slightly_higher = _set_rate(evidence.lr * 10) if evidence.lr else higher_rates(None)
    return (*lower_rates(evidence.lr), *slightly_higher)
