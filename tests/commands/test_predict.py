"""dl-lab predict applies a finished run to a new file with the saved scaler. It names or repairs faults of the file."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
import yaml

from dl_lab.commands import predict
from dl_lab.types import Answer, ConfigError, UserError


@pytest.fixture
def taxi_run(execute):
    return execute("experiment=taxi_conv_ae", "profile=smoke", "logger=none")[0]


def taxi_rows(n, level=15000.0):
    start = datetime(2020, 1, 1)
    wave = level * (1 + 0.5 * np.sin(np.arange(n) / 48 * 2 * np.pi))
    return [f"{start + timedelta(minutes=30 * i)},{value:.1f}" for i, value in enumerate(wave)]


def write(path, rows, header="timestamp,value"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def scores(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_scores_each_row_and_the_past_does_not_know_the_future(taxi_run, tmp_path, capsys):
    rows = taxi_rows(120)
    assert predict.main([str(taxi_run), write(tmp_path / "whole.csv", rows)]) == 0
    whole = scores(capsys)
    assert predict.main([str(taxi_run), write(tmp_path / "past.csv", rows[:80])]) == 0
    past = scores(capsys)
    assert len(whole) == 120
    assert [row["score"] for row in whole[:47]] == [""] * 47
    np.testing.assert_allclose(
        [float(r["score"]) for r in past[47:]], [float(r["score"]) for r in whole[47:80]], rtol=1e-5
    )


def test_the_saved_scaler_is_used(taxi_run, tmp_path, capsys):
    predict.main([str(taxi_run), write(tmp_path / "a.csv", taxi_rows(60))])
    usual = scores(capsys)
    predict.main([str(taxi_run), write(tmp_path / "b.csv", taxi_rows(60, level=60000))])
    larger = scores(capsys)
    assert float(larger[-1]["score"]) > 3 * float(usual[-1]["score"]), "a scaler of the new file would hide the level"
    assert larger[-1]["anomalous"] == "True"


def test_faults_are_named_and_repaired_when_asked(taxi_run, tmp_path, capsys):
    rows = taxi_rows(60)
    path = write(tmp_path / "gap.csv", rows[:20] + rows[25:])
    with pytest.raises(UserError, match=r"gap.csv, line 22: no rows between"):
        predict.main([str(taxi_run), path])
    assert predict.main([str(taxi_run), path, "layout.repair=[gaps]"]) == 0
    assert len(scores(capsys)) == 60
    with pytest.raises(UserError, match="40 rows, but a window needs 48"):
        predict.main([str(taxi_run), write(tmp_path / "short.csv", rows[:40])])
    with pytest.raises(ConfigError, match=r"no key 'layout.repairs'. Did you mean layout.repair"):
        predict.main([str(taxi_run), path, "layout.repairs=[gaps]"])
    with pytest.raises(ConfigError, match="'everything'"):
        predict.main([str(taxi_run), path, "layout.repair=[everything]"])
    with pytest.raises(UserError, match="is not a file"):
        predict.main([str(taxi_run), str(tmp_path / "absent.csv")])


def test_forecasts_the_next_steps_of_a_file(execute, tmp_path):
    folder, _ = execute("experiment=air_lstm", "profile=smoke", "logger=none", "dataset.horizon=3")
    names = "CO(GT);PT08.S1(CO);NMHC(GT);C6H6(GT);PT08.S2(NMHC);NOx(GT);PT08.S3(NOx);NO2(GT)"
    names += ";PT08.S4(NO2);PT08.S5(O3);T;RH;AH"
    rows = [f"01/02/2005;{hour:02d}.00.00;" + ";".join(f"{20 + hour},5" for _ in range(13)) for hour in range(24)]
    path = write(tmp_path / "air.csv", rows, f"Date;Time;{names}")
    out = tmp_path / "forecast.csv"
    assert predict.main([str(folder), path, "--to", str(out)]) == 0
    found = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["time"] for row in found] == [f"2005-02-02T0{i}:00:00" for i in range(3)]
    assert all(np.isfinite(float(row[name])) for row in found for name in names.split(";"))


@pytest.mark.data_file(
    "Series", kind="missing hours at the end", loader="predict", outcome="said; refused above `max_filled`"
)
def test_a_forecast_from_missing_hours_is_refused_or_noted(execute, tmp_path, capsys):
    folder, _ = execute("experiment=air_lstm", "profile=smoke", "logger=none")
    layout = yaml.safe_load((folder / "config.yaml").read_text())["dataset"]["layout"]

    def air(name, dead):
        rows = []
        for hour in range(48):
            cells = ["-200"] * 13 if hour >= 48 - dead else [f"{20 + hour},5"] * 13
            rows.append(f"{1 + hour // 24:02d}/02/2005;{hour % 24:02d}.00.00;" + ";".join(cells))
        return write(tmp_path / name, rows, "Date;Time;" + ";".join(layout["columns"]))

    assert predict.main([str(folder), air("good.csv", 0)]) == 0
    assert "note:" not in capsys.readouterr().err
    assert predict.main([str(folder), air("some.csv", 5)]) == 0
    notes = capsys.readouterr().err
    assert "65 missing values filled forward" in notes
    assert "21% of the values in the last 24 rows" in notes
    assert "5 of these rows have no measured value at all" in notes
    with pytest.raises(
        UserError, match=r"100% of the values in the last 24 rows .* max_filled=0.5 is the share allowed"
    ):
        predict.main([str(folder), air("dead.csv", 30)])
    assert predict.main([str(folder), air("dead.csv", 30), "max_filled=1"]) == 0


@pytest.mark.data_file(
    "Series", kind="another time format", loader="predict", outcome="refused with the override that reads it"
)
def test_advice_can_be_followed(taxi_run, tmp_path, capsys):
    rows = [row.replace("-", "/", 2) for row in taxi_rows(60)]
    path = write(tmp_path / "slashes.csv", rows)
    with pytest.raises(UserError) as raised:
        predict.main([str(taxi_run), path])
    (advice,) = re.findall(r"'(layout.time_format=[^']+)'", str(raised.value))
    assert predict.main([str(taxi_run), path, advice]) == 0
    assert len(scores(capsys)) == 60


def test_a_run_without_a_predictor_says_so(execute, tmp_path):
    folder, _ = execute("experiment=taxi_conv_ae", "profile=smoke", "logger=none", "predictor=null")
    with pytest.raises(UserError, match=r"names no predictor\.$"):
        predict.main([str(folder), write(tmp_path / "x.csv", [])])


# -- a predictor of the user's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        [{"p": torch.tensor(0.5)}],
        Answer([{"p": np.float64(0.5)}]),
        ({"p": 0.5} for _ in range(1)),
    ],
    ids=["tensor", "numpy", "generator"],
)
def test_an_answer_is_rows_of_plain_values(answer):
    assert predict.table(predict.read_answer(answer, "Mine").rows) == "p\n0.5\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Mine must return a list of rows, each of them a dictionary of columns; a NoneType is no row."),
        (torch.rand(3), "a Tensor is no row"),
        (["cat"], "a str is no row"),
        ({"class": "cat"}, r"Mine must return a list of rows, \[{...}\], also where it is one row."),
        ([{"a": 1}, {"b": 2}], "Mine: row 2 has the columns b; the first row has a."),
    ],
)
def test_an_answer_that_is_no_table_is_one_sentence(answer, words):
    with pytest.raises(UserError, match=words):
        predict.read_answer(answer, "Mine")


def test_no_rows_are_said(taxi_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "predict", lambda *arguments: Answer([]))
    assert predict.main([str(taxi_run), str(tmp_path / "new.csv")]) == 0
    done = capsys.readouterr()
    assert (done.out, done.err) == ("", "note: there is no row to show.\n")
