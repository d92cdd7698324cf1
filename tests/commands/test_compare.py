"""dl-lab compare."""

from __future__ import annotations

import json


def test_compare_shows_only_what_differs(command, make_run):
    make_run(lr=0.1, metrics={"test/accuracy": 0.5, "train/loss": 1.0})
    make_run(lr=0.2, metrics={"test/accuracy": 0.6, "train/loss": 1.0})
    status, out, _ = command("compare")
    head = " ".join(out.splitlines()[:2])
    assert status == 0
    assert "lr" in head
    assert "accuracy" in head
    assert not any(word in head for word in ("batch_size", "loss", "seed", "state", "data"))
    assert "The same in all: dataset digits, model mlp, seed 0." in out


def test_chosen_runs_and_sweep_folders(command, make_run, tmp_path):
    one, two, three = (make_run(lr=lr) for lr in (0.1, 0.2, 0.3))
    rates = lambda *words: [row["optimizer.lr"] for row in json.loads(command("compare", *words, "--json")[1])]  # noqa: E731
    assert rates(one.name.partition("_")[2], str(three)) == [0.1, 0.3]
    assert rates(str(two), "last") == [0.2, 0.3]
    assert rates(str(tmp_path / "outputs" / "2026-01-02")) == [0.1, 0.2, 0.3]


def test_a_single_run_shows_all_its_metrics(command, make_run):
    make_run(metrics={"test/accuracy": 0.5, "train/loss": 1.0})
    out = command("compare", "last")[1]
    assert "0.5000" in out
    assert "1.0000" in out


def test_last_is_the_sweep_that_the_newest_run_belongs_to(command, make_sweep):
    folder = make_sweep({(lr, seed): lr + seed / 100 for lr in (0.5, 0.25) for seed in (0, 1)})
    out = command("compare", "last")[1]
    assert out == command("compare", str(folder))[1]
    assert "Best by highest mean val/accuracy: lr=0.5." in out
    jobs = json.loads(command("compare", "last", "--each", "--json")[1])
    assert len(jobs) == 4


def test_partial_and_generated_data_are_marked_at_any_width(command, make_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for i in range(3):
        make_run(lr=i / 10, label="generated", optimizer=f"a_very_long_optimizer_{i}", task=f"task_{i}")
    assert command("compare")[1].count("digits (generated)") == 3


def test_the_state_is_shown_where_not_all_runs_are_done(command, make_run):
    make_run(lr=0.1)
    make_run(lr=0.2, state="killed")
    assert "killed" in command("compare")[1]


def test_an_unknown_run_is_named(command, make_run, tmp_path):
    make_run()
    (tmp_path / "empty").mkdir()
    assert command("compare", "nothing")[0] == 1
    status, _, err = command("compare", "empty")
    assert (status, err) == (1, "dl-lab: There is no run in empty.\n")


def test_without_torch(cost, make_run):
    for i in range(20):
        make_run(lr=i / 1000)
    spent = cost("compare", "--sort", "val/accuracy")
    assert not {"torch", "hydra", "numpy"} & spent.modules
    assert len(spent.files) <= 20 * 6, "it reads few files of a run, each once or twice"
    assert spent.processes == []
