"""The examination of a trained model and its data at the end of a fit: facts that the doctor cannot read from curves.

Every check runs in evaluation mode and keeps the state of the random generators. Nothing here changes a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.text.tokens import TokenSplit
from dl_lab.tasks.inputs import LABELS, split_labels
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Batch, Learner, Split, columns_of

ITEMS = 256  # items of each split, for the checks that compare splits: at least so many of a larger split
FOLDS = 4
ITEMS_TRIED = 64  # validation items, for the checks of the model
PROJECTIONS = 32  # numbers that stand for one item
SCREENED = 32  # values in the middle of an item that are compared first
MOST_VALUES = 20_000_000  # numbers of a split that is searched for repeated items; a larger one takes too long
Facts: TypeAlias = dict[str, object]  # plain values by name, as vitals.jsonl holds them
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def examine(learner: Learner, dataset: Dataset, n_seen: int) -> Facts:
    """Check a trained learner and its data.

    Args:
        learner: The learner. Its model is checked if it trains a torch model by gradient (`GradientLearner`).
        dataset: All items, also where several processes share them. Only splits in memory are read.
        n_seen: How many items the training has learned from, repetitions included. The model is tried on a two
            hundredth of that, at most ITEMS_TRIED items, so that the examination takes a small part of the time.

    Returns:
        Plain values by name; a check that does not apply is left out.
    """
    found: Facts = {}
    if not all(isinstance(split, TensorSplit | TokenSplit) for split in (dataset.train, dataset.val, dataset.test)):
        return found
    devices: list[torch.device] = []
    if isinstance(learner, GradientLearner) and learner.device.type == "cuda":
        devices.append(learner.device)
    with torch.random.fork_rng(devices), torch.no_grad():
        if not dataset.examined:  # once for all trainings of a process
            dataset.examined.update(_examine_data(dataset))
        found |= dataset.examined
        if isinstance(learner, GradientLearner):
            found |= _check_evaluation(learner, dataset.val, max(2, min(ITEMS_TRIED, n_seen // 200)))
    return found


def _examine_data(dataset: Dataset) -> Facts:
    samples = [_sample(split) for split in (dataset.train, dataset.val)]
    return _describe_labels(dataset, samples) | _compare_splits(dataset, samples)


def _sample(split: Split) -> Batch | None:
    """Return about ITEMS items, spread over a split of tensors; None of other splits."""
    if not isinstance(split, TensorSplit):
        return None
    return split.select(_spread_over(split))


def _spread_over(split: Split) -> Tensor:
    return torch.arange(0, len(split), max(1, len(split) // ITEMS))


def _describe_labels(dataset: Dataset, samples: Sequence[Batch | None]) -> Facts:
    """Return the counts of class labels, or the variance of the numbers to predict."""
    counts: dict[str, list[int]] = {}
    for name, split, sample in zip(("train", "val"), (dataset.train, dataset.val), samples, strict=True):
        target = _read_targets(split, sample)
        if target is None:
            return {}
        if target.is_floating_point():
            return {"target_variance": float(target.float().var(unbiased=False))}
        if target.dim() != 1 or target.numel() == 0 or int(target.min()) < 0:
            return {}
        counts[name] = torch.bincount(target.cpu()).tolist()
    return {"labels": counts}


def _read_targets(split: Split, sample: Batch | None) -> Tensor | None:
    """Return the labels of all items if the batches have them as they are stored, else the targets of the sample."""
    if isinstance(split, TokenSplit):
        return split.labels
    if not isinstance(split, TensorSplit) or sample is None:
        return None
    some = _find_target(sample)
    stored = _find_target(split.columns)
    if some is None or stored is None or stored.is_floating_point() or stored.shape[1:] != some.shape[1:]:
        return some
    are_same = torch.equal(stored[_spread_over(split).to(stored.device)].to(some), some)
    return stored.long() if are_same else some  # torch counts neither bool nor uint16


def _find_target(batch: Batch) -> Tensor | None:
    if isinstance(batch, Mapping):
        return next((batch[name] for name in LABELS if name in batch), None)
    return getattr(batch, "y", None)


def _find_input(batch: Batch) -> Tensor:
    """Return the first column that the model takes."""
    return columns_of(split_labels(batch)[0])[0]


# -- the model in evaluation mode ---------------------------------------------------------------------------------


def _check_evaluation(learner: GradientLearner, split: Split, n_items: int) -> Facts:
    if learner.forward is not learner.model:  # a compiled model, or a part of one
        return {}
    batch = next(iter(split.batches(min(len(split), n_items))))
    output = capture_output(learner, batch)
    dropouts = [name for name, module in learner.model.named_modules() if isinstance(module, DROPOUTS)]
    active = [name for name in dropouts if learner.model.get_submodule(name).training]
    found: Facts = {"dropout_in_evaluation": active}
    found |= _describe_code(output)
    found |= _describe_attention(learner.model, batch)
    mask = getattr(batch, "mask", None)
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and not batch.x.is_floating_point():
        found |= _change_padding(learner, batch, output)
    return found


def capture_output(learner: GradientLearner, batch: Batch) -> object:
    """Return the output of the model while the learner evaluates a batch.

    The task knows which columns of the batch the model takes.

    Returns:
        The output of the first call; None where the task does not call the model itself.
    """
    outputs: list[object] = []
    handle = learner.model.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    try:
        with torch.no_grad():
            learner.evaluate(batch)
    finally:
        handle.remove()
    return outputs[0] if outputs else None


def _describe_code(output: object) -> Facts:
    """Return the KL divergence of each latent unit of a variational autoencoder, in nats: its mean over the batch."""
    if not isinstance(output, tuple) or len(output) != 3:
        return {}
    _, mean, log_variance = output
    if not isinstance(mean, Tensor) or not isinstance(log_variance, Tensor):
        return {}
    if mean.dim() != 2 or mean.shape != log_variance.shape:
        return {}
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp())  # Kingma and Welling 2014, appendix B
    return {"kl_by_unit": divergence.mean(dim=0).tolist()}


def _describe_attention(model: nn.Module, batch: Batch) -> Facts:
    """Return the entropy of each layer's attention, as a share of the most that the lengths allow.

    A share of 1 is attention that chooses nothing.
    """
    read_maps: Callable[[Tensor, Tensor], list[Tensor]] | None = getattr(model, "attention_maps", None)
    if read_maps is None or not isinstance(getattr(batch, "mask", None), Tensor):
        return {}
    most = batch.mask.sum(dim=1).clamp(min=2).log()  # (batch,)
    shares: list[float] = []
    maps = read_maps(batch.x, batch.mask)  # a layer: (batch, heads, length, length)
    for weights in maps:
        entropy = -(weights * weights.clamp(min=1e-12).log()).sum(dim=-1).mean(dim=1)  # (batch, length)
        own = (entropy * batch.mask).sum(dim=1) / batch.mask.sum(dim=1).clamp(min=1)
        shares.append(float((own / most).mean()))
    return {"attention_entropy": shares}


def _change_padding(learner: GradientLearner, batch: Batch, output: object) -> Facts:
    """Write other tokens into the padding, and return how much the output changes: it must not read the padding."""
    padding = ~batch.mask
    if not padding.any() or padding.all():
        return {}
    other = torch.where(padding, batch.x.max(), batch.x)
    if torch.equal(other, batch.x):
        return {}
    first = _find_scores(output)
    second = _find_scores(capture_output(learner, batch._replace(x=other)))
    if first is None or second is None or first.shape != second.shape:
        return {}
    rows = padding.flatten(1).any(dim=1)
    difference = (first - second)[rows].abs().max() / first.std().clamp(min=1e-8)
    return {"padding_effect": float(difference)}


def _find_scores(output: object) -> Tensor | None:
    """Return the scores (batch, classes) of a classifier; None for other outputs."""
    if isinstance(output, Tensor) and output.is_floating_point() and output.dim() == 2:
        return output.float()
    return None


# -- the splits beside each other -----------------------------------------------------------------------------------


def _compare_splits(dataset: Dataset, samples: Sequence[Batch | None]) -> Facts:
    """Return how well a small classifier tells train from validation, and how many test items are also in train."""
    train, val = samples
    some = next(iter(dataset.train.batches(min(len(dataset.train), ITEMS_TRIED)))) if train is None else train
    target = _find_target(some)
    if target is None or target.is_floating_point():  # windows of a series overlap and drift
        return {}
    found: Facts = {}
    x = _find_input(some)
    if train is not None and val is not None and x.is_floating_point():
        others = _find_input(val)
        if min(len(x), len(others)) >= 32 and x.shape[1:] == others.shape[1:]:
            features = _summarise_items(torch.cat([x, others])).cpu()
            found["train_or_val_auc"] = separability(features[: len(x)], features[len(x) :])
    if isinstance(dataset.train, TensorSplit) and isinstance(dataset.test, TensorSplit):
        found["test_in_train"] = count_equal_rows(_find_input(dataset.train.columns), _find_input(dataset.test.columns))
    elif len(dataset.train) * x[0].numel() <= MOST_VALUES:
        found["test_in_train"] = count_repeats(_read_keys(dataset.train), _read_keys(dataset.test))
    return found


def _summarise_items(x: Tensor) -> Tensor:
    """Return a few numbers for each item: (items, ...) -> (items, features) float64."""
    flat = x.flatten(1).float()
    projected = flat @ _draw_directions(flat.shape[1], PROJECTIONS, torch.float32).to(flat.device)
    mean = flat.mean(dim=1, keepdim=True)
    spread = torch.linalg.vector_norm(flat - mean, dim=1, keepdim=True)  # std_mean and aminmax take ten times as long
    extremes = [flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)]
    return torch.cat([projected, mean, spread, *extremes], dim=1).double()


def _draw_directions(n: int, n_directions: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, n_directions, generator=generator, dtype=dtype) / n**0.5


def separability(first: Tensor, second: Tensor) -> float:
    """Return how well a linear classifier tells two samples apart: the area under its ROC curve on held-out rows.

    Args:
        first: (n, features).
        second: (m, features).

    Returns:
        About 0.5 for two samples of one distribution; 1 where the classifier makes no mistake.
    """
    x = torch.cat([first, second])
    x = (x - x.mean(dim=0)) / x.std(dim=0).clamp(min=1e-9)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = torch.cat([torch.full((len(first),), -1.0), torch.full((len(second),), 1.0)]).double()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    order = order[: len(order) // FOLDS * FOLDS]  # folds of one size
    x, y = x[order].unflatten(0, (FOLDS, -1)), y[order].unflatten(0, (FOLDS, -1))
    grams = x.mT @ x  # (folds, features, features)
    moments = x.mT @ y.unsqueeze(2)  # (folds, features, 1)
    ridge = len(first) * 0.05 * torch.eye(x.shape[2], dtype=x.dtype)
    weights = torch.linalg.solve(grams.sum(dim=0) - grams + ridge, moments.sum(dim=0) - moments)  # of the other folds
    is_second = y.flatten() > 0
    ranks = is_second[(x @ weights).flatten().argsort()].nonzero() + 1
    n_second = int(is_second.sum())
    pairs_in_order = int(ranks.sum()) - n_second * (n_second + 1) // 2
    return pairs_in_order / (n_second * (len(is_second) - n_second))


def _read_keys(split: Split) -> Tensor:
    """Return a number for each item, equal for equal items and hardly ever for others: (items,) int64."""
    return torch.cat([make_keys(_find_input(batch)) for batch in split.batches(1024)])


def make_keys(x: Tensor) -> Tensor:
    """Return the same number for the same item: (items, ...) -> (items,) int64."""
    flat = x.flatten(1)
    directions = _draw_directions(flat.shape[1], 2, torch.float64).to(flat.device)
    rounded = (flat.double() @ directions).mul_(2**30).round_().long()  # the last bits depend on the batch
    return (rounded[:, 0] * 1_000_003 + rounded[:, 1]).cpu()


def count_equal_rows(train: Tensor, test: Tensor) -> int:
    """Return how many rows of test are also rows of train, bit for bit.

    Most rows differ in a few values from the middle already. These are compared first, and whole rows only if they
    agree.

    Args:
        train: (n, ...).
        test: (m, ...). No row is equal if type or shape differ.
    """
    if train.dtype != test.dtype or train.shape[1:] != test.shape[1:] or not len(train) or not len(test):
        return 0
    train = train.flatten(1)
    test = test.flatten(1)
    start = (train.shape[1] - SCREENED) // 2
    if start > 0:
        train_keys = hash_rows(train[:, start : start + SCREENED])
        test_keys = hash_rows(test[:, start : start + SCREENED]).to(train_keys.device)
        is_suspect = torch.isin(test_keys, train_keys)
        if not is_suspect.any():
            return 0
        test = test[is_suspect.to(test.device)]
        train = train[torch.isin(train_keys, test_keys)]
    return int(torch.isin(hash_rows(test).to(train.device), hash_rows(train)).sum())


def hash_rows(rows: Tensor) -> Tensor:
    """Return a number for each row, equal for equal bytes and hardly ever for others: (n, values) -> (n,) int64."""
    n_bytes = rows.shape[1] * rows.element_size()
    as_bytes = rows.contiguous().view(torch.uint8).view(len(rows), n_bytes)
    words = nn.functional.pad(as_bytes, (0, -n_bytes % 8)).view(torch.int64)
    generator = torch.Generator().manual_seed(1)
    factors = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator) * 2 + 1
    mixed = words ^ (words >> 29)  # so that high bits count, too
    return (mixed * factors.to(rows.device)).sum(dim=1)


def count_repeats(train: Tensor, test: Tensor) -> int:
    """Return how many of the keys of the test items are also keys of training items."""
    return int(torch.isin(test, train).sum())
