"""The attention experiments: the measuring instruments against known answers, and the tables they leave."""

from __future__ import annotations

import csv
import os
import time
from functools import partial

import pytest
import torch

from dl_lab.models.attention import mechanisms
from dl_lab.procedures.attention_cost import (
    AttentionCost,
    count_flops,
    find_crossover,
    fit_slope,
    measure_peak_bytes,
    measure_seconds,
)
from dl_lab.procedures.attention_error import AttentionError

CPU = torch.device("cpu")


def rows_of(folder, name):
    with open(folder / "tables" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


# -- cost ---------------------------------------------------------------------------------------------------------


def test_peak_memory_counts_what_is_allocated_at_once():
    def call() -> torch.Tensor:
        first = torch.empty(1000)  # 4,000 bytes, and gone before the third
        second = torch.empty(2000)
        del first
        third = torch.empty(3000)
        return second[:1] + third[:1]

    assert 20_000 <= measure_peak_bytes(call, CPU) < 21_000


def test_written_out_softmax_holds_two_square_matrices():
    q = torch.randn(1, 1, 256, 8)
    module = mechanisms.Softmax(8, 256)
    with torch.inference_mode():
        assert 2 * 256 * 256 * 4 <= measure_peak_bytes(lambda: module(q, q, q), CPU) < 2.2 * 256 * 256 * 4


@pytest.mark.parametrize("build", [mechanisms.McLaurin, mechanisms.Elu, mechanisms.RandomFeatures])
def test_memory_of_causal_linear_attention_grows_linearly(build):
    peaks = []
    for length in (1024, 2048, 4096):
        q = torch.randn(1, 1, length, 8)
        module = build(8, length, causal=True)
        with torch.inference_mode():
            peaks.append(
                {"length": length, "bytes": measure_peak_bytes(lambda q=q, module=module: module(q, q, q), CPU)}
            )
    assert fit_slope(peaks, "bytes") == pytest.approx(1, abs=0.02)
    assert peaks[-1]["bytes"] < 4096 * 4096  # a quarter of one length x length matrix


def test_flops_of_a_matrix_product():
    assert count_flops(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 2 * 3 * 4 * 5


def test_wall_time_counts_waiting_and_cpu_time_does_not():
    assert measure_seconds(lambda: time.sleep(0.002), 0.01, "wall") >= 0.002
    time.sleep(0.5)  # until the threads of earlier work no longer wait by spinning
    assert measure_seconds(lambda: time.sleep(0.002), 0.001, "cpu") < 0.001


def test_slope_of_a_power():
    rows = [{"length": n, "seconds": 3e-9 * n**1.5} for n in (128, 512, 2048)]
    assert fit_slope(rows, "seconds") == pytest.approx(1.5)


def test_crossover_lies_where_the_lines_meet():
    lengths = (128, 256, 512, 1024)
    linear_and_square = [(n, 300.0 * n, 1.0 * n * n) for n in lengths]
    assert find_crossover(linear_and_square) == pytest.approx(300)
    assert find_crossover([(n, 1.0, 2.0) for n in lengths]) == 128
    assert find_crossover([(n, 2.0, 1.0) for n in lengths]) is None
    assert find_crossover([(n, 1.0 * n * n, 300.0 * n) for n in lengths]) is None  # faster only while short


def test_a_size_that_a_mechanism_refuses_is_left_out():
    cost = AttentionCost([64], [8], {"low_rank": mechanisms.LowRank}, ["low_rank"], causal=True)
    assert cost._measure("low_rank", 8, 64, CPU) is None


def test_cost_leaves_tables_and_metrics(execute):
    folder, metrics = execute("experiment=attention_cost_causal", "profile=smoke", "logger=none")
    assert metrics["flops_formula_error"] == 0
    names = {row["mechanism"] for row in rows_of(folder, "slopes")}
    assert {"softmax", "fused", "mclaurin_3", "elu", "window"} <= names
    assert "low_rank" not in names
    assert metrics["memory_slope/dim_8/softmax"] > metrics["memory_slope/dim_8/elu"]
    assert (folder / "figures" / "attention_time_dim_8.png").exists()
    assert all(float(row["seconds"]) > 0 for row in rows_of(folder, "attention_time_dim_8"))


def test_the_tools_of_torch_write_no_log_of_their_own(lab, tmp_path):
    compiler = tmp_path / "bin" / "nvcc"  # a node of a cluster often has CUDA's compiler, but no GPU
    compiler.parent.mkdir()
    compiler.touch(0o755)
    path = f"{compiler.parent}{os.pathsep}{os.environ['PATH']}"
    done = lab("experiment=attention_cost_causal", "profile=smoke", "logger=none", env={"PATH": path})
    assert done.returncode == 0
    for word in ("profiler", "DeviceProperties", "CUDA_HOME"):
        assert word not in done.stdout + done.stderr


def test_the_lab_joins_error_and_cost(execute):
    folder, metrics = execute("experiment=attention_lab", "profile=smoke", "logger=none")
    rows = {row["mechanism"]: row for row in rows_of(folder, "limits")}
    assert float(rows["mclaurin_3"]["close_up_to_norm"]) == metrics["useful_scale/mclaurin_3"] == 1.0
    assert float(rows["softmax"]["memory_slope"]) == pytest.approx(metrics["memory_slope/dim_8/softmax"], abs=0.01)


# -- error --------------------------------------------------------------------------------------------------------


def test_errors_fall_with_the_order_and_rise_with_the_scale(execute):
    folder, metrics = execute(
        "experiment=attention_error", "logger=none", "procedure.length=64", "procedure.scales=[0.5,1.0]"
    )
    errors = {
        (row["mechanism"], float(row["scale"])): float(row["relative_error"])
        for row in rows_of(folder, "attention_error")
    }
    for terms in (1, 2, 3, 4):
        assert errors[f"mclaurin_{terms + 1}", 1.0] < errors[f"mclaurin_{terms}", 1.0]
        assert errors[f"mclaurin_{terms}", 0.5] < errors[f"mclaurin_{terms}", 1.0]
    assert metrics["identity_error"] < 1e-12
    assert metrics["n_features/dim_8"] == 45


def test_an_order_that_is_refused_has_no_error(tmp_path):
    experiment = AttentionError(length=2, dim=1, scales=[3.0], terms=[2], mechanisms={}, n_draws=20)
    draws = list(experiment._draw_inputs(3.0))
    row = experiment._measure_error("mclaurin_2", 3.0, draws, experiment._build_attentions()["mclaurin_2"])
    assert row["refused"] > 0
    assert row["relative_error"] is None
    sign = experiment._count_signs(2, 3.0, draws)
    assert sign["normalisers_not_positive"] > 0
    assert experiment._count_signs(3, 3.0, draws)["normalisers_not_positive"] == 0
    assert experiment._find_useful_scale([row]) == 0


def test_the_same_seed_draws_the_same(tmp_path):
    build = {"random": partial(mechanisms.RandomFeatures, n_features=8)}
    experiment = AttentionError(8, 4, [1.0], [3], build, n_draws=1)
    (q, k, v), (again, _, _) = next(experiment._draw_inputs(1.0)), next(experiment._draw_inputs(1.0))
    torch.testing.assert_close(q, again, rtol=0, atol=0)
    torch.testing.assert_close(q.norm(dim=1), torch.ones(8, dtype=torch.float64))
    first, second = (experiment._build_attentions()["random"](q, k, v) for _ in range(2))
    assert torch.equal(first, second)
