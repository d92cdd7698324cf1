"""The doctor's error rates: sick and healthy runs, and which of them each rule names.

    python scripts/ward/run.py OUTPUT_FOLDER [--seeds 0 1 2] [--only NAME ...]

Trains every patient of patients.yaml with every seed (a finished one is not trained again), examines it as
`dl-lab doctor --gpu` does, and prints for each disease in how many of its cases it was found and in how many healthy
runs it was wrongly named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ["DL_LAB_ALLOW"] = "sick_parts"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(HERE))

import yaml  # noqa: E402

from dl_lab import configs  # noqa: E402
from dl_lab.jobs.one import execute  # noqa: E402
from dl_lab.jobs.pretended_gpu import try_run  # noqa: E402
from dl_lab.show.doctor.diagnose import diagnose  # noqa: E402
from dl_lab.show.doctor.findings import Finding  # noqa: E402
from dl_lab.sweeps.results.noise import find_noise  # noqa: E402
from dl_lab.types import UserError  # noqa: E402

QUIET = ["threads=1", "logger=none", "callbacks.progress=null", "callbacks.curves=null"]


def main() -> None:
    """Train the patients, and write the doctor's findings about them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    ward = yaml.safe_load((HERE / "patients.yaml").read_text())
    composer = configs.Composer(str(HERE / "conf"))
    found: dict[str, list[list[str]]] = defaultdict(list)
    for kind in ("healthy", "sick"):
        for name, patient in ward[kind].items():
            if options.only and name not in options.only:
                continue
            for seed in options.seeds:
                folder = options.folder.resolve() / kind / name / str(seed)
                words = [*ward["bases"][patient["base"]], *QUIET, *patient.get("change", [])]
                if "seeds" in patient:
                    findings = sweep(words, range(10 * seed, 10 * seed + patient["seeds"]), folder)
                else:
                    train(composer, [*words, f"seed={seed}"], folder)
                    findings = [*diagnose(folder), *try_run(folder)]
                found[name].append([finding.name for finding in findings])
            print(f"{kind:8} {name:26} {found[name]}", flush=True)
    rows = count(ward, found)
    print("\n" + to_markdown(rows, ward, found))
    (options.folder / "ward.json").write_text(json.dumps({"rows": rows, "found": found}, indent=1) + "\n")


def train(composer: configs.Composer, words: list[str], folder: Path) -> None:
    """Train one patient, unless its run is there already."""
    if (folder / "status.json").exists():
        return
    try:
        execute(composer.compose([*words, f"hydra.run.dir={folder}"]), ["ward"], quiet=True)
    except UserError as error:
        if not (folder / "status.json").exists():
            raise SystemExit(f"{folder}: {error}") from error


def sweep(words: Sequence[str], seeds: Sequence[int], folder: Path) -> list[Finding]:
    """Run a sweep, unless it is there already, and return what the doctor says of the whole of it.

    Raises:
        CalledProcessError: The sweep failed.
    """
    if not (folder / "results.csv").exists():
        command = [sys.executable, "-m", "dl_lab", "--multirun", *words, f"seed={','.join(map(str, seeds))}"]
        subprocess.run([*command, f"hydra.sweep.dir={folder}"], check=True, stdout=subprocess.DEVNULL)
    noise = find_noise(folder)
    return [] if noise is None else [noise]


def count(ward: dict[str, Any], found: dict[str, list[list[str]]]) -> list[dict[str, Any]]:
    """One row for each disease: its cases, those that were found, and healthy runs that were called ill with it."""
    cases: Counter[str] = Counter()
    right: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for name, patient in ward["sick"].items():
        accepted = [patient["disease"]] if isinstance(patient["disease"], str) else patient["disease"]
        for findings in found.get(name, []):
            cases[accepted[0]] += 1
            right[accepted[0]] += bool(set(findings) & set(accepted))
    for name in ward["healthy"]:
        for findings in found.get(name, []):
            false.update(set(findings))
    names = sorted({*cases, *false})
    return [{"disease": n, "cases": cases[n], "found": right[n], "false": false[n]} for n in names]


def to_markdown(rows: list[dict[str, Any]], ward: dict[str, Any], found: dict[str, list[list[str]]]) -> str:
    """Return the table of the findings."""
    healthy = sum(len(found.get(name, [])) for name in ward["healthy"])
    called_ill = sum(bool(findings) for name in ward["healthy"] for findings in found.get(name, []))
    lines = ["| disease | cases | found | named in healthy runs |", "|---|---|---|---|"]
    lines += [f"| {row['disease']} | {row['cases']} | {row['found']} | {row['false']} of {healthy} |" for row in rows]
    lines.append(f"\nOf {healthy} healthy runs {called_ill} have any finding.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
