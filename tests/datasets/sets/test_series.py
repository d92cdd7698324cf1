"""A time series of one's own: its layout is found, or one sentence says which setting is missing."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from dl_lab import configs
from dl_lab.commands import predict
from dl_lab.types import UserError

COMPOSER = configs.Composer()
N = 120


def text_of(time, header="day,shop,sales,visits", delimiter=",", decimal=".", n=N):
    rows = [header.replace(",", delimiter)]
    for i in range(n):
        cells = [time(np.datetime64("2022-01-13T00:00") + i * np.timedelta64(1, "D")), "A"]
        cells += [f"{100 + 30 * np.sin(2 * np.pi * i / 7):.2f}".replace(".", decimal), str(i % 7 + 10)]
        rows.append(delimiter.join(cells))
    return "\n".join(rows) + "\n"


def iso(day):
    return str(day.astype("datetime64[D]"))


def german(day):
    return day.item().strftime("%d.%m.%Y")


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "sales.csv"
        path.write_text(text)
        return str(path)

    return to_file


def words_for(path, *overrides):
    return ["dataset=series", f"dataset.path={path}", "dataset.window=14", "logger=none", *overrides]


def compose(path, *overrides):
    return COMPOSER.compose(words_for(path, *overrides)).config["dataset"]


def test_the_layout_is_found(write):
    layout = compose(write(text_of(iso)))["layout"]
    assert (layout["delimiter"], layout["time_columns"], layout["time_format"]) == (",", ["day"], "%Y-%m-%d")
    assert (layout["step_minutes"], layout["columns"]) == (1440, ["sales", "visits"])
    path = write(text_of(german, delimiter=";", decimal=","))
    layout = compose(path, 'dataset.layout.decimal=","')["layout"]
    assert (layout["delimiter"], layout["time_format"], layout["columns"]) == (";", "%d.%m.%Y", ["sales", "visits"])


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%SZ"),
        ("%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%dT%H:%M:%S.%fZ"),
        ("%Y-%m-%d %H:%M:%S.000", "%Y-%m-%d %H:%M:%S.%f"),
        ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
    ],
)
def test_times_as_programs_export_them_are_known(write, written, found):
    assert compose(write(text_of(lambda day: day.item().strftime(written))))["layout"]["time_format"] == found


def test_a_fraction_of_a_second_is_not_cut_off(write):
    path = write(text_of(lambda day: day.item().strftime("%Y-%m-%d 00:00:00.500")))
    with pytest.raises(UserError, match=r"line 2: '2022-01-13 00:00:00.500' has a fraction of a second"):
        configs.build(COMPOSER.compose(words_for(path)).config, "dataset")


def test_a_named_setting_is_not_looked_for(write):
    config = compose(write(text_of(iso)), "dataset.layout.columns=[visits]", "dataset.layout.step_minutes=2880")
    assert (config["layout"]["columns"], config["layout"]["step_minutes"], config["n_features"]) == (
        ["visits"],
        2880,
        1,
    )


@pytest.mark.data_file(
    "Series", kind="day and month may be exchanged", loader="series", outcome="refused: name the format"
)
def test_two_possible_formats_are_not_guessed(write):
    path = write(text_of(lambda day: f"{day.item().day % 12 + 1:02}/{day.item().month:02}/{day.item().year}"))
    with pytest.raises(UserError, match=r"""may be %d/%m/%Y or %m/%d/%Y.*'dataset.layout.time_format="%d/%m/%Y"'"""):
        compose(path)


FAULTS = {
    "no times": (lambda text: text.replace("2022", "year 2022"), "no column holds times in a known format"),
    "one odd time": (lambda text: text.replace("2022-02-03", "03 Feb"), "line 23: '03 Feb' is no time like %Y-%m-%d"),
    "a gap": (lambda text: text.replace("2022-02-03,A", "2022-02-02,A", 1), "2022-02-02T00:00:00 occurs twice"),
    "no rows": (lambda text: text.partition("\n")[0] + "\n", "has no rows below its header"),
    "decimal commas": (lambda text: text.replace(".", ",").replace(",A,", ",A,"), "cells where the header has 4"),
    "no numbers": (lambda text: "day,shop\n2022-01-01,A\n2022-01-02,B\n", "no column of numbers beside its times"),
    "seconds": (lambda text: "t,a\n2022-01-01 00:00:00,1\n2022-01-01 00:00:05,2\n", "5 seconds apart"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_one_sentence(write, kind):
    change, message = FAULTS[kind]
    path = write(change(text_of(iso)))
    with pytest.raises(UserError, match=message) as raised:
        configs.build(COMPOSER.compose(words_for(path)).config, "dataset")
    assert path in str(raised.value)


@pytest.mark.parametrize(
    ("time_format", "message"),
    [
        ("%d", r"line 2: '2022-01-\d\d' is no time like %d\. It looks like 'dataset.layout.time_format=\"%Y-%m-%d\"'"),
        ("%Y %Y", r"dataset.layout.time_format: '%Y %Y' is no format of times: it has a code twice"),
    ],
)
def test_a_wrong_format_of_times_is_one_sentence(write, time_format, message):
    with pytest.raises(UserError, match=message):
        compose(write(text_of(iso)), f"dataset.layout.time_format='{time_format}'")


@pytest.mark.data_file("Series", kind="45 %, $5, 1 234 in a column", loader="series, predict", outcome="refused")
@pytest.mark.parametrize("form", ["{}%", "${}", '"1,{:03d},000"', "1 {:03d}"])
def test_a_column_of_numbers_in_another_writing_is_not_left_out(write, form):
    first, *rows = text_of(iso).splitlines()
    path = write("\n".join([f"{first},price", *(f"{row},{form.format(i)}" for i, row in enumerate(rows))]) + "\n")
    with pytest.raises(UserError, match=r"line 2, column price: .* has marks that are not read \(write \d+\)"):
        configs.build(COMPOSER.compose(words_for(path)).config, "dataset")
    assert compose(path, "dataset.layout.columns=[visits]")["n_features"] == 1


def test_a_target_must_be_a_column_of_numbers(write):
    with pytest.raises(UserError, match=r"'shop' is no column of numbers of .*; sales, visits are"):
        compose(write(text_of(iso)), "dataset.targets=[shop]")


def test_trains_on_the_targets_and_forecasts_them(write, execute, capsys):
    path = write(text_of(iso, n=250))
    folder, metrics = execute(
        *words_for(path, "dataset.horizon=3", "dataset.targets=[sales]", "trainer.max_epochs=2", "model.hidden=8")
    )
    assert np.isfinite(metrics["test/mae"])
    assert metrics["naive/autoregression/r2"] > 0.9
    assert predict.main([str(folder), path]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [list(row) for row in rows] == [["time", "sales"]] * 3
    assert rows[0]["time"] == "2022-09-20T00:00:00"
    assert 50 < float(rows[0]["sales"]) < 150
