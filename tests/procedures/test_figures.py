"""What stands on the figures of procedures: units, dates, layers in words, the spoken text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import ConciseDateFormatter
from torch import nn

from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.tables import Series
from dl_lab.datasets.sets import air_quality, nyc_taxi
from dl_lab.models.vae import VAE
from dl_lab.procedures import anomalies, forecast, transcription
from dl_lab.procedures.latent import Latent
from dl_lab.show import gradient_plots
from dl_lab.training.summary import name_in_words

HOUR = np.timedelta64(3600, "s")


def content(names: tuple[str, ...], units: dict[str, str], n: int = 200) -> SeriesContent:
    values = np.random.default_rng(0).uniform(1, 9, (n, len(names)))
    times = np.datetime64("2005-03-10T18:00:00") + np.arange(n) * HOUR
    series = Series(times, values, np.ones_like(values, dtype=bool), names)
    return SeriesContent(series, None, (100, 150, n), units=units)  # pyright: ignore[reportArgumentType]


def test_forecasts_have_dates_and_units():
    about = content(("T", "AH"), air_quality.UNITS)
    series = about.series
    figure, rows = forecast.draw_forecast(series.values + 1, series.values, series.times, series.names, about.titles)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["T (°C)", "AH"]
    FigureCanvasAgg(figure).draw()
    for axis in panels:
        assert isinstance(axis.xaxis.get_major_formatter(), ConciseDateFormatter)
        assert "2005-Mar" in axis.xaxis.get_offset_text().get_text()
    assert rows[-1]["time"] == str(series.times[-1])
    for draw in (forecast.draw_residuals, forecast.draw_predicted_actual):
        arguments = (series.values,) if draw is forecast.draw_residuals else (series.values, series.values)
        drawn, _ = draw(*arguments, series.names, about.titles)
        assert [axis.get_title() for axis in drawn.axes if axis.get_title()] == ["T (°C)", "AH"]


def test_anomalies_have_dates_and_units():
    about = content(("value",), nyc_taxi.UNITS)
    scores = np.linspace(0.1, 9, 200)
    figure, _ = anomalies.draw(about.series, about.titles[0], scores, 3.0, about.ends, [(160, 170)])
    above, below = figure.axes
    assert above.get_ylabel() == "value (passengers in half an hour)"
    assert isinstance(below.xaxis.get_major_formatter(), ConciseDateFormatter)


def test_a_spectrogram_says_what_is_spoken_and_what_was_written():
    titles = ["spoken: in being modern\nwritten: in beeing"]
    figure, rows = transcription.draw_spectrograms([torch.rand(80, 100)], ["LJ001-0002"], titles, 62.5)
    (axis,) = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert axis.get_title(loc="left") == titles[0]
    assert axis.get_title(loc="center") == ""
    assert axis.get_title(loc="right") == rows[0]["clip"] == "LJ001-0002"


def test_samples_of_a_vae_carry_no_numbers_that_read_as_classes(tmp_path, monkeypatch):
    figures = {}

    class Recorder:
        def figure(self, name, figure, rows):
            figures[name] = (figure, rows)

    images = torch.rand(10, 1, 8, 8)
    split = type("Split", (), {"batches": lambda self, n: iter([type("Batch", (), {"x": images})])})()
    dataset = type("Data", (), {"test": split})()
    model = VAE(input_shape=[1, 8, 8], latent_dim=3, hidden=[4])
    with torch.no_grad():
        Latent(dataset, None, None)._draw_images(Recorder(), model)  # pyright: ignore
    figure, rows = figures["samples"]
    assert len(figure.axes) == len(rows) == 100
    assert {axis.get_ylabel() + axis.get_xlabel() + axis.get_title() for axis in figure.axes} == {""}


def test_layers_are_called_in_words():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    words = name_in_words(model)
    assert [words[str(i)] for i in (0, 1, 2, 4)] == ["convolution 1", "batch norm 1", "convolution 2", "linear 1"]
    assert len(set(words.values())) == len(words)
    rows = [{"step": step, "0": 1.0 + step, "2": 2.0, "4": 3.0} for step in range(3)]
    figure = gradient_plots.gradient_norms(rows, "norms", words)
    heat = figure.axes[0]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["convolution 1", "convolution 2", "linear 1"]


@pytest.mark.parametrize("text", ["short", "a long text of many words " * 9])
def test_a_long_text_is_cut_at_a_word(text):
    shown = transcription._shorten(text)
    assert len(shown) <= transcription.LONGEST_TEXT
    assert text.startswith(shown.removesuffix(" ..."))
