"""The names of the classes that a user gives."""

from __future__ import annotations

import pytest
import torch

from dl_lab.datasets.dataset import Dataset
from dl_lab.types import UserError

SPLIT = (torch.rand(4, 2), torch.arange(4) % 2)


def make(**facts) -> Dataset:
    return Dataset.from_arrays(SPLIT, SPLIT, SPLIT, **facts)


def test_names_of_classes_are_texts_and_no_text_is_a_list_of_them():
    assert make(class_names=[0, 1]).class_names == ("0", "1")
    with pytest.raises(UserError, match="class_names is the text 'ab'; it must be a list of names"):
        make(class_names="ab")
