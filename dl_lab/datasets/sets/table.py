"""Your own table, a CSV or Parquet file. A model predicts a number or a class of each row from its other columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from dl_lab.datasets.batches import Loading, Order, fingerprint, shuffled
from dl_lab.datasets.dataset import Dataset, hold_tensors
from dl_lab.datasets.rows import Rows
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.tables.columns import Columns
from dl_lab.datasets.tables.reading import Format
from dl_lab.datasets.tables.understanding import Kind, understand_table
from dl_lab.types import LabelledBatch, UserError


def table(
    path: str,
    target: str,
    kind: Kind,
    input_shape: Sequence[int],
    n_classes: int,
    target_scale: float,
    columns: Columns,
    format: Format,
    rows: Rows,
    storage: Storage,
    loading: Loading,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 256,
    order: Order = shuffled,
) -> Dataset:
    """Return the rows of a table as LabelledBatch: scaled numbers and one-hot categories, and a number or a class.

    Args:
        path: A CSV or Parquet file with a header, relative to the current folder or to the data folder.
        target: The column to predict.
        kind: "regression" or "classes".
        input_shape: [features]; the config learns it from the table.
        n_classes: The outputs of a model: the classes, or 1 for a regression. The config learns it from the table.
        target_scale: The deviation of a number in the training rows; the config learns it from the table.
        columns: Which columns are features, and of what kind.
        format: How the file is written.
        rows: How rows become train, val and test.
        storage: The data folder.
        loading: Where the tensors reside.
        source: "real", or "generated" for numbers of the same shape that a model can learn.
        n_generated: Training rows of the generated table.
        order: The order of a training epoch.

    Raises:
        UserError: A cell cannot be used; the message names file, line and column.
    """
    if source == "generated":
        return _generate(input_shape[0], n_classes, kind, n_generated, loading, order)
    found = understand_table(path, target, kind, columns, format, rows, storage.data_dir)
    n_features = found.features.shape[1]
    if [n_features] != list(input_shape) or found.n_outputs != n_classes:
        raise UserError(
            f"{path} makes {n_features} features and {found.n_outputs} outputs, but the config says {input_shape[0]}"
            f" and {n_classes}: the table has changed since the config was made."
        )
    return Dataset.from_csv(path, target, rows, columns, format, kind, storage.data_dir, loading, order)


def learn(
    path: str,
    target: str,
    columns: Columns,
    format: Format,
    rows: Rows,
    storage: Storage,
    kind: Kind | None = None,
    **_: object,
) -> dict[str, object]:
    """Return what the config takes from the table: kind, input_shape, n_classes and target_scale."""
    found = understand_table(path, target, kind, columns, format, rows, storage.data_dir)
    return {
        "kind": found.kind,
        "input_shape": [found.features.shape[1]],
        "n_classes": found.n_outputs,
        "target_scale": found.deviation,
    }


def _generate(n_features: int, n_classes: int, kind: Kind, n: int, loading: Loading, order: Order) -> Dataset:
    """Return numbers whose class, or value, is a linear function of them."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(n_features, n_classes))
    batches: dict[str, LabelledBatch] = {}
    for split, size in {"train": n, "val": max(n // 4, 8), "test": max(n // 4, 8)}.items():
        x = rng.normal(size=(size, n_features)).astype(np.float32)
        scores = x @ weights
        values = (scores[:, 0] / np.sqrt(n_features)).astype(np.float32)
        y = scores.argmax(axis=1) if kind == "classes" else values
        batches[split] = LabelledBatch(torch.from_numpy(x), torch.from_numpy(y))
    names = tuple(f"class {i}" for i in range(n_classes)) if kind == "classes" else ()
    content = fingerprint(*itertools.chain.from_iterable(batches.values()))
    splits = hold_tensors(batches, loading, order)
    return Dataset(
        "table",
        "generated",
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=content,
        class_names=names,
    )
