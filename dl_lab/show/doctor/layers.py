"""Rules about the looks at single updates: gradients, activations and changes, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from dl_lab.show.doctor.curves import ENOUGH_UPDATES, lower_rates, update_ratios
from dl_lab.show.doctor.evidence import Evidence
from dl_lab.show.doctor.findings import Finding, draw, number
from dl_lab.types import count

VANISHED = 1e-4  # the gradient of the first layers over that of the last ones (root mean squares)
EXPLODED = 1e3  # a gradient a weight (root mean square)
SMALLEST_CHANGE = 1e-6  # of a weight's size: a float32 hardly holds smaller ones, so such a weight may stand still
LEAST_BATCH = 8  # items over which batch normalisation averages


def find_vanishing_gradients(evidence: Evidence) -> Iterator[Finding]:
    """Find gradients that shrink by orders of magnitude on their way to the first layers."""
    if not evidence.looks or _learns(evidence):
        return
    at_start = _profile(evidence, evidence.looks[0])
    at_end = _profile(evidence, evidence.looks[-1])
    for profile, look in ((at_end, evidence.looks[-1]), (at_start, evidence.looks[0])):
        if len(profile) < 3:
            continue
        values = [value for _, value in profile]
        late = max(values[len(values) // 2 :])
        early = max(values[: max(1, len(values) // 4)])
        ratio = early / late if late > 0 else 0.0
        if ratio < VANISHED:
            share = f"{number(ratio)} of the last layers'" if late > 0 else "zero, and so is that of all other weights"
            yield Finding(
                "vanishing-gradients",
                f"At update {look['step']} the gradient of {profile[0][0]} is {share}.",
                "The first layers get almost no signal and stay at their initial weights. Saturating activations, "
                "depth without skip connections or small initial weights cause it.",
                ("model.activation=relu", "model/initialise=kaiming", "model=resnet18"),
                0.85,
                draw([_log10(value) for value in values]),
            )
            return


def find_exploding_gradients(evidence: Evidence) -> Iterator[Finding]:
    """Find gradients that are huge, or that grow by orders of magnitude on their way to the first layers."""
    for look in evidence.looks:
        profile = _profile(evidence, look)
        if len(profile) < 2:
            continue
        values = [value for _, value in profile]
        largest = max(profile, key=lambda entry: entry[1])
        smallest = min(value for value in values if value >= 0)
        grows = values[0] > EXPLODED * max(values[-1], 1e-30) and values[0] > 10
        if largest[1] > EXPLODED or grows:
            yield Finding(
                "exploding-gradients",
                f"At update {look['step']} the gradient of {largest[0]} is {number(largest[1])} a weight (root mean "
                f"square; the smallest layer's is {number(smallest)}).",
                "One update may throw the net far away. Large initial weights, unscaled inputs or long recurrences "
                "cause it.",
                ("learner.clip_norm=1", *lower_rates(evidence.lr)),
                0.85,
            )
            return


def find_dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Find rectified units that are zero for every item of the batch."""
    if len(evidence.looks) < 2 or len(evidence.losses) < ENOUGH_UPDATES:
        return
    first = evidence.looks[0]
    last = evidence.looks[-1]
    worst: list[tuple[float, str]] = []
    for name, facts in (last.get("layers") or {}).items():
        dead = facts.get("dead")
        before = ((first.get("layers") or {}).get(name) or {}).get("dead")
        if dead is None or before is None or facts.get("n_items", 0) < 16:
            continue
        if dead > 0.6 and (dead > before + 0.2 or dead > 0.9):
            worst.append((dead, name))
    if worst:
        dead, name = max(worst)
        yield Finding(
            "dying-relus",
            f"At update {last['step']} {dead:.0%} of the units of {name} are zero for every item of the batch.",
            "A unit that is zero for all inputs gets no gradient and never comes back. A learning rate that is too "
            "high, or a large negative bias, kills units.",
            (*lower_rates(evidence.lr), "model.activation=leaky_relu"),
            0.8 if not _learns(evidence) else 0.6,
        )


def find_saturation(evidence: Evidence) -> Iterator[Finding]:
    """Find sigmoids and hyperbolic tangents whose outputs lie at the ends of their range."""
    if not evidence.looks:
        return
    last = next(reversed(evidence.looks[0].get("layers") or {}), "")  # it gives the answer, which may be sure
    for look in (evidence.looks[-1], evidence.looks[0]):
        inner = {name: facts for name, facts in (look.get("layers") or {}).items() if name != last}
        saturated = [(facts["saturated"], name) for name, facts in inner.items() if facts.get("saturated") is not None]
        if saturated and max(saturated)[0] > 0.6 and not _learns(evidence):
            share, name = max(saturated)
            yield Finding(
                "saturated-activations",
                f"At update {look['step']} {share:.0%} of the outputs of {name} lie at the ends of its range.",
                "A saturated unit passes hardly any gradient. Large inputs or large weights push it there.",
                ("model/initialise=xavier", *lower_rates(evidence.lr), "model.activation=relu"),
                0.75,
            )
            return


def find_bad_initialisation(evidence: Evidence) -> Iterator[Finding]:
    """Find, before any update, a loss far above chance or activations that grow or fade from layer to layer."""
    if not evidence.looks or evidence.looks[0].get("step") != 0 or not evidence.losses:
        return
    chance = evidence.chance_loss
    first = evidence.losses[0]
    sizes = _output_sizes(evidence.looks[0])
    is_far = bool(chance) and first > 3 * chance and _explain(evidence.looks[0].get("output") or {}, first)
    if evidence.is_classification and is_far and not _has_large_input(evidence):
        yield Finding(
            "bad-initialisation",
            f"The loss of the first batch is {number(first)}, before any update; a guess has {number(chance or 0.0)}.",
            "The initial weights make the net sure of wrong answers. The first updates must unlearn these answers.",
            ("model/initialise=pytorch", "model/initialise=xavier"),
            0.8,
        )
    elif len(sizes) >= 3 and not _learns(evidence):
        values = [value for _, value in sizes]
        ratio = values[-1] / values[0] if values[0] > 0 else 1.0
        if ratio < 1e-3 or ratio > 1e3:
            word = "fades" if ratio < 1 else "grows"
            yield Finding(
                "bad-initialisation",
                f"Before the first update the size of the activations {word} from {number(values[0])} in "
                f"{sizes[0][0]} to {number(values[-1])} in {sizes[-1][0]} (root mean squares).",
                "The signal is lost, or blown up, on its way through the layers. The scale of the initial weights does "
                "not fit the activation.",
                ("model/initialise=kaiming", "model/initialise=xavier"),
                0.8,
                draw([_log10(value) for value in values]),
            )


def find_unscaled_inputs(evidence: Evidence) -> Iterator[Finding]:
    """Find inputs whose mean or spread is far from 0 and 1."""
    if not evidence.looks:
        return
    if not _has_large_input(evidence):
        return
    mean, std = _describe_input(evidence)
    yield Finding(
        "unscaled-inputs",
        f"The inputs have mean {number(mean)} and standard deviation {number(std)}.",
        "Nets expect inputs of about mean 0 and deviation 1. Large inputs make gradients large, or saturate the first "
        "layer.",
        (),
        0.8 if not _learns(evidence) else 0.6,
    )


def find_normalisation_faults(evidence: Evidence) -> Iterator[Finding]:
    """Find batch normalisation over a few items, or with fixed statistics in training."""
    if not evidence.looks:
        return
    look = evidence.looks[-1]
    layers = {name: facts for name, facts in (look.get("layers") or {}).items() if "training" in facts}
    if not layers:
        return
    fixed = [name for name, facts in layers.items() if facts.get("training") is False]
    if fixed:
        yield Finding(
            "normalisation-in-evaluation-mode",
            f"{len(fixed)} of {len(layers)} batch normalisations use fixed statistics in training ({fixed[0]}).",
            "Their averages are not learned from these data. That is right for a frozen part, and wrong elsewhere.",
            (),
            0.6,
        )
    fewest = min(layers.items(), key=lambda entry: entry[1].get("items", 1 << 30))
    batch_size = evidence.setting("trainer.batch_size")
    accumulation = evidence.setting("learner.accumulation") or 1
    per_update = int(batch_size) // int(accumulation) if isinstance(batch_size, int) else None
    if fewest[1].get("items", 1 << 30) < LEAST_BATCH or (per_update is not None and per_update < 4):
        yield Finding(
            "normalisation-of-tiny-batches",
            f"Batch normalisation ({fewest[0]}) averages over batches of {per_update} items.",
            "The averages of so few items are noise, and evaluation uses other averages. Larger batches help.",
            ("trainer.batch_size=32", "learner.accumulation=1"),
            0.7,
        )


def find_unused_parts(evidence: Evidence) -> Iterator[Finding]:
    """Find trained weights that never get a gradient, and weights that no update changes."""
    late = [look for look in evidence.looks if look.get("step", 0) >= 0][-3:]
    if not late:
        return
    unused = set(late[0].get("unused") or [])
    for look in late[1:]:
        unused &= set(look.get("unused") or [])
    if unused:
        verb = "get" if len(unused) > 1 else "gets"
        yield Finding(
            "unused-parts",
            f"{count(len(unused), 'weight')} {verb} no gradient: {_first_names(sorted(unused))}.",
            "The loss does not depend on them. A part of the model is not used, or is cut off (detach, no_grad).",
            (),
            0.8,
        )
    lr = evidence.lr or 0.0
    still = set.intersection(*(_unmoved_weights(look, lr) for look in late))
    ratios = [ratio for look in late for ratio in update_ratios(evidence, look) if ratio > 0]
    is_rounded_away = bool(ratios) and median(ratios) < SMALLEST_CHANGE
    if still and len(late) > 1 and not is_rounded_away:
        words = "have a gradient and never change" if len(still) > 1 else "has a gradient and never changes"
        yield Finding(
            "weights-that-never-move",
            f"{count(len(still), 'weight')} {words}: {_first_names(sorted(still))}.",
            "The optimizer was not given these weights, or its rate for them is zero.",
            (),
            0.85,
        )


def find_forgotten_weights(evidence: Evidence) -> Iterator[Finding]:
    """Find trained weights that no optimizer has."""
    names = evidence.examination.get("not_in_optimizer") or []
    if names:
        verb = "are" if len(names) > 1 else "is"
        yield Finding(
            "weights-that-never-move",
            f"{count(len(names), 'weight')} {verb} not in the optimizer: {_first_names(names)}.",
            "Such a weight keeps its initial value. Hand the optimizer all parameters, or freeze those that must stay.",
            (),
            0.9,
        )


def find_frozen_parts(evidence: Evidence) -> Iterator[Finding]:
    """Find a model that is mostly frozen although its weights were not trained before."""
    n_parameters = evidence.summary.get("parameters")
    n_trainable = evidence.summary.get("trainable")
    model = evidence.setting("model") or evidence.setting("learner.model") or {}
    if not n_parameters or not n_trainable or not isinstance(model, Mapping):
        return
    is_pretrained = "pretrained" in str(model.get("_target_", "")) or "weights" in model or evidence.setting("vectors")
    is_transfer = "Transfer" in str(evidence.procedure.get("_target_", ""))
    if n_trainable < 0.5 * n_parameters and not is_pretrained and not is_transfer:
        yield Finding(
            "frozen-parts",
            f"{n_trainable:,} of {n_parameters:,} weights are trained; the others keep their random initial values.",
            "Frozen layers make sense only where their weights were trained before.",
            (),
            0.75,
        )


# -- shared ---------------------------------------------------------------------------------------------------------


def _first_names(names: Sequence[str]) -> str:
    """List at most four names."""
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")


def _unmoved_weights(look: Mapping[str, Any], lr: float) -> set[str]:
    """Return the names of weights that the update did not change, although a step along the gradient would."""
    names = set()
    for name, facts in (look.get("weights") or {}).items():
        weight = facts.get("weight") or 0
        step = lr * (facts.get("gradient") or 0)
        if weight > 0 and step > SMALLEST_CHANGE * weight and facts.get("change") == 0:
            names.add(name)
    return names


def _profile(evidence: Evidence, look: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return (weight name, root mean square of its gradient) in the order of the model, without embeddings."""
    found = []
    for name, facts in evidence.matrices(look):
        if facts.get("gradient") is not None and facts.get("layer") != "Embedding":
            found.append((name, float(facts["gradient"])))
    return found


def _output_sizes(look: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return (layer, root mean square of its output) of linear layers and convolutions."""
    found = []
    for name, facts in (look.get("layers") or {}).items():
        is_linear = str(facts.get("type", "")).startswith(("Linear", "Conv"))
        if is_linear and facts.get("size") is not None:
            found.append((name, float(facts["size"])))
    return found


def _has_large_input(evidence: Evidence) -> bool:
    mean, std = _describe_input(evidence)
    scale = max(abs(mean), std)
    return scale > 8 or (0 < scale < 0.01)


def _describe_input(evidence: Evidence) -> tuple[float, float]:
    """Return the mean and the standard deviation of what the first layer took; 0 and 0 where that is not known."""
    facts = (evidence.looks[0].get("input") or {}) if evidence.looks else {}
    mean, size = facts.get("mean"), facts.get("size")
    if mean is None or size is None:
        return 0.0, 0.0
    return mean, max(0.0, size**2 - mean**2) ** 0.5


def _explain(scores: Mapping[str, Any], loss: float) -> bool:
    """Whether a net with such scores can have so large a cross-entropy; if not, the loss is another one.

    The cross-entropy of C scores is at most their range plus ln C, and that of one logit at most its size plus ln 2.
    """
    if "greatest" not in scores:
        return True
    least, greatest = scores["least"], scores["greatest"]
    reach = max(greatest - least, abs(greatest), abs(least))
    return loss <= 1.1 * (reach + math.log(max(scores["n"], 2)))


def _learns(evidence: Evidence) -> bool:
    """Whether the training is clearly better than chance. Then unusual numbers of a layer are no disease."""
    chance = evidence.chance_loss
    if len(evidence.losses) < 10:
        return False
    last = median(evidence.losses[-max(3, len(evidence.losses) // 10) :])
    if chance and evidence.is_classification:
        return last < 0.8 * chance
    first = median(evidence.losses[:3])
    return last < 0.5 * first


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -30.0
