"""A table of one's own: training rows alone decide what its columns are, and new rows are prepared in the same way."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas
import pytest
import torch

from dl_lab import configs
from dl_lab.commands import predict
from dl_lab.types import ConfigError, UserError

N = 80
COMPOSER = configs.Composer()


def houses(rows=N, seed=0):
    rng = np.random.default_rng(seed)
    area = rng.uniform(30, 200, rows).round(1)
    table = {
        "id": [f"h{i}" for i in range(rows)],
        "area": area,
        "rooms": rng.integers(1, 7, rows),
        "city": rng.choice(["Oslo", "Rome", "Lima"], rows),
        "empty": [""] * rows,
        "price": (area * 3000).round(2),
    }
    return pandas.DataFrame(table)


@pytest.fixture
def write(tmp_path):
    def to_file(text_or_table, name="houses.csv", **how):
        path = tmp_path / name
        if isinstance(text_or_table, str):
            path.write_text(text_or_table)
        elif name.endswith(".parquet"):
            text_or_table.to_parquet(path)
        else:
            text_or_table.to_csv(path, index=False, **how)
        return str(path)

    return to_file


def compose(path, *overrides, target="price"):
    words = ["dataset=table", f"dataset.path={path}", f"dataset.target={target}", "logger=none", *overrides]
    return COMPOSER.compose(words).config


def load(path, *overrides, target="price"):
    return configs.build(compose(path, *overrides, target=target), "dataset")


def test_the_config_learns_sizes_and_the_task_from_the_table(write):
    config = compose(write(houses()))
    assert config["dataset"]["kind"] == "regression"
    assert config["dataset"]["input_shape"] == [5]  # area, rooms, three cities
    assert config["model"]["n_classes"] == 1
    assert type(configs.build(config, "task")).__name__ == "Regression"
    config = compose(write(houses()), target="city")
    assert (config["dataset"]["kind"], config["model"]["n_classes"]) == ("classes", 3)
    assert type(configs.build(config, "task")).__name__ == "Classification"


def test_each_column_is_described(write):
    about = dict(line.split(": ", 1) for line in load(write(houses())).about)
    assert about["price"].startswith("target, a number: ")
    assert about["id"].endswith("an identifier: left out")
    assert about["area"].startswith("number, ")
    assert "6 different whole numbers" in about["rooms"]
    assert about["city"].startswith("3 categories")
    assert about["empty"] == "no value at all: left out"


def test_scaler_and_categories_come_from_the_training_rows(write):
    table = houses()
    path = write(table)
    dataset = load(path, "dataset/rows=in_order")
    train = table.iloc[: len(dataset.train)]
    columns = {column["name"]: column for column in dataset.preprocessing["columns"]}
    assert columns["area"]["mean"] == pytest.approx(train["area"].mean())
    assert columns["area"]["deviation"] == pytest.approx(train["area"].std(ddof=0))
    assert dataset.preprocessing["deviation"] == pytest.approx(train["price"].std(ddof=0))
    batch = next(dataset.train.batches(N))
    assert torch.allclose(batch.x[:, 0].mean(), torch.tensor(0.0), atol=1e-5)
    table.loc[N - 1, "city"] = "Paris"
    dataset = load(write(table), "dataset/rows=in_order")
    assert dataset.note == "val and test, city: 1 value that training did not have ('Paris')"
    assert next(dataset.test.batches(N)).x[-1, 2:].tolist() == [0, 0, 0]


def test_csv_and_parquet_give_the_same(write):
    table = houses().drop(columns="empty")
    from_csv = load(write(table))
    from_parquet = load(write(table, "houses.parquet"))
    with_commas = load(write(table, "commas.csv", sep=";", decimal=","), "dataset.format.decimal=','")
    assert from_csv.fingerprint == from_parquet.fingerprint == with_commas.fingerprint


def test_missing_values_are_filled_with_the_training_mean_and_marked(write):
    table = houses()
    table.loc[[3, 70], "area"] = np.nan
    dataset = load(write(table), "dataset/rows=in_order")
    batch = next(dataset.train.batches(N))
    assert batch.x[3, :2].tolist() == [0, 1]
    assert batch.x[4, 1] == 0


def test_values_that_only_val_and_test_lack_are_noted(write):
    table = houses()
    table.loc[[70, 75], "area"] = np.nan
    dataset = load(write(table), "dataset/rows=in_order")
    assert "val and test, area: 2 missing values filled with the training mean" in dataset.note
    assert dataset.summary()["sizes"]["test"] == 12


SPLITS = {
    "dataset/rows=folds": [48, 16, 16],
    "dataset/rows=in_order": [56, 12, 12],
    "dataset/rows=fraction": [56, 12, 12],
}


@pytest.mark.parametrize("rows", SPLITS)
def test_ways_to_split(write, rows):
    dataset = load(write(houses()), rows)
    assert list(dataset.summary()["sizes"].values()) == SPLITS[rows]


def test_a_column_or_files_give_the_splits(write):
    table = houses()
    table["part"] = np.repeat(["train", "val", "test"], [60, 12, 8])
    dataset = load(write(table), "dataset/rows=column", "dataset.rows.column=part")
    assert list(dataset.summary()["sizes"].values()) == [60, 12, 8]
    assert not any(line.startswith("part") for line in dataset.about)
    paths = [write(table[table.part == part].drop(columns="part"), f"{part}.csv") for part in ("train", "val", "test")]
    by_files = load(paths[0], "dataset/rows=files", f"dataset.rows.val={paths[1]}", f"dataset.rows.test={paths[2]}")
    assert by_files.fingerprint == dataset.fingerprint


HEADER = "a,b,y\n"
ROWS = [f"{i},{i % 3},{i * 1.5}" for i in range(30)]
FAULTS = {
    "an unquoted thousands comma": ([*ROWS, "8,127,3,4.5"], r"line 32: 4 cells where the header has 3. If 8,127"),
    "a word among numbers": ([*ROWS, "x,1,2.5"], r"""line 32, column a: 'x' is no number, but 30 of 31"""),
    "a decimal comma": ([*ROWS, '"1,5",1,2.5'], r"""column a: '1,5' has a comma.*'dataset.format.decimal=","'"""),
    "no target": ([*ROWS, "1,2,"], r"line 32: the target y has no value\. Delete"),
    "a target that means none": ([*ROWS, "1,2,None"], r"the target y has no value \('None' stands for none"),
    "a marker": ([*ROWS, "-999,1,2.5", "-999,1,2.5"], r"line 32, column a: -999 occurs 2 .*missing=\[-999\]"),
    "no rows": ([], "has no rows below its header"),
    "one value": ([f"{i},1,5" for i in range(30)], "the target y is '5' in every row"),
    "nothing to learn from": ([f"1,1,{i * 1.5}" for i in range(30)], "no column to learn from beside 'y'"),
    "huge numbers": ([*ROWS, "1e300,1,2.5", "1e300,1,3.5", "1e300,1,3.5"], "column a are too large to be scaled"),
}


@pytest.mark.data_file("Tables", kind="words among numbers, -999, no target", loader="table", outcome="refused")
@pytest.mark.parametrize("kind", FAULTS)
def test_faults_name_file_row_and_remedy(write, kind):
    rows, message = FAULTS[kind]
    path = write(HEADER + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=message) as raised:
        load(path, target="y")
    assert path in str(raised.value)


WRITINGS = {
    "percent": ("{}%", r"'0%' has marks that are not read \(write 0\)"),
    "currency": ("$1{:02d}.50", r"'\$100.50' has marks .*write 100.50"),
    "thousands": ('"1,{:03d},567"', "'1,000,567' has marks .*write 1000567"),
    "thousands with blanks": ("1 {:03d}", "'1 000' has marks .*write 1000"),
    "a typographic minus": ("\u2212{}", ".* has marks .*write -0"),
    "a unit": ("{} kg", "'0 kg' is a number with the unit 'kg'"),
}


@pytest.mark.data_file("Tables", kind="45 %, $5, 1 234, 5 kg in a column", loader="table", outcome="refused")
@pytest.mark.parametrize("kind", WRITINGS)
def test_a_column_of_numbers_in_another_writing_is_no_column_of_words(write, kind):
    form, message = WRITINGS[kind]
    path = write(HEADER + "\n".join(f"{form.format(i)},{i % 3},{i * 1.5}" for i in range(30)) + "\n")
    with pytest.raises(UserError, match=f"line 2, column a: {message}"):
        load(path, target="y")
    dataset = load(path, "dataset.columns.categorical=[a]", target="y")
    assert any(line.startswith("a: ") and "categories" in line for line in dataset.about)
    as_target = write("a,y\n" + "\n".join(f"{i},{form.format(i % 3)}" for i in range(30)) + "\n")
    with pytest.raises(UserError, match=r"column y: .*as words: dataset.kind=classes"):
        load(as_target, target="y")
    assert len(load(as_target, "dataset.kind=classes", target="y").class_names) == 3


def test_words_that_look_a_little_like_numbers_are_words(write):
    for words in (["512MB", "1GB", "2GB"], ["1st", "2nd", "3rd"], ["A1", "A2", "A3"], ["3,5", "x", "y"], ["5 kg"] * 3):
        path = write(HEADER + "\n".join(f'"{words[i % 3]}",{i},{i * 1.5}' for i in range(30)) + "\n")
        assert load(path, target="y").about[1].startswith("a: ")


def test_classes_may_mix_numbers_and_words(write):
    path = write("a,y\n" + "\n".join(f"{i},{['1', '2', '3+', '4'][i % 4]}" for i in range(40)) + "\n")
    with pytest.raises(UserError, match=r"'3\+' is no number, but 30 of 40 .* set dataset.kind=classes"):
        load(path, target="y")
    assert load(path, "dataset.kind=classes", target="y").class_names == ("1", "2", "3+", "4")


def test_a_class_is_written_in_one_way(write):
    path = write("a,y\n" + "\n".join(f"{i},{['1', '2', '1.0'][i % 3]}" for i in range(30)) + "\n")
    with pytest.raises(UserError, match=r"the target y writes one number as '1' and as '1.0'"):
        load(path, target="y")


def test_columns_without_a_name_and_codes_are_pointed_out(write):
    path = write(",Unnamed: 0,zip,id,y\n" + "\n".join(f"{i},{i},{i % 7:05d},{i},{i * 1.5}" for i in range(30)) + "\n")
    about = load(path, target="y").about
    assert "(column 1): no name: left out" in about
    assert "Unnamed: 0: no name: left out" in about
    assert about[1].endswith("(leading zeros: codes belong in dataset.columns.categorical)")
    assert about[2].endswith("(it counts the rows: dataset.columns.leave_out?)")
    used = load(path, "dataset.columns.use=['Unnamed: 0']", target="y").about
    assert used[1].startswith("Unnamed: 0: number")


def test_a_missing_number_may_be_written_with_a_decimal_mark(write):
    path = write(HEADER + "\n".join(["-999.0,1,2.5", "-999.00,1,3.5", *ROWS]) + "\n")
    dataset = load(path, "dataset.columns.missing=[-999]", "dataset/rows=in_order", target="y")
    assert "2 missing" in dataset.about[1]
    thousands = write(HEADER + "\n".join(['"1,000",1,2.5', *ROWS]) + "\n")
    with pytest.raises(UserError, match="'1,000' has a comma"):  # it is not the 1 that is named
        load(thousands, "dataset.columns.missing=[1]", target="y")


def test_markers_and_words_may_be_named(write):
    path = write(HEADER + "\n".join([*ROWS, "-999,x,2.5", "-999,x,3.5"]) + "\n")
    dataset = load(path, "dataset.columns.missing=[-999,x]", target="y")
    assert dataset.preprocessing["settings"]["missing"] == [-999, "x"]
    load(path, "dataset.columns.markers=keep", "dataset.columns.missing=[x]", target="y")


def test_a_missing_file_or_column_is_named(write):
    path = write(houses())
    with pytest.raises(UserError, match="has no column 'cost'; its columns are id, area"):
        compose(path, target="cost")
    with pytest.raises(UserError, match=r"dataset.path: there is no file .*nowhere.csv nor .*nowhere.csv"):
        compose("nowhere.csv")
    with pytest.raises(ConfigError, match=r"dataset.path has no value yet"):
        COMPOSER.compose(["dataset=table"])
    with pytest.raises(UserError, match=r"holds words, not numbers: set dataset.kind=classes"):
        compose(path, "dataset.kind=regression", target="city")


def test_a_table_that_changed_is_not_used_with_an_old_config(write):
    config = compose(write(houses()))
    write(houses().drop(columns="rooms"))
    with pytest.raises(UserError, match="makes 4 features and 1 outputs, but the config says 5"):
        configs.build(config, "dataset")


def answer(capsys):
    out, notes = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(out))), notes


@pytest.mark.data_file("Tables", kind="new categories, missing values", loader="predict", outcome="filled, and said")
def test_trains_and_predicts_new_rows_in_the_unit_of_the_target(write, execute, capsys):
    path = write(houses(300))
    words = ["dataset=table", f"dataset.path={path}", "dataset.target=price", "logger=none"]
    words += ["trainer.max_epochs=40", "optimizer.lr=3e-3", "model.hidden=[32]", "model.dropout=0"]
    folder, metrics = execute(*words)
    assert metrics["test/r2"] > 0.95
    assert 0 < metrics["test/mae"] <= metrics["test/rmse"] < 30_000
    assert predict.main([str(folder), write("rooms,city,area,more\n3,Oslo,100,x\n3,Paris,,y\n", "new.csv")]) == 0
    rows, notes = answer(capsys)
    assert [row["line"] for row in rows] == ["2", "3"]
    assert float(rows[0]["price"]) == pytest.approx(300_000, rel=0.15)
    assert "city: 1 value that training did not have ('Paris')" in notes
    assert "area: 1 missing value filled with the training mean" in notes
    with pytest.raises(UserError, match="has no column area, which the run learned from"):
        predict.main([str(folder), write("rooms,city\n3,Oslo\n", "new.csv")])
    with pytest.raises(UserError, match="line 2, column area: 'large' is no number"):
        predict.main([str(folder), write("rooms,city,area\n3,Oslo,large\n", "new.csv")])


def test_classes_are_predicted_by_name(write, execute, capsys):
    rows = [f"{i % 2 * 10 + i / 100},{'cat' if i % 2 else 'dog'}" for i in range(80)]
    path = write("\n".join(["size,kind", *rows]))
    words = ["dataset=table", f"dataset.path={path}", "dataset.target=kind", "logger=none"]
    folder, metrics = execute(*words, "model=linear", "optimizer.lr=0.1")
    assert metrics["test/accuracy"] == 1
    assert predict.main([str(folder), path]) == 0
    rows, _ = answer(capsys)
    assert all(row["kind"] == row["actual"] for row in rows)
    assert set(rows[0]) == {"line", "kind", "p(cat)", "p(dog)", "actual"}
