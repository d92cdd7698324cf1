"""Sweeps: dl-lab beside Hydra's basic launcher, its joblib launcher, a shell loop and Ray Tune, in one run.

    python scripts/benchmarks/sweep.py [--rounds 3] [--jobs 16 --samples 4096] [--skip ray] [--json FILE]

Every contestant trains IST2-CNN (batch 64, plain SGD, one epoch) once for each of N learning rates on two cores. The
peers' job is the tuned loop of throughput.py, with nothing recorded but the loss; dl-lab's is its own run with
TensorBoard, checkpoint, validation and test, without figures. The losses are compared. Whole commands are timed,
wall, in turn; ratios are medians of the rounds. Then the launch cost of empty jobs (dl-lab N=200, 400 and 10,000, Hydra
basic N=50), the CPU seconds of a plan of 1,000 and of 10,000 jobs (`--dry-run`), and the memory of two lanes against
one (proportional set size of all processes, at its peak).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from dl_lab.runs.environment import describe_environment

HERE = Path(__file__).resolve().parent
MANY = 10_000  # jobs
LEARNING_RATES = [round(0.001 * 1.15**i, 6) for i in range(400)]

PEER_APP = """
import json, os, sys, time
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, {here!r})
import hydra
from omegaconf import OmegaConf

def job(lr, samples, folder):
    import torch
    torch.set_num_threads(1)
    import numpy as np
    import throughput
    with np.load(folder + "/data/octmnist.npz") as data:
        x, y = torch.from_numpy(data["train_images"]), torch.from_numpy(data["train_labels"].astype(np.int64))
    throughput.LR = lr
    return throughput.tuned(x, y, 64, 1)[1][0]

@hydra.main(version_base="1.3", config_path=None, config_name="app")
def main(cfg):
    if cfg.empty:
        return
    loss = job(cfg.lr, cfg.samples, cfg.folder)
    with open(os.path.join(cfg.folder, "losses", f"{{cfg.lr}}.json"), "w") as file:
        json.dump(loss, file)

from hydra.core.config_store import ConfigStore
ConfigStore.instance().store("app", {{"lr": 0.1, "samples": 0, "folder": ".", "empty": False}})
if __name__ == "__main__":
    main()
"""

RAY_APP = """
import json, os, sys
sys.path[:0] = [{here!r}, {folder!r}]
from ray import tune, init
init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

def trial(config):
    from peer import job
    loss = job(config["lr"], 0, {folder!r})
    with open(os.path.join({folder!r}, "losses", f"{{config['lr']}}.json"), "w") as file:
        json.dump(loss, file)
    return {{"loss": loss}}

rates = json.loads(sys.argv[1])
tune.Tuner(
    tune.with_resources(trial, {{"cpu": 1}}),
    param_space={{"lr": tune.grid_search(rates)}},
    run_config=tune.RunConfig(storage_path={folder!r} + "/ray", verbose=0),
).fit()
"""


def prepare(folder: Path, samples: int) -> None:
    """The data, the peers' programs, and a config folder with an empty procedure."""
    from dl_lab.datasets.images.labelled import generate_arrays

    images, labels = generate_arrays(samples, (1, 28, 28), 4)["train"]
    (folder / "data").mkdir(parents=True)
    arrays: Any = {}
    for split, n in (("train", samples), ("val", 64), ("test", 64)):
        arrays |= {f"{split}_images": images[:n], f"{split}_labels": labels[:n]}
    np.savez(folder / "data" / "octmnist.npz", **arrays)
    (folder / "peer.py").write_text(PEER_APP.format(here=str(HERE)))
    (folder / "ray_peer.py").write_text(RAY_APP.format(here=str(HERE), folder=str(folder)))
    (folder / "empty_procedure.py").write_text("def nothing(run):\n    return {'zero': 0.0}\n")
    (folder / "conf" / "procedure").mkdir(parents=True)
    (folder / "conf" / "procedure" / "nothing.yaml").write_text("_target_: empty_procedure.nothing\n_partial_: true\n")


def clean(folder: Path) -> None:
    """Remove what the last round has written."""
    for name in ("losses", "multirun", "outputs", "ray"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "losses").mkdir()


def run(command: list[str], folder: Path, watch: bool = False) -> tuple[float, float]:
    """(wall seconds, peak proportional set size in bytes) of a command and its children."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "DL_LAB_ALLOW": "empty_procedure"}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_DISABLE_IMPORT_WARNING": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as Python does by default
    with open(folder / "log", "ab") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        if watch:
            watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
    if code != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()[-2000:]}")
    return seconds, peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    try:
        root = psutil.Process(pid)
        while root.is_running():
            total = 0
            for process in [root, *root.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(0.05)
    except psutil.Error:
        return


def commands(folder: Path, rates: list[float]) -> dict[str, list[str]]:
    """Return each contestant's command."""
    grid, python = ",".join(map(str, rates)), sys.executable
    peer = [python, "peer.py", f"folder={folder}"]
    loop = " && ".join(
        f"{python} peer.py folder={folder} lr={rate} hydra.run.dir={folder}/multirun/{rate}" for rate in rates
    )
    return {
        "hydra basic": [*peer, f"lr={grid}", "-m"],
        "dl-lab": lab(folder, f"optimizer.lr={grid}"),
        "hydra joblib": [*peer, f"lr={grid}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m"],
        "shell loop": ["sh", "-c", loop],
        "ray tune": [python, "ray_peer.py", json.dumps(rates)],
    }


def lab(folder: Path, *arguments: str) -> list[str]:
    """Return the command of dl-lab's sweep."""
    common = [
        "experiment=octmnist_cnn",
        f"paths.data_dir={folder}/data",
        "dataset.test_set=all",
        "seed=0",
        "trainer.device=cpu",
    ]
    common += [
        "trainer.batch_size=64",
        "trainer.max_epochs=1",
        "callbacks.curves=null",
        "callbacks.confusion_matrix=null",
    ]
    return [sys.executable, "-m", "dl_lab", "-m", *common, "lanes=2", "threads=1", *arguments]


def losses(folder: Path, name: str, rates: list[float]) -> list[float]:
    """Read the losses that a contestant has measured, in the order of the learning rates."""
    if name != "dl-lab":
        return [json.loads((folder / "losses" / f"{rate}.json").read_text()) for rate in rates]
    found = {}
    for path in folder.glob("outputs/sweeps/*/*/*/summary.json"):
        override = (path.parent / ".hydra" / "overrides.yaml").read_text()
        rate = next(line.partition("optimizer.lr=")[2] for line in override.splitlines() if "optimizer.lr=" in line)
        found[float(rate)] = json.loads(path.read_text())["metrics"]["train/loss"]
    return [found[rate] for rate in rates]


def contest(n: int, samples: int, rounds: int, skip: list[str]) -> dict[str, Any]:
    """Time the contestants in turns, and check that they measure the same losses."""
    with tempfile.TemporaryDirectory() as name:
        folder, rates = Path(name), LEARNING_RATES[:n]
        prepare(folder, samples)
        names = {k: v for k, v in commands(folder, rates).items() if not any(word in k for word in skip)}
        times: dict[str, list[float]] = {k: [] for k in names}
        expected: list[float] = []
        for _ in range(rounds):
            for contestant, command in names.items():
                clean(folder)
                times[contestant].append(run(command, folder)[0])
                measured = losses(folder, contestant, rates)
                expected = expected or measured
                np.testing.assert_allclose(measured, expected, rtol=2e-3, err_msg=contestant)
        return {
            k: {
                "seconds": statistics.median(v),
                "basic_over_it": statistics.median(a / b for a, b in zip(times["hydra basic"], v, strict=True)),
            }
            for k, v in times.items()
        }


def launch_cost(rounds: int) -> dict[str, float]:
    """Milliseconds per empty job, the start of the command taken away by a second, smaller sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, 64)

        def ours(n: int) -> float:
            clean(folder)
            return run(empty(folder, n), folder)[0]

        def basic(n: int) -> float:
            clean(folder)
            return run(
                [sys.executable, "peer.py", "empty=true", f"lr={','.join(map(str, LEARNING_RATES[:n]))}", "-m"], folder
            )[0]

        rows = []
        for _ in range(rounds):
            small, t200, t400, b2, b50 = ours(2), ours(200), ours(400), basic(2), basic(50)
            rows.append(
                {
                    "dl-lab 200": (t200 - small) / 198,
                    "dl-lab 400": (t400 - small) / 398,
                    "hydra basic 50": (b50 - b2) / 48,
                }
            )
        cost = {key: 1e3 * statistics.median(row[key] for row in rows) for key in rows[0]}
        cost["dl-lab 10000"] = 1e3 * (ours(MANY) - ours(2)) / (MANY - 2)
        return {**cost, "basic / dl-lab": cost["hydra basic 50"] / cost["dl-lab 200"]}


def empty(folder: Path, n: int) -> list[str]:
    """Return the command of a sweep of n jobs that do nothing."""
    words = ["--config-dir", str(folder / "conf"), "procedure=nothing", "logger=none", "lanes=2", "threads=1"]
    return [sys.executable, "-m", "dl_lab", "-m", *words, f"seed=range({n})"]


def planning() -> dict[str, float]:
    """CPU seconds of the plan of a sweep, with the start of the command: what is planned -> seconds.

    A plan checks all jobs. Jobs that differ only in rates and seeds are checked by examples, and others one by one.
    """

    def plan(*grid: str) -> float:
        clean(folder)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run([*lab(folder, *grid), "--dry-run"], folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, 64)
        dropout = f"model.dropout={','.join(str(i / 20) for i in range(10))}"
        seconds = {
            f"{n} jobs": plan(dropout, f"optimizer.lr={','.join(str(i / 1e5) for i in range(1, n // 10 + 1))}")
            for n in (1000, MANY)
        }
        return {**seconds, "1000 jobs of other sizes": plan("trainer.eval_batch_size=range(1,1001)")}


def memory() -> dict[str, float]:
    """Peak memory of the whole sweep with one and with two lanes, in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, 4096)
        peaks = {}
        for n in (1, 2):
            clean(folder)
            words = [word for word in lab(folder, "optimizer.lr=0.01,0.02,0.03,0.04") if word != "lanes=2"]
            peaks[n] = run([*words, f"lanes={n}"], folder, watch=True)[1] / 1e6
        return {"one lane": peaks[1], "two lanes": peaks[2], "ratio": peaks[2] / peaks[1]}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="*", default=[16, 48])
    parser.add_argument("--samples", type=int, nargs="*", default=[4096, 512])
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--only-launch", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if not options.only_launch:
        for n, samples in zip(options.jobs, options.samples, strict=True):
            found[f"{n} jobs of {samples}"] = contest(n, samples, options.rounds, options.skip)
            print(f"\n| {n} jobs of {samples:,} samples | seconds | Hydra basic / it |\n|---|---|---|")
            for name, row in found[f"{n} jobs of {samples}"].items():
                print(f"| {name} | {row['seconds']:.1f} | {row['basic_over_it']:.2f} |", flush=True)
    found["launch, ms per empty job"] = launch_cost(max(1, options.rounds // 2))
    found["plan, CPU s"] = planning()
    found["memory, MB"] = memory()
    for title in ("launch, ms per empty job", "plan, CPU s", "memory, MB"):
        print(f"\n{title}: " + ", ".join(f"{key} {value:.2f}" for key, value in found[title].items()))
    if options.json:
        known = describe_environment([])
        facts = {"torch": torch.__version__, **{key: known[key] for key in ("time", "cpu", "cores", "python")}}
        options.json.write_text(json.dumps({**facts, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
