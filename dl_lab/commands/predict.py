"""dl-lab predict: put a new file, or a text, through a finished run.

The run's config names what it predicts (predictor): the rows after a series, a score of each row, the class of a text,
of a sound or of an image, the value or class of each row of a table, what is said in a recording. The new file is read
and prepared as the training data were; what had to be repaired in it is reported on stderr.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dl_lab import configs
from dl_lab.configs.words import did_you_mean
from dl_lab.runs.files import as_mapping, as_numbers, read_json, write_atomic
from dl_lab.runs.find import find_run, state_of, weights_of
from dl_lab.runs.protocols import refuse_other_arguments
from dl_lab.runs.settings import flatten
from dl_lab.show.options import Parser, add_outputs, output_file
from dl_lab.types import Answer, ConfigError, Predictor, UserError, count


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab predict` and return the exit status."""
    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    config = configs.read_config(folder)
    config["predictor"] = config.get("predictor") or predictor_of_images(folder, config)
    for override in options.overrides:
        change(config["predictor"], override)
    rows, notes = predict(folder, config, options.input)
    if not rows:
        notes = [*notes, "there is no row to show."]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    text = table(rows)
    if options.to is None:
        print(text, end="")
    else:
        write_atomic(options.to, text)
        print(f"{count(len(rows), 'row')} in {options.to}", file=sys.stderr)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab predict", description=summary, epilog=more)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument(
        "input", metavar="FILE|TEXT", help="new data, written like what the run learned from; a text in quotes"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the predictor: layout.repair=[sort,gaps]")
    parser.add_argument("--to", type=output_file, metavar="CSV", help="write the rows there, not to the screen")
    add_outputs(parser)
    return parser.parse_intermixed_args(list(argv))


def predictor_of_images(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a predictor for a run of images whose config is older than predictors.

    Args:
        folder: The run's folder.
        config: Its config, which names no predictor.

    Raises:
        UserError: The run is of other data, or has no record of how its images were prepared.
    """
    procedure = as_mapping(config["procedure"])
    model = as_mapping(procedure.get("learner")).get("model")
    if model and "white" in (read_json(folder / "preprocessing.json") or {}):
        return {**configs.Composer().compose(["predictor=images"]).config["predictor"], "model": model}
    shape = as_mapping(procedure.get("dataset")).get("input_shape")
    if model and isinstance(shape, list) and len(shape) == 3:
        raise UserError(
            f"{folder} cannot predict: its config names no predictor, and an older dl-lab has not recorded how its "
            "images were prepared (preprocessing.json). Train it again to predict with it."
        )
    raise UserError(f"{folder} cannot predict: its config names no predictor.")


def change(config: dict[str, Any], override: str) -> None:
    """Set one key of the predictor.

    Args:
        config: The config of the predictor. It changes.
        override: A word like layout.repair=[sort].

    Raises:
        ConfigError: The predictor has no such key, or the value is no YAML.
    """
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    node: object = config
    for name in parents:
        node = node.get(name) if isinstance(node, Mapping) else None
    if not equals or not isinstance(node, dict) or last not in node or last.startswith("_"):
        known = [name for name in flatten(config) if not name.rpartition(".")[2].startswith("_")]
        raise ConfigError(f"The predictor has no key {key!r}.{did_you_mean(key, known)}")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r} is not an override like key=value: {error}.") from error


def predict(folder: Path, config: Mapping[str, Any], given: str) -> Answer:
    """Apply the run's predictor to a file or a text, with the weights of the run's test.

    Args:
        folder: The run's folder.
        config: The run's config.
        given: The path of a file, or a text.

    Raises:
        UserError: The run is not done, has no weights, or cannot use the file or the text.
    """
    from dl_lab.runs.weights import load_weights

    if state_of(folder) != "done":
        raise UserError(f"{folder} is {state_of(folder)}, not done: only a finished run predicts.")
    configs.check(config)
    path = weights_of(folder)
    if not path.is_file():
        raise UserError(f"{folder} cannot predict: it has trained no single model whose weights were kept.")
    # The names of weights that are not the model's own, like those of a task, have a prefix with a slash.
    weights = {name: tensor for name, tensor in load_weights(path).items() if "/" not in name}
    predictor: Predictor = configs.build(config, "predictor")
    reads_text = getattr(predictor, "reads_text", False)
    reads_folder = getattr(predictor, "reads_folder", False)
    new = file_or_text(given, reads_text, reads_folder)
    if not callable(predictor):
        raise ConfigError(f"predictor: {type(predictor).__name__} has no __call__(new, weights, preprocessing).")
    refuse_other_arguments("predictor", predictor, "__call__", Predictor)
    answer = predictor(new, weights, read_json(folder / "preprocessing.json") or {})
    return read_answer(answer, type(predictor).__name__)


def read_answer(answer: Any, name: str) -> Answer:
    """Check what a predictor returned. Tensors and arrays become plain numbers.

    Args:
        answer: An `Answer`, or rows.
        name: The predictor's name, for the message.

    Raises:
        UserError: It is neither, or its rows have different columns.
    """
    rows, notes = answer if isinstance(answer, Answer) else (answer, ())
    found = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, Mapping) else [rows]
    if wrong := [row for row in found if not isinstance(row, Mapping)]:
        kind = type(wrong[0]).__name__
        raise UserError(f"{name} must return a list of rows, each of them a dictionary of columns; a {kind} is no row.")
    if isinstance(rows, Mapping):
        raise UserError(f"{name} must return a list of rows, [{{...}}], also where it is one row.")
    for i, row in enumerate(found):
        if list(row) != list(found[0]):
            columns = [", ".join(map(str, one)) for one in (row, found[0])]
            raise UserError(f"{name}: row {i + 1} has the columns {columns[0]}; the first row has {columns[1]}.")
    return Answer([{str(key): as_numbers(value) for key, value in row.items()} for row in found], tuple(notes))


def file_or_text(given: str, reads_text: bool, reads_folder: bool = False) -> Path | str:
    """Return the path of a file that exists, else the text itself.

    Args:
        given: The word of the command line.
        reads_text: Whether the predictor takes a text.
        reads_folder: Whether the predictor takes a folder.

    Raises:
        UserError: There is no such file, and the predictor takes no text or the word looks like the name of a file.
    """
    path = os.path.expanduser(given)
    if os.path.isfile(path) or (reads_folder and os.path.isdir(path)):
        return Path(path)
    if os.path.isdir(path):
        raise UserError(f"{given} is a folder; give one file.")
    looks_like_name = not re.search(r"\s", given.strip()) and re.search(r"/|\.\w+$", given)
    if not reads_text or looks_like_name:
        raise UserError(f"{given} is not a file.")
    return given


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as CSV with a header; "" where there are none."""
    if not rows:
        return ""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
