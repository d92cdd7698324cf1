"""Rules about the data, the config and the final examination: labels, splits, padding, evaluation, regularisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dl_lab.show.doctor.evidence import Evidence
from dl_lab.show.doctor.findings import Finding, number

CROSS_ENTROPIES = ("Classification", "CrossEntropyLoss", "BinaryClassification")


def find_double_softmax(evidence: Evidence) -> Iterator[Finding]:
    """Find a model that gives probabilities to a loss that takes logits."""
    if evidence.task not in CROSS_ENTROPIES or not evidence.has_usual_loss or len(evidence.looks) < 2:
        return
    outputs = [look.get("output") or {} for look in evidence.looks]
    several = [facts for facts in outputs if facts.get("n", 0) > 1]
    single = [facts for facts in outputs if facts.get("n") == 1]
    is_double = bool(several) and all(facts.get("sums_to_one") for facts in several)
    in_unit = all(facts.get("least", -1) >= 0 and facts.get("greatest", 2) <= 1 for facts in single)
    is_double |= bool(single) and in_unit
    if is_double:
        yield Finding(
            "softmax-twice",
            "The outputs of the model are probabilities (not negative, rows that sum to 1), and the loss takes logits.",
            "The loss applies softmax once more. The gradient shrinks and the loss cannot come near zero: return the "
            "logits from the model.",
            (),
            0.95,
        )


def find_label_faults(evidence: Evidence) -> Iterator[Finding]:
    """Find labels that are all the same, or that are not numbered from 0."""
    labels = evidence.examination.get("labels") or {}
    counts = [int(n) for n in labels.get("train") or []]
    if not counts:
        counts = list(evidence.counts("train").values())
    if not counts or not evidence.curve("val/accuracy"):
        return
    used = [i for i, n in enumerate(counts) if n]
    seen = next((look["output"]["n"] for look in evidence.looks if look.get("output")), None)
    n_outputs = seen or evidence.setting("learner.model.n_classes")  # a model in NumPy has no looks
    if len(used) == 1:
        yield Finding(
            "constant-labels",
            f"All {sum(counts):,} training labels are class {used[0]}.",
            "There is nothing to learn. The label column, or the folder of the classes, is probably a wrong one.",
            (),
            1.0,
        )
    elif used[0] > 0 and isinstance(n_outputs, int) and len(used) == used[-1]:
        yield Finding(
            "labels-off-by-one",
            f"The labels run from {used[0]} to {used[-1]}; the net has outputs for the classes 0 to {n_outputs - 1}.",
            "No item has class 0: the labels seem to be numbered from 1.",
            (),
            0.8,
        )


def find_shifted_validation(evidence: Evidence) -> Iterator[Finding]:
    """Find validation items that a small classifier tells from training items."""
    auc = evidence.examination.get("train_or_val_auc")
    if auc is not None and auc > 0.75:
        yield Finding(
            "shifted-validation",
            f"A linear classifier tells training from validation items with an area under the ROC curve of "
            f"{number(auc)} (.5 is chance).",
            "Training and validation items come from different distributions, or went through different "
            "preprocessing. Validation then does not measure what the net has learned.",
            (),
            0.7 + 0.2 * (auc > 0.9),
        )


def find_leaked_items(evidence: Evidence) -> Iterator[Finding]:
    """Find test items that are also training items."""
    n = evidence.examination.get("test_in_train") or 0
    size = evidence.size("test")
    if n and size and n / size > 0.02:
        yield Finding(
            "test-items-in-train",
            f"{n:,} of {size:,} test items are also training items ({n / size:.0%}).",
            "The test figures are too good, because the net has learned these items.",
            (),
            0.9,
        )


def find_read_padding(evidence: Evidence) -> Iterator[Finding]:
    """Find outputs that depend on the tokens behind the mask."""
    effect = evidence.examination.get("padding_effect")
    if effect is not None and effect > 0.01:
        yield Finding(
            "padding-is-read",
            f"Other tokens in the padding change the outputs by {number(effect)} of their spread.",
            "The model averages over padding, takes its last state from there, or lacks a mask. Its answer depends on "
            "the length of the other texts of the batch.",
            ("model.skip_padding=true",),
            0.85,
        )


def find_evaluation_faults(evidence: Evidence) -> Iterator[Finding]:
    """Find dropout that is active in evaluation."""
    names = evidence.examination.get("dropout_in_evaluation") or []
    if names:
        yield Finding(
            "dropout-in-evaluation",
            f"{len(names)} dropout layers stay in training mode during evaluation ({', '.join(names[:3])}).",
            "Validation and test figures are those of a randomly thinned net. They change with each evaluation.",
            (),
            0.9,
        )


def find_heavy_regularisation(evidence: Evidence) -> Iterator[Finding]:
    """Find a penalty that is larger than the loss, or weight decay that shrinks the weights."""
    penalty = evidence.curve("train/penalty")
    loss = evidence.curve("train/loss")
    if penalty and loss and penalty[-1] > 3 * abs(loss[-1]) > 0:
        yield Finding(
            "regularisation-dominates",
            f"The penalty is {number(penalty[-1])}, the loss itself {number(loss[-1])}.",
            "Above all, the net learns to have small weights.",
            ("task.strength=0.0001",),
            0.8,
        )
        return
    decay = evidence.setting("learner.optimizer.weight_decay") or 0
    strength = evidence.setting("learner.task.strength") or 0
    if len(evidence.looks) < 2 or max(decay, strength) < 1e-2:
        return
    first = _sizes(evidence, evidence.looks[0])
    last = _sizes(evidence, evidence.looks[-1])
    ratios = sorted(last[name] / size for name, size in first.items() if size > 0 and name in last)
    if not ratios or ratios[len(ratios) // 2] >= 0.5:
        return
    if decay >= strength:
        cause = f"weight_decay is {decay:g}"
        tries = ("optimizer.weight_decay=0.0001",)
    else:
        cause = f"the penalty's strength is {strength:g}"
        tries = ("task.strength=0.0001",)
    yield Finding(
        "regularisation-dominates",
        f"Between updates {evidence.looks[0]['step']} and {evidence.looks[-1]['step']} the weights shrank to "
        f"{ratios[len(ratios) // 2]:.0%} of their size ({cause}).",
        "The regularisation pulls harder than the gradient.",
        tries,
        0.8,
    )


def find_posterior_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Find a variational autoencoder whose code carries no information."""
    kl = evidence.curve("val/kl")
    if not evidence.is_over or not kl or evidence.summary.get("steps", 0) < 30:
        return
    n_latent = evidence.setting("learner.model.latent_dim")
    limit = 0.02 * n_latent if isinstance(n_latent, int) else 0.05
    if kl[-1] < limit:
        yield Finding(
            "posterior-collapse",
            f"val/kl is {number(kl[-1])} nats for {n_latent or 'all'} latent units.",
            "The code says nothing about the image: the decoder draws the same mean image for every code. The KL term "
            "outweighs the reconstruction.",
            ("task.beta=0.0001",),
            0.85,
        )
        return
    by_unit = evidence.examination.get("kl_by_unit") or []
    empty = [i for i, nats in enumerate(by_unit) if nats < 0.01]
    if by_unit and len(empty) >= 0.5 * len(by_unit):
        yield Finding(
            "posterior-collapse",
            f"{len(empty)} of {len(by_unit)} latent units carry less than .01 nats.",
            "The net uses only part of its code.",
            ("task.beta=0.0001",),
            0.6,
        )


def find_uniform_attention(evidence: Evidence) -> Iterator[Finding]:
    """Find attention that gives all tokens the same weight, in a net that has not learned."""
    shares = evidence.examination.get("attention_entropy") or []
    losses = evidence.curve("val/loss")
    chance = evidence.chance_loss
    if not shares or not losses or chance is None or min(losses) < 0.95 * chance:
        return
    if min(shares) > 0.995:
        yield Finding(
            "uniform-attention",
            f"In every layer the entropy of attention is {number(min(shares))} of the most that the lengths allow.",
            "Each token looks at all tokens equally: attention has not learned to choose.",
            ("optimizer.lr=0.0003", "scheduler=warmup_decay"),
            0.6,
        )


def find_starved_training(evidence: Evidence) -> Iterator[Finding]:
    """Find a training that waits for its data."""
    share = evidence.summary.get("waiting_share")
    if isinstance(share, int | float) and share > 0.4 and evidence.summary.get("steps", 0) >= 30:
        yield Finding(
            "starved-training",
            f"The training waits for data in {share:.0%} of its time.",
            "Reading and decoding take longer than learning.",
            ("dataset.loading.residence=device", "dataset.loading.workers=4"),
            0.6,
        )


def _sizes(evidence: Evidence, look: Mapping[str, Any]) -> dict[str, float]:
    """Return weight matrix -> its size in one look."""
    return {name: float(facts.get("weight") or 0) for name, facts in evidence.matrices(look)}
