"""scripts/benchmarks/families.py: the contestants agree, and costs are fitted from whole runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts" / "benchmarks"


@pytest.fixture
def families(monkeypatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("families")


def test_costs_are_found_again(families):
    cells = [(2048, 1), (2048, 3), (16384, 1), (16384, 3)]
    sizes = {cell: cell[0] for cell in cells}
    seconds = {cell: [0.002 * cell[0] / 64 * cell[1] + 0.03 * cell[1] + 0.4] for cell in cells}
    costs = families.fit(seconds, sizes, 64)
    assert costs == {"update": pytest.approx(2), "epoch": pytest.approx(30), "run": pytest.approx(400)}


def test_ratios_are_taken_round_by_round(families):
    found = families.ratios([1.0, 2.0, 4.0], [2.0, 2.0, 2.0])
    assert found == {"median": 1.0, "least": 0.5, "greatest": 2.0}


def test_the_quick_form_compares_losses_and_writes_a_table(tmp_path):
    words = ["--quick", "--family", "Dense", "NumPy perceptron", "--json", "r.json", "--markdown", "r.md"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "families.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert list(report["families"]) == ["Dense autoencoder (NYC taxi)", "NumPy perceptron (OCTMNIST)"]
    assert {"tuned", "notebook"} <= set(report["families"]["Dense autoencoder (NYC taxi)"]["ratios"])
    table = (tmp_path / "r.md").read_text()
    assert "| Dense autoencoder (NYC taxi) | 64 |" in table
    measured = report["families"]["Dense autoencoder (NYC taxi)"]
    assert f"{measured['hardware']}, torch {measured['torch']}, {measured['date']}" in table


def test_the_table_says_which_machine_measured_which_family(families):
    import family_table

    one = {"hardware": "one CPU", "torch": "2.14.1", "date": "2026-11-30"}
    both = {"families": {"CNN": one, "VAE": {**one, "hardware": "another CPU"}}}
    assert family_table.measured_on({"families": {"CNN": one, "VAE": one}}) == "one CPU, torch 2.14.1, 2026-11-30."
    assert "VAE: another CPU, torch 2.14.1, 2026-11-30." in family_table.measured_on(both)


def test_a_family_that_is_not_there_is_said(families, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["families.py", "--family", "Quantum"])
    with pytest.raises(SystemExit) as left:
        families.main()
    assert left.value.code == 2
    assert "there is no such family" in capsys.readouterr().err


def test_the_traffic_of_a_step_is_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    roofline = importlib.import_module("roofline")
    x, y, table = torch.zeros(10, 4), torch.zeros(10, 4), torch.zeros(1000, 4)
    chosen = torch.zeros(5, dtype=torch.int64)
    works = {
        "read two, write one": (lambda: x + y, 3 * 160),
        "the same in place": (lambda: x.add_(y), 3 * 160),
        "a view moves nothing": (lambda: x.view(4, 10), 0),
        "a lookup reads only its rows": (lambda: table.index_select(0, chosen), 2 * 5 * 16 + 5 * 8),
        "a product is counted by its operations": (lambda: x @ table[:4], 0),
    }
    for what, (work, n_bytes) in works.items():
        with roofline.Traffic() as traffic:
            work()
        assert traffic.n_bytes == n_bytes, what
        assert traffic.n_calls >= 1
    q = torch.zeros(2, 3, 5, 4, requires_grad=True)
    with roofline.Traffic() as traffic:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    assert traffic.n_exponentials == 2 * (2 * 3 * 5 * 5)  # forward and backward


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's, when oneDNN is switched off
def test_a_recurrent_layer_counts_as_its_products(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    roofline = importlib.import_module("roofline")
    n_positions, n_items, n_inputs, n_hidden = 7, 3, 5, 4
    lstm = torch.nn.LSTM(n_inputs, n_hidden)
    products = 2 * n_positions * n_items * 4 * n_hidden * (n_inputs + n_hidden)
    with FlopCounterMode(display=False, custom_mapping=roofline.LAYERS) as counter:
        lstm(torch.rand(n_positions, n_items, n_inputs))
    assert counter.get_total_flops() == products
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        lstm(torch.rand(n_positions, n_items, n_inputs))
    assert counter.get_total_flops() == products
