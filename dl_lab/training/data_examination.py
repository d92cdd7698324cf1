"""The examination of a data set at the end of a fit: facts that the doctor cannot read from curves.

The random generators keep their state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.text.tokens import TokenSplit
from dl_lab.tasks.inputs import LABELS, split_labels
from dl_lab.types import Batch, Split, columns_of

ITEMS_READ = 64  # items of a split that is read in batches, to see what they are
ITEMS = 256  # items of each split, for the checks that compare splits: at least so many of a larger split
FOLDS = 4
PROJECTIONS = 32  # numbers that stand for one item
SCREENED = 32  # values in the middle of an item that are compared first
MOST_VALUES = 20_000_000  # numbers of a split that is searched for repeated items; a larger one takes too long
Facts: TypeAlias = dict[str, object]  # plain values by name, as vitals.jsonl holds them


def examine_data(dataset: Dataset) -> Facts:
    """Check the data, once for all trainings of a process.

    Args:
        dataset: All items, also where several processes share them. Only splits in memory are read.

    Returns:
        Plain values by name; a check that does not apply is left out.
    """
    if not lies_in_memory(dataset):
        return {}
    if not dataset.examined:
        with undisturbed():
            dataset.examined.update(_examine_data(dataset))
    return dataset.examined


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the state of all random generators, and record no operation for a gradient."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    with torch.random.fork_rng(range(n_gpus)), torch.no_grad():
        yield


def lies_in_memory(dataset: Dataset) -> bool:
    """Whether all splits are ready in memory, so that reading some items takes no time."""
    return all(isinstance(split, TensorSplit | TokenSplit) for split in (dataset.train, dataset.val, dataset.test))


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


def _compare_splits(dataset: Dataset, samples: Sequence[Batch | None]) -> Facts:
    """Return how well a small classifier tells train from validation, and how many test items are also in train."""
    train, val = samples
    some = next(iter(dataset.train.batches(min(len(dataset.train), ITEMS_READ)))) if train is None else train
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
    # in NumPy, which takes two thirds of torch's time for such small arrays
    x = np.concatenate([first.numpy(), second.numpy()])
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0, ddof=1), 1e-9)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = np.concatenate([np.full(len(first), -1.0), np.full(len(second), 1.0)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).numpy()
    order = order[: len(order) // FOLDS * FOLDS].reshape(FOLDS, -1)
    x, y = x[order], y[order]  # (folds, rows, features), (folds, rows)
    grams = x.transpose(0, 2, 1) @ x
    moments = np.einsum("krf,kr->kf", x, y)
    ridge = len(first) * 0.05 * np.eye(x.shape[2])
    others = grams.sum(axis=0) - grams + ridge  # of the other folds
    weights = np.linalg.solve(others, (moments.sum(axis=0) - moments)[:, :, None])
    scores = (x @ weights).ravel()
    is_second = y.ravel() > 0
    ranks = np.flatnonzero(is_second[scores.argsort()]) + 1
    n_second = len(ranks)
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
