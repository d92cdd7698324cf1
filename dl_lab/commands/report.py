"""dl-lab report: a sweep as one HTML file and one Markdown file.

Question, table over seeds, curves, published figures beside measured ones, how to reproduce. The HTML needs no server
and no network. Written into the sweep's folder as report.html and report.md, or into --to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dl_lab import catalogue
from dl_lab.run import write_atomic
from dl_lab.sweeps import comparison, outcome, page
from dl_lab.sweeps.outcome import Outcome
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    found = outcome.read(outcome.find_sweep(options.sweep, options.outputs))
    about = comparison.compare(found, options.metric, options.baseline, options.on)
    content = page.collect(about, questions(found), commands(found))
    target = options.to or found.folder
    if not target.is_dir():
        raise UserError(f"--to {target} is not a folder.")
    for name, text in (("report.html", page.html(content)), ("report.md", page.markdown(content))):
        write_atomic(target / name, text)
        print(target / name)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab report", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's folder, the key at the end of its name, or last")
    parser.add_argument("--to", type=Path, metavar="DIR", help="where to write (the sweep's folder)")
    parser.add_argument("--metric", metavar="VAL", help="the val/* metric that chooses the best")
    parser.add_argument("--baseline", metavar="'model=linear lr=0.01'", help="compare each setting with this one")
    parser.add_argument("--on", metavar="METRIC", help="what is compared with the baseline (the first of test/*)")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def questions(found: Outcome) -> list[str]:
    """The questions of the sweep's experiments, as dl-lab ships them."""
    names = dict.fromkeys(str(record.config.get("experiment", "")) for record in found.records)
    known = [catalogue.experiment(name) for name in names]
    return [experiment.question for experiment in known if experiment and experiment.question]


def commands(found: Outcome) -> list[str]:
    """The sweep's own command, and how to prove one of its jobs."""
    return [found.plan.get("command", ""), f"dl-lab verify {found.records[0].folder}"]
