"""Three public tables that ship with scikit-learn: `dl-lab dataset=table` beside scikit-learn's own baselines.

    python scripts/benchmarks/tables.py            # writes the table into docs/tables.md, and prints it

Every method sees the same rows: five folds, of which one is test, one is validation (only dl-lab uses it, to choose the
epoch) and three train. The figures are means over the folds, with the standard deviation.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dl_lab import configs
from dl_lab.datasets.rows import Folds
from dl_lab.jobs.one import execute

N_FOLDS = 5
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"
START = "<!-- The table below is written by scripts/benchmarks/tables.py. -->\n"
END = "<!-- End of the table. -->\n"
MODEL = ["model.hidden=[64]", "model.dropout=0.2", "optimizer.lr=3e-3"]
TRAINING = ["optimizer=adamw", "trainer.max_epochs=60", "trainer.batch_size=16"]
TABLES: dict[str, tuple[Callable, str, str]] = {
    "diabetes": (load_diabetes, "progression", "R²"),
    "breast cancer": (load_breast_cancer, "diagnosis", "accuracy"),
    "wine": (load_wine, "cultivar", "accuracy"),
}


def main() -> None:
    """Measure, and print the table."""
    rows = [measure(name, Path(folder)) for name in TABLES for folder in [tempfile.mkdtemp()]]
    text = as_markdown(rows)
    print(text)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def measure(name: str, folder: Path) -> dict[str, str]:
    """One row: the figures of every method on one table."""
    load, target, measured = TABLES[name]
    data = load(as_frame=True)
    frame = data.frame.rename(columns={"target": target})
    classes = measured == "accuracy"
    if classes:
        frame[target] = [str(data.target_names[i]) for i in data.target]
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    x, y = data.data.to_numpy(), frame[target].to_numpy()
    labels = np.unique(y, return_inverse=True)[1] if classes else None
    figures: dict[str, list[float]] = {}
    for fold in range(N_FOLDS):
        parts = Folds(N_FOLDS, fold)(len(y), labels, lambda _: [])
        score = accuracy_score if classes else r2_score
        for method, model in baselines(classes).items():
            model.fit(x[parts["train"]], y[parts["train"]])
            figures.setdefault(method, []).append(score(y[parts["test"]], model.predict(x[parts["test"]])))
        for method, model in (("dl-lab linear", "linear"), ("dl-lab mlp", "mlp")):
            figures.setdefault(method, []).append(train(path, target, model, fold, folder)[metric(classes)])
    shown = {method: f"{np.mean(values):.3f} ± {np.std(values):.3f}" for method, values in figures.items()}
    return {"table": name, "rows": str(len(y)), "measured": measured, **shown}


def metric(classes: bool) -> str:
    """Name dl-lab's metric of the test split."""
    return "test/accuracy" if classes else "test/r2"


def baselines(classes: bool) -> dict:
    """scikit-learn's models with their own settings, on scaled features."""
    if classes:
        linear, boosted, net = LogisticRegression(max_iter=1000), HistGradientBoostingClassifier, MLPClassifier
    else:
        linear, boosted, net = Ridge(), HistGradientBoostingRegressor, MLPRegressor
    return {
        "linear (scikit-learn)": make_pipeline(StandardScaler(), linear),
        "MLP (scikit-learn)": make_pipeline(
            StandardScaler(), net(hidden_layer_sizes=(64,), max_iter=1000, random_state=0)
        ),
        "boosted trees (scikit-learn)": boosted(random_state=0),
    }


def train(path: Path, target: str, model: str, fold: int, folder: Path) -> dict[str, float]:
    """Train dl-lab's model on one fold. Return its metrics."""
    words = ["dataset=table", f"dataset.path={path}", f"dataset.target={target}", "dataset/rows=folds"]
    words += [f"dataset.rows.fold={fold}", f"model={model}", "logger=none", "threads=1", *TRAINING]
    words += MODEL if model == "mlp" else ["optimizer.lr=1e-2"]
    run = f"hydra.run.dir={folder}/{model}_{fold}"
    with contextlib.redirect_stderr(io.StringIO()):
        return execute(configs.Composer().compose([*words, run]), ["dl-lab", *words], quiet=True)


def as_markdown(rows: list[dict[str, str]]) -> str:
    """Return the rows as a Markdown table, with the command below."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(row.values())} |" for row in rows]
    processor = platform.processor() or platform.machine()
    lines += [
        "",
        f"Command: `python scripts/benchmarks/tables.py`, seed 0, {N_FOLDS} folds drawn with seed 42, one thread of a",
        f"{os.cpu_count()}-core CPU ({processor}). Settings of dl-lab's mlp:",
        f"`{' '.join([*TRAINING, *MODEL])}`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
