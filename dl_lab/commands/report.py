"""dl-lab report: a sweep or a run as one HTML file and one Markdown file.

Question, data, table over seeds, curves, figures of the best run, published figures beside measured ones, how to
reproduce. The HTML needs no server and no network. Written into the folder as report.html and report.md, or into --to.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from dl_lab.configs import catalogue
from dl_lab.runs import records
from dl_lab.runs.files import read_json, write_atomic
from dl_lab.show.options import Parser, add_outputs
from dl_lab.sweeps.results import outcome, page, page_html, page_of_run, page_of_sweep
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.results.page import Page
from dl_lab.sweeps.results.page_of_sweep import Asked
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab report` and return the exit status."""
    options = parse(argv)
    if options.to is not None and options.to.exists() and not options.to.is_dir():
        raise UserError(f"--to {options.to} is a file, not a folder.")
    folder = outcome.find_sweep_or_run(options.name, options.outputs)
    content = _of_sweep(folder, options) if outcome.is_sweep(folder) else _of_run(folder, options)
    target = options.to or folder
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {target}: {error.strerror}.") from error
    for name, text in (("report.html", page_html.html(content)), ("report.md", page.markdown(content))):
        write_atomic(target / name, text)
        print(target / name)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab report", description=summary, epilog=details)
    parser.add_argument(
        "name", metavar="SWEEP|RUN", help="a folder, the key or id at the end of its name (or its start), or last"
    )
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="where to write; is made if it is missing (the folder itself)"
    )
    parser.add_argument("--metric", metavar="VAL", help="of a sweep: the val/* metric that chooses the best")
    parser.add_argument("--baseline", metavar="'model=linear lr=0.01'", help="of a sweep: compare each setting with it")
    parser.add_argument("--on", metavar="METRIC", help="what is compared with the baseline (the first of test/*)")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _of_sweep(folder: Path, options: argparse.Namespace) -> Page:
    found = outcome.read(folder)
    asked = Asked(options.metric, options.baseline, options.on)
    names = (str(record.config.get("experiment", "")) for record in found.records)
    return page_of_sweep.collect(found, asked, questions(names), commands(found))


def _of_run(folder: Path, options: argparse.Namespace) -> Page:
    for flag in ("metric", "baseline", "on"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag} compares the settings of a sweep; {folder} is a run.")
    record = records.read(folder)
    name = str(record.config.get("experiment", ""))
    typed = str((read_json(folder / "env.json") or {}).get("command", ""))
    return page_of_run.collect(record, questions([name]).get(name, ""), [typed, f"dl-lab verify {folder}"])


def questions(names: Iterable[str]) -> dict[str, str]:
    """Map experiments to their questions, for those that dl-lab ships."""
    found = {}
    for name in dict.fromkeys(names):
        experiment = catalogue.experiment(name) if name else None
        if experiment and experiment.question:
            found[name] = experiment.question
    return found


def commands(found: Outcome) -> list[str]:
    """Return the sweep's own command, and the command that verifies one of its jobs."""
    return [found.plan.get("command", ""), f"dl-lab verify {found.records[0].folder}"]
