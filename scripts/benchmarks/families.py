"""Every family of models: dl-lab beside the best hand-written loop, the notebook's loop and Lightning, in one run.

    python scripts/benchmarks/families.py [--rounds 3] [--family CNN ...] [--json FILE --markdown FILE] [--quick]

Each contestant trains the same model from the same weights on the same batches, validates after every epoch and judges
test once; dl-lab does so by its command's own path with everything on (run folder, TensorBoard, checkpoints, figures,
the doctor's looks). The losses of all of them must agree before anything counts. A measurement is the CPU seconds of a
whole run on one thread, in a process forked for it from one that has everything imported: imports count nowhere
(startup.py measures them). The contestants take turns; 2 lengths x 1 and 3 epochs a round.

The table gives medians of the ratios `other seconds / dl-lab's seconds` with their range, for the short run (the first
length, 1 epoch) and the long one (the second length, 3 epochs). A run's seconds are then fitted by least squares as
cost of an update + cost of an epoch + cost of a run. Memory is the peak of fresh processes, which import only what they
need. Without Lightning (the extra `bench`) its column is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
from family_table import markdown

EPOCHS = (1, 3)
QUICK = 64  # samples


def by_dl_lab(family: Any, config: Any, data: Any) -> list[float]:
    """The dl-lab command's own path; the job is composed and checked within the time."""
    from dl_lab import configs
    from dl_lab.jobs.one import execute
    from dl_lab.runs.recorder import Run

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        overrides = [*config["words"], f"trainer.max_epochs={config['trainer']['max_epochs']}"]
        composed = configs.Composer().compose([*overrides, f"hydra.run.dir={folder}/run"])
        execute(composed, ["dl-lab", *overrides], quiet=True)
        records = Run(Path(folder) / "run", {}).records()
    return [record["train/loss"] for record in records if "train/loss" in record]


def contestants(family: Any) -> dict[str, Callable[..., list[float]]]:
    """By name; Lightning only where it is installed, and for models of torch."""
    import family_loops

    if family.plain is not None:
        return {"dl-lab": by_dl_lab, "tuned": family_loops.numpy_tuned, "notebook": family_loops.numpy_notebook}
    found = {"dl-lab": by_dl_lab, "tuned": family_loops.tuned, "notebook": family_loops.notebook}
    if importlib.util.find_spec("lightning") is not None:
        found["lightning"] = family_loops.with_lightning
    return found


def job(family: Any, samples: int, epochs: int) -> tuple[dict[str, Any], Any]:
    """The resolved config of a run, and its data, which are kept for the runs to come."""
    from dl_lab import configs

    words = family.overrides(samples)
    config, data = built(configs.Composer().compose([*words, f"trainer.max_epochs={epochs}"]).config)
    return {**config, "words": words}, data


def built(config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """A config, and its data."""
    from dl_lab import configs
    from dl_lab.jobs.procedure import build_procedure

    configs.load_dataset(config)
    parts: Any = build_procedure(config).training()
    return config, parts.dataset


def forked(work: Callable[[], list[float]], before: Callable[[], None]) -> tuple[float, list[float]]:
    """CPU seconds of some work in a process of its own, and the losses that it returns. before: not counted."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        before()
        began = time.process_time()
        try:
            losses = work()
            theirs.send((time.process_time() - began, losses))
        except BaseException as error:
            theirs.send((type(error).__name__, str(error)))
            raise

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        seconds, losses = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process ended with status {process.exitcode}") from None
    finally:
        process.join()
    if isinstance(seconds, str):
        raise RuntimeError(f"{seconds}: {losses}")
    return seconds, losses


def measure(family: Any, rounds: int, lengths: Sequence[int], epochs: Sequence[int]) -> dict[str, Any]:
    """Every contestant's seconds, round by round, for each length and number of epochs."""
    from dl_lab import preload

    running = contestants(family)
    cells = [(samples, n_epochs) for samples in lengths for n_epochs in epochs]
    small = job(family, min(QUICK, *lengths), 1)
    losses = {}
    for name, work in running.items():  # imports everything, once, before the forks
        losses[name] = work(family, *small)
    for name in running:
        np.testing.assert_allclose(losses[name], losses["tuned"], rtol=2e-3, err_msg=f"{name} trains something else")
    jobs = {cell: job(family, *cell) for cell in cells}
    seconds: dict[str, dict[tuple[int, int], list[float]]] = {name: {cell: [] for cell in cells} for name in running}
    for number in range(rounds):
        for cell in cells:
            names = list(running) if number % 2 == 0 else list(running)[::-1]
            for name in names:
                before = preload.keep_freed_memory if name == "dl-lab" else lambda: None  # as its command does
                spent, losses[name] = forked(lambda name=name, cell=cell: running[name](family, *jobs[cell]), before)
                seconds[name][cell].append(spent)
            for name in names:
                np.testing.assert_allclose(losses[name], losses["tuned"], rtol=5e-3, err_msg=name)
    batch = small[0]["trainer"]["batch_size"]
    sizes = {cell: len(data.train) for cell, (_, data) in jobs.items()}
    return {
        "batch": batch,
        "samples": [sizes[lengths[0], epochs[0]], sizes[lengths[-1], epochs[0]]],
        "rounds": rounds,
        "seconds": {name: {f"{n} x {e}": times for (n, e), times in own.items()} for name, own in seconds.items()},
        "ratios": {
            name: {
                kind: ratios(seconds["dl-lab"][cell], seconds[name][cell])
                for kind, cell in (("short", cells[0]), ("long", cells[-1]))
            }
            for name in running
            if name != "dl-lab"
        },
        "costs": {name: fit(own, sizes, batch) for name, own in seconds.items()},
    }


def ratios(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """How many times as fast as the other one: median, least and greatest of the rounds."""
    found = [other / own for own, other in zip(ours, others, strict=True)]
    return {"median": statistics.median(found), "least": min(found), "greatest": max(found)}


def fit(own: dict[tuple[int, int], list[float]], sizes: dict[tuple[int, int], int], batch: int) -> dict[str, float]:
    """Milliseconds of an update, an epoch and a run: least squares of the relative errors, none below 0."""
    from scipy.optimize import lsq_linear

    rows, ones = [], []
    for cell, times in own.items():
        n_epochs = cell[1]
        n_updates = -(-sizes[cell] // batch) * n_epochs
        for spent in times:
            rows.append([n_updates / spent, n_epochs / spent, 1 / spent])
            ones.append(1.0)
    costs = lsq_linear(np.array(rows), np.array(ones), bounds=(0, np.inf), method="bvls").x
    return {name: 1000 * float(cost) for name, cost in zip(("update", "epoch", "run"), costs, strict=True)}


# -- memory -----------------------------------------------------------------------------------------------------------


def peak(family: Any, name: str, samples: int) -> float:
    """Peak memory in MB of a fresh process that does one run of one epoch."""
    words = [sys.executable, __file__, "--one", family.name, name, str(samples)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def one(name: str, contestant: str, samples: int) -> None:
    """Do one run and print this process's peak memory in MB."""
    from dl_lab import preload
    from dl_lab.runs.machine import peak_memory

    if contestant == "dl-lab":
        preload.torch()
    import family_loops
    import torch

    torch.set_num_threads(1)
    family = family_loops.FAMILIES[name]
    config, data = job(family, samples, 1)
    contestants(family)[contestant](family, config, data)
    print(peak_memory() / 2**20)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", nargs="*", default=[], help="only families whose name begins so")
    parser.add_argument("--quick", action="store_true", help="one round of tiny runs: does everything agree?")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="add the families to this file")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], int(options.one[2]))
        return
    import family_loops
    import torch

    torch.set_num_threads(1)
    from dl_lab.runs.environment import describe_environment

    wanted = options.family
    chosen = [f for f in family_loops.FAMILIES.values() if not wanted or any(f.name.startswith(w) for w in wanted)]
    if not chosen:
        parser.error(f"there is no such family; there are {', '.join(family_loops.FAMILIES)}")
    report: dict[str, Any] = {"families": {}}
    if options.json and options.json.exists():
        report = json.loads(options.json.read_text(encoding="utf-8"))
    if importlib.util.find_spec("lightning") is None:
        print("Lightning is not installed (the extra `bench`): its column is left out.")
    report["command"] = f"python scripts/benchmarks/families.py --rounds {options.rounds}"
    here = {
        "hardware": describe_environment([])["cpu"],
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    for family in chosen:
        lengths = (QUICK, 2 * QUICK) if options.quick else family.lengths
        row = measure(family, 1 if options.quick else options.rounds, lengths, (1, 2) if options.quick else EPOCHS)
        if not (options.no_memory or options.quick):
            memory = {name: peak(family, name, lengths[0]) for name in ("dl-lab", "tuned")}
            row["memory"] = {**memory, "ratio": memory["dl-lab"] / memory["tuned"]}
        report["families"][family.name] = {**row, **here}
        print(markdown({**report, "families": {family.name: {**row, **here}}}).splitlines()[2], flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n" + markdown(report))
    if options.markdown:
        options.markdown.write_text(markdown(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
