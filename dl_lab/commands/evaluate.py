"""dl-lab evaluate: judge a finished run on its test split, or on other data.

The model's trained weights judge one split: of the run's own data set, of the same data set with other settings
(dataset.key=value), or of another data set (dataset=NAME). The result is added to evaluations.jsonl in the run's
folder. A look at a test split is counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dl_lab.runs.find import find_run
from dl_lab.show import tables
from dl_lab.show.options import Parser, add_outputs


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab evaluate` and return the exit status."""
    from dl_lab.jobs.evaluation import evaluate

    options = parse(argv)
    folder = find_run(options.run, options.outputs)
    metrics = evaluate(folder, options.overrides, options.split, options.weights)
    width = max(map(len, metrics))
    print("\n".join(tables.wrap(f"{folder}, judged on {options.split}:", tables.terminal_width(), "  ")))
    for name, value in metrics.items():
        print(f"  {name:<{width}}  {value:.6g}")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab evaluate", description=summary, epilog=more)
    parser.add_argument("run", metavar="RUN", help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the data set: dataset=NAME, dataset.k=v")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="the split (%(default)s)")
    parser.add_argument("--weights", choices=("best", "last"), help="which weights (those of the run's own test)")
    add_outputs(parser)
    return parser.parse_intermixed_args(list(argv))
