"""Air quality: split by time, scaled from training rows, targets that never reach into the next part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dl_lab.conf
import numpy as np
import pytest
import torch
import yaml

from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.sets.air_quality import air_quality
from dl_lab.datasets.storage import Storage

CONF = yaml.safe_load(Path(dl_lab.conf.__file__).with_name("dataset").joinpath("air_quality.yaml").read_text())
del CONF["_target_"]
del CONF["defaults"]
CONF["storage"] = Storage("", "", CONF["storage"]["files"])
CONF["layout"] = Layout(**{key: value for key, value in CONF["layout"].items() if key != "_target_"})


def build(**changes):
    return air_quality(**{**CONF, "source": "generated", "n_generated": 300, **changes})


def everything(split):
    return next(split.batches(len(split)))


@pytest.mark.parametrize("horizon", [1, 6])
def test_targets_of_the_parts_are_the_rows_in_order(horizon):
    dataset = build(horizon=horizon)
    content = dataset.content
    series, scaler, ends = content.series, content.scaler, content.ends
    scaled = torch.from_numpy(scaler.apply(series.values)).float()
    starts = {"train": CONF["window"], "val": ends[0], "test": ends[1]}
    for (split, start), end in zip(starts.items(), ends, strict=True):
        batch = everything(getattr(dataset, split))
        assert len(batch.y) == end - start - horizon + 1
        torch.testing.assert_close(batch.y[0], scaled[start : start + horizon])
        torch.testing.assert_close(batch.y[-1], scaled[end - horizon : end])
        torch.testing.assert_close(batch.x[0], scaled[start - CONF["window"] : start])


def test_the_scaler_sees_training_rows_only():
    dataset = build()
    series, ends = dataset.content.series, dataset.content.ends
    train = series.values[: ends[0]]
    np.testing.assert_allclose(dataset.preprocessing["scaler"]["shift"], train.min(axis=0))
    assert not np.allclose(dataset.preprocessing["scaler"]["shift"], series.values.min(axis=0))


def test_declared_number_of_features_is_checked():
    with pytest.raises(ValueError, match="n_features 12 is not the number of columns, 13"):
        build(n_features=12)


def test_real_file(real_data):
    if not (real_data / CONF["storage"].files[0]["path"]).exists():
        pytest.skip("AirQualityUCI.csv is not in the data folder")
    dataset = air_quality(**{**CONF, "storage": replace(CONF["storage"], data_dir=str(real_data))})
    assert dataset.label == "full"
    observed = dataset.content.series.observed.sum(axis=0)
    assert observed.tolist() == [7674, 8991, 914, 8991, 8991, 7718, 8991, 7715, 8991, 8991, 8991, 8991, 8991]
    assert dataset.content.series.repairs["blank"] == 114
