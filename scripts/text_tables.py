"""Write the measured tables of docs/text.md from run folders and the benchmark; no figure is typed by hand.

python scripts/text_tables.py --runs RUN_FOLDER... --words RUN_FOLDER... --figure RUN_FOLDER

The rows of --runs join those on the page; one of the same experiment and changes is replaced.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "text.md"
BENCHMARK = ROOT / "docs" / "results" / "benchmarks" / "text.json"
OWN = ("experiment=", "threads=", "paths.", "hydra.", "lanes=")  # words of a command that change no result


def models(folders: Sequence[Path], speeds: Mapping[str, float]) -> str:
    """One row for each run: what was changed in its experiment, its size, its epochs, its result."""
    rows = []
    for folder in folders:
        summary, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "env"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        name, metrics, data = environment["choices"]["experiment"], summary["metrics"], summary["dataset"]
        changed = [word for word in environment["command"].split()[1:] if not word.startswith(OWN)]
        published = ((config.get("reference") or {}).get("test/accuracy") or {}).get("value")
        n, trained = summary["parameters"], summary["trainable"]
        rows.append(
            [
                f"{name} ({config['id']})",
                " ".join(f"`{word}`" for word in changed) or "-",
                f"{data['name']}, {data['sizes']['train']:,}",
                f"{n:,}" if n == trained else f"{n:,} ({trained:,})",
                summary["epochs"],
                speeds.get(name, "") if not changed else "",
                f"{metrics['test/accuracy']:.4f}",
                f"{published:.4f}" if published and not changed else "",
                f"{metrics['test/loss']:.4f}",
                f"{metrics['test/f1']:.4f}",
                f"{metrics['test/roc_auc']:.4f}",
            ]
        )
    header = ["experiment", "changed", "data, training texts", "parameters (trained)", "epochs", "CPU s an epoch"]
    new = markdown([*header, "test accuracy", "published", "test loss", "F1", "ROC AUC"], rows).splitlines()
    by_run = {tuple(line.split("|")[1:3]): line for line in [*inserted("models").splitlines()[2:], *new[2:]]}
    return "\n".join([*new[:2], *sorted(by_run.values())])


def words(folders: Sequence[Path]) -> str:
    """The answers of each word_analogies run."""
    rows = []
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        source = "GloVe" if summary["dataset"]["name"] == "word vectors" else "trained embedding"
        with open(folder / "tables" / "analogies.csv", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                question = f"{row['a']} : {row['b']} = {row['c']} : ?"
                answer = f"**{row['answer']}**" if row["answer"] == row["expected"] else row["answer"] or "-"
                rows.append([source, question, row["rule"], row["among"], answer, row["rank_of_expected"] or "-"])
    return markdown(["vectors", "question", "rule", "among", "answer", "rank of the expected"], rows)


def speed(result: Mapping[str, Any]) -> str:
    rows = [
        [row["model"], row["contestant"], f"{row['tokens_per_second']:,}", f"{row['times_dl_lab']:.2f}"]
        for row in result["rows"]
    ]
    about = f"{result['texts']} texts, {result['rounds']} rounds, one thread, {result['cpu']}, torch {result['torch']}"
    contest = markdown(["model", "contestant", "tokens/s (CPU)", "times the time of dl-lab"], rows)
    sizes = [[r["experiment"], f"{r['parameters']:,}", r["tokens"], r["seconds_per_epoch"]] for r in result["padova"]]
    homework = markdown(["experiment", "parameters", "tokens a review", "CPU s an epoch of 25,000"], sizes)
    return f"{contest}\n\n{about}.\n\n{homework}"


def attention(folder: Path) -> None:
    """docs/figures/text_attention.png: the attention maps of a run's first sentence, drawn from its table."""
    import torch

    from dl_lab.experiments.text import draw_maps

    with open(folder / "tables" / "attention_0.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n_layers, n_heads = (max(int(row[name]) for row in rows) for name in ("layer", "head"))
    length = round((len(rows) / n_layers / n_heads) ** 0.5)
    maps = torch.tensor([float(row["weight"]) for row in rows]).view(n_layers, n_heads, length, length)
    figure = draw_maps(maps, [row["key"] for row in rows[:length]])
    figure.savefig(ROOT / "docs" / "figures" / "text_attention.png", dpi=90)


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def inserted(name: str) -> str:
    """What stands between the page's marks of this name."""
    found = marks(name).search(PAGE.read_text(encoding="utf-8"))
    if not found:
        raise SystemExit(f"{PAGE} has no marks for {name}.")
    return found[2]


def insert(name: str, text: str) -> None:
    """Replace what stands between the page's marks of this name."""
    inserted(name)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(marks(name).sub(lambda match: f"{match[1]}{text}\n{match[3]}", page), encoding="utf-8")


def marks(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--words", type=Path, nargs="*", default=[])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    result = json.loads(BENCHMARK.read_text()) if BENCHMARK.exists() else {}
    speeds = {row["experiment"]: row["seconds_per_epoch"] for row in result.get("padova", [])}
    if options.runs:
        insert("models", models(options.runs, speeds))
    if options.words:
        insert("words", words(options.words))
    if result:
        insert("speed", speed(result))
    if options.figure:
        attention(options.figure)


if __name__ == "__main__":
    main()
