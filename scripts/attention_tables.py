"""Write the measured tables and figures of docs/attention.md from run folders; no figure is typed by hand.

python scripts/attention_tables.py --lab RUN_FOLDER --sweep SWEEP_FOLDER --benchmark FILE.json...
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "attention.md"
FIGURES = ("attention_error", "attention_time_dim_16", "attention_memory_dim_16")


def limits(folder: Path) -> str:
    """tables/limits.csv of an attention_lab run; and its figures, copied beside the page."""
    with open(folder / "tables" / "limits.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (ROOT / "docs" / "figures").mkdir(exist_ok=True)
    for name in FIGURES:
        shutil.copyfile(folder / "figures" / f"{name}.png", ROOT / "docs" / "figures" / f"{name}.png")
    cells = [[row[column].removesuffix(".0") or "-" for column in rows[0]] for row in rows]
    return f"{markdown([_header(name) for name in rows[0]], cells)}\n\n{origin(folder)}"


def _header(column: str) -> str:
    """faster_than_fused_from_length_dim_8 -> L beyond fused, D = 8."""
    words = re.fullmatch(r"faster_than_(\w+)_from_length_dim_(\d+)", column)
    return f"L beyond {words[1]}, D = {words[2]}" if words else column.replace("_", " ")


def classifier(sweep: Path, speeds: Path) -> str:
    """Accuracy of each finished job of the AG News sweep, beside the speed of training from the benchmark."""
    benchmark = json.loads(speeds.read_text())
    rows, last = [], sweep
    for folder in sorted(path.parent for path in sweep.glob("*/summary.json")):
        if json.loads((folder / "status.json").read_text())["state"] != "done":
            continue
        summary, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "env"))
        metrics, mechanism, last = summary["metrics"], environment["choices"]["model/attention"], folder
        scores = [f"{metrics[name]:.4f}" for name in ("test/accuracy", "val/accuracy", "test/loss")]
        rows.append([mechanism, *scores, *[f"{row[mechanism]:.0f}" for row in benchmark["ms"].values()]])
    header = ["attention", "test accuracy", "val accuracy", "test loss"]
    header += [f"ms per update of {benchmark['batch']} texts, L = {length}" for length in benchmark["ms"]]
    dataset = json.loads((last / "summary.json").read_text())["dataset"]
    data = f"{dataset['name']} ({dataset['label']}: {dataset['note']}; {dataset['sizes']['test']:,} test texts)"
    return f"{markdown(header, rows)}\n\n{data}. {origin(last)}"


def speed(path: Path) -> str:
    """Return the table of the benchmark's speeds."""
    result = json.loads(path.read_text())
    rows = [
        [name, f"{row['seconds'] * 1e3:.1f}", f"{row['ratio']:.2f}", f"{row['resident_bytes'] / 1e6:.1f}"]
        for name, row in result["rows"].items()
    ]
    met = "; ".join(f"{goal}: {'met' if is_met else 'not met'}" for goal, is_met in result["goals"].items())
    header = ["contestant", "ms (CPU)", "times as slow as linear", "resident peak, MB"]
    kept = ", memory kept between calls (GLIBC_TUNABLES)" if result["allocator"] else ""
    machine = f"one thread, {result['cpu']}, torch {result['torch']}{kept}"
    setting = f"L = {result['length']:,}, D = {result['dim']}, {machine}"
    return f"{markdown(header, rows)}\n\n{setting}. Slope of causal memory {result['slope']:.3f}. Goals: {met}."


def origin(folder: Path) -> str:
    """How a run was made: its command, hardware and day."""
    environment = json.loads((folder / "env.json").read_text())
    status = json.loads((folder / "status.json").read_text())
    words = [word for word in environment["command"].split() if not word.startswith(("paths.", "hydra."))]
    return f"`{' '.join(words)}`, {environment['cpu']}, {status['ended'][:10]}."


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def insert(name: str, text: str) -> None:
    """Replace what stands between the page's marks of this name."""
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no marks for {name}.")
    PAGE.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", type=Path)
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--speeds", type=Path, default=ROOT / "docs" / "attention_classifier_speed.json")
    parser.add_argument("--benchmark", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if options.lab:
        insert("limits", limits(options.lab))
    if options.sweep:
        insert("classifier", classifier(options.sweep, options.speeds))
    if options.benchmark:
        insert("speed", "\n\n".join(map(speed, options.benchmark)))


if __name__ == "__main__":
    main()
