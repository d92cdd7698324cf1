"""Taxi: normal rows only before test, windows within their part, the release's facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dl_lab.conf
import numpy as np
import pytest
import torch
import yaml

from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.sets.nyc_taxi import nyc_taxi
from dl_lab.datasets.storage import Storage

CONF = yaml.safe_load(Path(dl_lab.conf.__file__).with_name("dataset").joinpath("nyc_taxi.yaml").read_text())
del CONF["_target_"]
del CONF["defaults"]
CONF["storage"] = Storage("", "", CONF["storage"]["files"])
CONF["layout"] = Layout(**{key: value for key, value in CONF["layout"].items() if key != "_target_"})


def everything(split):
    return next(split.batches(len(split))).x


def test_parts_hold_their_own_rows_and_training_no_anomaly():
    dataset = nyc_taxi(**{**CONF, "source": "generated", "n_generated": 2000})
    content = dataset.content
    series, scaler, ends, labelled = content.series, content.scaler, content.ends, content.labelled
    scaled = torch.from_numpy(scaler.apply(series.values)).float()
    train, val, test = (everything(split) for split in (dataset.train, dataset.val, dataset.test))
    assert ends[1] == labelled[0][0]
    torch.testing.assert_close(train[-1], scaled[ends[0] - 48 : ends[0]])
    torch.testing.assert_close(val[0], scaled[ends[0] : ends[0] + 48])
    torch.testing.assert_close(val[-1], scaled[ends[1] - 48 : ends[1]])
    torch.testing.assert_close(test[0][-1], scaled[ends[1]])
    assert len(test) == len(series) - ends[1]
    np.testing.assert_allclose(dataset.preprocessing["scaler"]["shift"], series.values[: ends[0]].mean(axis=0))


def test_the_declared_shape_is_checked():
    with pytest.raises(ValueError, match="has 2 features, the series has 1"):
        nyc_taxi(**{**CONF, "source": "generated", "input_shape": [48, 2]})


def test_real_file(real_data):
    if not (real_data / CONF["storage"].files[0]["path"]).exists():
        pytest.skip("nyc_taxi.csv is not in the data folder")
    dataset = nyc_taxi(**{**CONF, "storage": replace(CONF["storage"], data_dir=str(real_data))})
    series, labelled = dataset.content.series, dataset.content.labelled
    assert dataset.label == "full"
    assert len(series) == 10_320
    assert round(float(series.values.mean()), 2) == 15137.57
    assert dataset.content.ends[1] == 5839
    assert sum(last - first + 1 for first, last in labelled) == 1035
