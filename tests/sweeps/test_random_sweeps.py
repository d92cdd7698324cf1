"""Random sweeps with jobs that fail, diverge, are killed or are given twice: every job is accounted for.

DL_LAB_RANDOM_SWEEPS=100 runs a hundred of them instead of a few.
"""

from __future__ import annotations

import json
import os
import random
import re

import pytest

from dl_lab.runs.find import state_of

N_SWEEPS = int(os.environ.get("DL_LAB_RANDOM_SWEEPS", "3"))
OUTCOMES = ("done", "failed", "nan", "killed", "infinite")
PROCEDURE = f"""
import os
import signal

OUTCOMES = {OUTCOMES!r}


def work(run):
    outcome = OUTCOMES[run.config["seed"] % {len(OUTCOMES)}]
    if outcome == "failed":
        raise RuntimeError("this seed fails")
    if outcome == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    values = {{"nan": float("nan"), "infinite": float("inf")}}
    return {{"val/loss": values.get(outcome, 1.0 / (1 + run.config["seed"]))}}
"""


@pytest.mark.parametrize("number", range(N_SWEEPS))
def test_every_job_of_a_random_sweep_is_accounted_for(sweep, command, tmp_path, monkeypatch, number):
    monkeypatch.setenv("DL_LAB_ALLOW", "random_outcomes")
    (tmp_path / "random_outcomes.py").write_text(PROCEDURE)
    (tmp_path / "own" / "procedure").mkdir(parents=True)
    (tmp_path / "own" / "procedure" / "work.yaml").write_text("_target_: random_outcomes.work\n_partial_: true\n")
    draw = random.Random(number)
    seeds = [draw.randint(0, 9) for _ in range(draw.randint(4, 9))]
    grid = f"seed={','.join(map(str, seeds))}"
    if len(seeds) < 2 or len(set(seeds)) < 2:
        grid = "seed=0,1"
    wanted = list(dict.fromkeys(seeds))
    settings = ["--config-dir", "own", "procedure=work", "logger=none", "threads=1", "lanes=2"]
    swept = sweep(*settings, grid, smoke=False)
    found = {}
    for job in swept.jobs:
        config = (job / "config.yaml").read_text()
        found[int(re.search(r"^seed: (\d+)$", config, re.MULTILINE)[1])] = job
    assert list(found) == wanted, "each job once, in its order"
    expected = {seed: OUTCOMES[seed % len(OUTCOMES)] for seed in wanted}
    states = {"done": "done", "nan": "done", "infinite": "done", "failed": "failed", "killed": "killed"}
    for seed, job in found.items():
        assert state_of(job) == states[expected[seed]], swept.text
        if expected[seed] in ("nan", "infinite"):
            summary = json.loads((job / "summary.json").read_text())
            assert summary["metrics"]["val/loss"] is None
            assert summary["not_finite"]["val/loss"] in ("nan", "inf")
    n_wrong = sum(outcome in ("failed", "killed") for outcome in expected.values())
    assert swept.status == (1 if n_wrong else 0)
    assert f"{len(wanted) - n_wrong} of {len(wanted)} jobs done" in swept.text
    assert len(re.findall(r"^[✓✗] +\d+/", swept.text, re.MULTILINE)) == len(wanted)
    assert ("Jobs that give the same result run once" in swept.text) == (len(wanted) < len(seeds))
