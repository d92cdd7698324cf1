"""dl-lab predict: put a new file, or a text, through a finished run.

What a run predicts is in its config (predictor): a forecast of the rows after a series, a score of each of
them, the class of a text, what is said in a recording.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dl_lab import config as configs
from dl_lab.records import flatten
from dl_lab.run import find_run, read_json, state_of, write_atomic
from dl_lab.types import ConfigError, Predictor, UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    config = configs.read_config(folder)
    if not config.get("predictor"):
        raise UserError(f"{folder} cannot predict: its config names no predictor.")
    for override in options.overrides:
        change(config["predictor"], override)
    rows = predict(folder, config, options.input)
    text = table(rows)
    if options.to is None:
        print(text, end="")
    else:
        write_atomic(options.to, text)
        print(f"{len(rows)} rows in {options.to}", file=sys.stderr)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab predict", description=summary, epilog=more, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument(
        "input", metavar="FILE|TEXT", help="new data, written like what the run learned from; a text in quotes"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the predictor: layout.repair=[sort,gaps]")
    parser.add_argument("--to", type=Path, metavar="CSV", help="write the rows there, not to the screen")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_intermixed_args(list(argv))


def change(config: dict[str, Any], override: str) -> None:
    """Set one key of the predictor, like layout.repair=[sort]. Raises ConfigError where there is no such key."""
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    node: Any = config
    for name in parents:
        node = node.get(name) if isinstance(node, Mapping) else None
    if not equals or not isinstance(node, dict) or last not in node or last.startswith("_"):
        known = [name for name in flatten(config) if not name.rpartition(".")[2].startswith("_")]
        raise ConfigError(f"The predictor has no key {key!r}.{configs.did_you_mean(key, known)}")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r} is not an override like key=value: {error}.") from error


def predict(folder: Path, config: Mapping[str, Any], given: str) -> Sequence[Mapping[str, Any]]:
    """The predictor's rows of a file, or of a text, with the weights that the run was tested with."""
    from dl_lab.training import checkpoints

    if state_of(folder) != "done":
        raise UserError(f"{folder} is {state_of(folder)}, not done: only a finished run predicts.")
    configs.check(config)
    kind = (read_json(folder / "summary.json") or {}).get("weights", "best")
    weights = checkpoints.load_weights(folder / "checkpoints" / f"{kind}.safetensors")
    predictor: Predictor = configs.build(config, "predictor")
    new = file_or_text(given, getattr(predictor, "reads_text", False))
    return predictor(new, weights, read_json(folder / "preprocessing.json") or {})


def file_or_text(given: str, reads_text: bool) -> Path | str:
    """A file that is there, else the text itself. Raises UserError for what must be, or looks like, a file's name."""
    if os.path.isfile(given):
        return Path(given)
    like_a_name = not re.search(r"\s", given.strip()) and re.search(r"/|\.\w+$", given)
    if not reads_text or like_a_name:
        raise UserError(f"{given} is not a file.")
    return given


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV with a header."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
