"""dl-lab reproduce: run an experiment and judge it by its reference figures.

Exit status: 0 all reached, 1 one falls short or the data are not the full official ones, 2 wrong input.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab import config as configs
from dl_lab import tables
from dl_lab.commands import train
from dl_lab.judge import Verdict, judge
from dl_lab.tables import Column
from dl_lab.types import ConfigError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    overrides = [f"experiment={options.experiment}", *options.overrides]
    composed = configs.Composer(options.config_dir).compose(overrides)
    reference = composed.config.get("reference")
    if not reference:
        raise ConfigError(
            f"{options.experiment} names no reference figure (reference:): there is nothing to judge it by."
        )
    run = train.prepare(composed, ["dl-lab", "reproduce", *argv])
    metrics = train.perform(run, composed.choices)
    verdicts, data = judge(metrics, reference), run.summary.get("dataset") or {}
    print("\n" + verdict_table(verdicts))
    problems = shortcomings(verdicts, data)
    print(
        "\n"
        + "\n".join(problems or [f"{options.experiment} is reproduced: {len(verdicts)} of {len(verdicts)} figures."])
    )
    return 1 if problems else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, statuses = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab reproduce", description=summary, epilog=statuses, allow_abbrev=False)
    parser.add_argument("experiment", metavar="EXPERIMENT", help="see dl-lab list")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as when training, e.g. seed=1")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    return parser.parse_intermixed_args(list(argv))


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Measured beside the reference, and each figure's source below."""
    words = {"max": "at least", "min": "at most", "equal": "equal"}
    rows = [
        {
            "metric": verdict.metric,
            "measured": verdict.measured,
            "reference": f"{words[verdict.mode]} {tables.number(verdict.published)}",
            "tolerance": verdict.tolerance,
            "verdict": "pass" if verdict.passed else "FAIL" if verdict.measured is not None else "FAIL (not measured)",
        }
        for verdict in verdicts
    ]
    lines = [tables.text([Column(key, priority=0) for key in rows[0]], rows)]
    for source in dict.fromkeys(verdict.source for verdict in verdicts if verdict.source):
        about = [verdict.metric for verdict in verdicts if verdict.source == source]
        lines += tables.wrapped(f"{', '.join(about)}: {source}", tables.terminal_width(), indent="  ")
    return "\n".join(lines)


def shortcomings(verdicts: Sequence[Verdict], data: Mapping[str, Any]) -> list[str]:
    """Why this does not count as reproduced, a sentence each."""
    failed = [verdict.metric for verdict in verdicts if not verdict.passed]
    found = [f"Not reproduced: {', '.join(failed)} (out of the reference's tolerance)."] if failed else []
    if data and data["label"] != "full":
        kind = "generated" if data["label"] == "generated" else f"only a part ({data['note']})"
        found.append(f"The reference figures do not apply: the data are {kind}, not the full official {data['name']}.")
    return found
