"""What a user tells about her own data: names of classes, and facts for a predictor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dl_lab.datasets.dataset import Dataset
from dl_lab.types import UserError

SPLIT = (torch.rand(4, 2), torch.arange(4) % 2)


def make(**facts) -> Dataset:
    return Dataset.from_arrays(SPLIT, SPLIT, SPLIT, **facts)


def test_arrays_become_lists_as_they_will_be_read():
    facts = {"mean": np.array([0.5, 1.5]), "scale": torch.tensor(2.0), "names": ("a", "b"), 3: None}
    assert make(preprocessing=facts).preprocessing == {"mean": [0.5, 1.5], "scale": 2.0, "names": ["a", "b"], "3": None}
    assert make().preprocessing == {}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"names": {"a", "b"}}, "preprocessing: names cannot be saved as JSON: a set is no plain value"),
        (
            {"scale": len},
            "preprocessing: scale cannot be saved as JSON: a builtin_function_or_method is no plain value",
        ),
        ([1, 2], "preprocessing is a list; it must be a mapping"),
    ],
)
def test_facts_that_cannot_be_saved_are_one_sentence(facts, words):
    with pytest.raises(UserError, match=words):
        make(preprocessing=facts)


def test_names_of_classes_are_texts_and_no_text_is_a_list_of_them():
    assert make(class_names=[0, 1]).class_names == ("0", "1")
    with pytest.raises(UserError, match="class_names is the text 'ab'; it must be a list of names"):
        make(class_names="ab")
