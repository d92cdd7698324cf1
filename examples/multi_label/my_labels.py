"""Items with any number of labels, of which some are rare."""

import numpy as np
from sklearn.datasets import make_multilabel_classification

from dl_lab.datasets.dataset import Dataset


def labels(n: int, input_shape: list[int], n_classes: int) -> Dataset:
    x, y = make_multilabel_classification(n, n_features=input_shape[0], n_classes=n_classes, n_labels=1, random_state=0)
    x = (x / x.max()).astype(np.float32)
    first, second = n * 6 // 10, n * 8 // 10
    parts = [slice(first), slice(first, second), slice(second, n)]
    return Dataset.from_arrays(*[(x[part], y[part]) for part in parts], name="labels")
