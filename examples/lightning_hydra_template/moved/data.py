"""The data: what `setup` of the DataModule did."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split

from dl_lab.datasets.dataset import Dataset


def digits(lengths: list[int], workers: int, input_shape: list[int], n_classes: int) -> Dataset:
    images = torch.tensor(load_digits().images, dtype=torch.float32).view(-1, *input_shape)
    everything = TensorDataset((images / 16 - 0.3) / 0.37, torch.tensor(load_digits().target))
    train, val, test = random_split(everything, lengths, torch.Generator().manual_seed(42))
    names = [str(digit) for digit in range(n_classes)]
    return Dataset.from_loaders(train, val, test, "digits", f"split 42 {lengths}", class_names=names, workers=workers)
