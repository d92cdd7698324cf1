"""Data sets of torch as splits: the order and the augmentations of an epoch depend on (seed, epoch) only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.loaders import LoaderSplit
from dl_lab.types import ConfigError, LabelledBatch, UserError


class Noisy:
    """Ten items (x, y); each look at an item draws noise."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i == 10:
            raise IndexError
        return torch.tensor([float(i), float(torch.rand(())), float(np.random.rand())]), i % 3


class Texts(Noisy):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"x": x, "labels": y, "name": f"item {i}"}


class Stream(IterableDataset):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([(torch.tensor([100.0 * self.epoch + i]), i) for i in range(7)])


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) > 0 and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_is_a_function_of_seed_and_epoch_also_from_its_middle(workers):
    split = LoaderSplit(Noisy(), workers=workers)
    torch.manual_seed(1)
    whole = list(split.epoch(3, seed=5, epoch=2))
    torch.manual_seed(2)
    assert isinstance(whole[0], LabelledBatch) and [len(batch.y) for batch in whole] == [3, 3, 3, 1]
    assert same(split.epoch(3, 5, 2), whole)
    assert same(split.epoch(3, 5, 2, start=2), whole[2:])
    assert not same(split.epoch(3, 5, 3), whole)


def test_the_runs_own_random_numbers_stay_as_they_are():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    list(LoaderSplit(Noisy()).epoch(3, 0, 0))
    assert torch.equal(torch.rand(2), wanted)


def test_a_smaller_last_batch_is_left_out():
    split = LoaderSplit(Noisy(), drop_last=True)
    assert split.n_batches(3) == len(list(split.epoch(3, 0, 0))) == len(split.sizes(3, 0, 0)) == 3
    assert sum(len(batch.y) for batch in split.batches(3)) == 10


def test_mappings_stay_mappings_and_texts_stay_texts():
    batch = next(iter(LoaderSplit(Texts()).to(torch.device("cpu")).batches(4)))
    assert list(batch) == ["x", "labels", "name"] and batch["name"][1] == "item 1" and batch["labels"].shape == (4,)


def test_parts_of_processes_are_the_whole_batch():
    split = LoaderSplit(Noisy())
    whole = list(split.epoch(4, 0, 0))
    parts = [list(split.divided(rank, 2).epoch(4, 0, 0)) for rank in range(2)]
    for i, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[i].x for part in parts]), batch.x)


def test_a_stream_has_batches_instead_of_a_length():
    split = LoaderSplit(Stream(), n_batches_per_epoch=3)
    assert split.n_batches(2) == 3 and len(split) == 0
    found = [batch.x[0, 0].item() for batch in split.epoch(2, 0, 4)]
    assert found == [400.0, 402.0, 404.0]
    assert [batch.x[0, 0].item() for batch in split.epoch(2, 0, 4, start=1)] == found[1:]
    with pytest.raises(ConfigError, match="n_batches_per_epoch"):
        LoaderSplit(Stream()).n_batches(2)
    with pytest.raises(ConfigError, match="one process"):
        split.divided(0, 2)


def test_arrays_become_a_data_set():
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    y = np.array([0, 1, 0, 1, 0, 1])
    dataset = Dataset.from_arrays((x, y), (x[:2], y[:2]), (x[2:4], y[2:4]), class_names=("a", "b"))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [6, 2, 2]
    assert torch.equal(next(iter(dataset.test.batches(9))).x, torch.from_numpy(x[2:4]))
    assert dataset.fingerprint != Dataset.from_arrays((x + 1, y), (x[:2], y[:2]), (x[2:4], y[2:4])).fingerprint
    with pytest.raises(ValueError, match="train has 6 inputs and 5 labels"):
        Dataset.from_arrays((x, y[:5]), (x, y), (x, y))


def test_arrays_that_are_no_numbers_or_no_columns_are_one_sentence():
    x = np.zeros((4, 2), np.float32)
    words = np.array(["a", "b", "a", "b"])
    good = (x, np.arange(4))
    with pytest.raises(UserError, match="The labels of val are of NumPy's type <U1; numbers are needed"):
        Dataset.from_arrays(good, (x, words), good)
    with pytest.raises(UserError, match="The inputs of train are of NumPy's type object"):
        Dataset.from_arrays((x.astype(object), words), good, good)
    with pytest.raises(UserError, match="test has 1 column: give inputs and labels, or a mapping"):
        Dataset.from_arrays(good, good, (x,))


def test_loaders_in_place_of_data_sets_are_one_sentence():
    with pytest.raises(UserError, match=r"takes the data sets, not their DataLoaders: give loader\.dataset"):
        Dataset.from_loaders(DataLoader([1]), Noisy(), Noisy(), "mine", "version 1")  # pyright: ignore[reportArgumentType]


def test_data_sets_of_torch_become_a_data_set():
    dataset = Dataset.from_loaders(Noisy(), Noisy(), Stream(), "mine", "version 1")
    assert dataset.summary()["sizes"] == {"train": 10, "val": 10, "test": 0}
    assert sum(len(batch.y) for batch in dataset.test.batches(4)) == 7


def test_a_csv_becomes_the_data_set_that_a_config_makes(tmp_path):
    from dl_lab import configs
    from dl_lab.datasets.rows import Folds

    path = tmp_path / "houses.csv"
    rows = "".join(f"{i * 7 % 90 + 30},{['Oslo', 'Rome'][i % 2]},{i * 7 % 90 * 2.5 + i % 2}\n" for i in range(40))
    path.write_text(f"area,city,price\n{rows}")
    dataset = Dataset.from_csv(str(path), target="price")
    words = ["dataset=table", f"dataset.path={path}", "dataset.target=price"]
    made = configs.build(configs.Composer().compose(words).config["procedure"], "dataset")
    assert dataset.summary() == made.summary()
    assert dataset.preprocessing == made.preprocessing
    assert same(dataset.train.batches(8), made.train.batches(8))
    folded = Dataset.from_csv(str(path), "city", rows=Folds(n=4, fold=1))
    assert folded.class_names == ("Oslo", "Rome") and len(folded.test) == 10
    with pytest.raises(UserError, match=r"houses.csv has no column 'prise'"):
        Dataset.from_csv(str(path), target="prise")
