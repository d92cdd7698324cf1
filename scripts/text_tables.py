"""Write the measured tables of docs/text.md from run folders and the benchmark; no figure is typed by hand.

python scripts/text_tables.py --words RUN_FOLDER... --figure RUN_FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "text.md"
BENCHMARK = ROOT / "docs" / "results" / "benchmarks" / "text.json"


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
    """Return the table of the benchmark's speeds."""
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

    from dl_lab.procedures.text_figures import draw_maps

    with open(folder / "tables" / "attention_0.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n_layers, n_heads = (max(int(row[name]) for row in rows) for name in ("layer", "head"))
    length = round((len(rows) / n_layers / n_heads) ** 0.5)
    maps = torch.tensor([float(row["weight"]) for row in rows]).view(n_layers, n_heads, length, length)
    figure = draw_maps(maps, [row["key"] for row in rows[:length]])
    figure.savefig(ROOT / "docs" / "figures" / "text_attention.png", dpi=90)


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
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
    """Return the pattern of a marked part of the page."""
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)


def main() -> None:
    """Write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, nargs="*", default=[])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    result = json.loads(BENCHMARK.read_text()) if BENCHMARK.exists() else {}
    if options.words:
        insert("words", words(options.words))
    if result:
        insert("speed", speed(result))
    if options.figure:
        attention(options.figure)


if __name__ == "__main__":
    main()
