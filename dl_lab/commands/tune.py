"""dl-lab tune: measure what is fastest here for a job, and use it from now on.

It trains and evaluates the job for about a minute with other settings in turn: threads, evaluation batch, memory
format, precision, torch.compile, where the data reside, lanes of a sweep. It never looks at test data.

Settings that change no bit of a result are written to local.yaml in your folder of dl-lab (~/.config/dl-lab, or below
XDG_CONFIG_HOME). dl-lab uses them for this kind of job on this machine, and says so. A setting that you type replaces
them. Settings that change results are only advised.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from dl_lab import configs
from dl_lab.runs import local
from dl_lab.show import tables
from dl_lab.show.options import Parser
from dl_lab.show.tables import Column
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from dl_lab.jobs.tuning.findings import Found, Row

LEAST_SECONDS = 10.0
COLUMNS = [
    Column("setting", priority=0),
    Column("samples", "samples/s", priority=0),
    Column("ratio", priority=0),
    Column("range", priority=3),
    Column("memory", "MB", priority=2),
    Column("results", priority=0),
    Column("verdict", priority=0),
]


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab tune` and return the exit status."""
    options = parse(argv)
    if options.forget:
        print(f"{local.path()} is deleted." if local.forget() else "There is nothing to forget.")
        return 0
    if not LEAST_SECONDS <= options.seconds < float("inf"):
        raise ConfigError(f"--seconds {options.seconds:g} is too short: give at least {LEAST_SECONDS:g}.")
    local.find("")  # refuses a file that cannot be read now, not after a minute

    from dl_lab.jobs.tuning.tune import Tuning

    composer = configs.Composer(options.config_dir, options.config_name)
    tuning = Tuning(composer, options.overrides, options.seconds, lambda text: print(text, file=sys.stderr))
    found = tuning.run()
    print(tables.text(COLUMNS, [_cells(row) for row in found.rows], whole="a wider terminal"))
    print()
    print("\n".join(_conclusions(found)))
    if options.dry_run:
        print("Nothing is written (--dry-run).")
        return 0
    job = " ".join(options.overrides) or "the default job"
    from dl_lab.runs.files import now

    before = local.find(found.key)
    if found.is_clear or found.winner:
        local.keep(found.key, local.Entry(job, now()[:10], found.winner))
    print(_say_written(found, before))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab tune", description=summary, epilog=details)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="the job, as when training")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long it measures (60)")
    parser.add_argument("--dry-run", action="store_true", help="measure and print, write nothing")
    parser.add_argument("--forget", action="store_true", help="delete local.yaml: every job runs as it is again")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    parser.add_argument("--config-name", "-cn", default="config", metavar="NAME", help="another main config")
    return parser.parse_intermixed_args(list(argv))


def _cells(row: Row) -> dict[str, object]:
    ratio = ""
    low = ""
    high = ""
    if row.verdict:
        ratio = f"{median(row.ratios):.2f}"
        low = f"{min(row.ratios):.2f}"
        high = f"{max(row.ratios):.2f}"
    return {
        "setting": row.name,
        "samples": f"{row.speed:,.0f}" if row.speed else "",
        "ratio": ratio,
        "range": f"{low}–{high}" if low != high else "",
        "memory": f"{row.memory / 1e6:,.0f}" if row.memory else "",
        "results": row.changes if row.settings else "",
        "verdict": "not measured" if row.problem else row.verdict,
    }


def _conclusions(found: Found) -> list[str]:
    """Say what the table means, a sentence a line."""
    lines = []
    for part, n_rounds in found.n_rounds.items():
        lines.append(f"{part}: {n_rounds} rounds; the same setting differed from itself by {found.noise[part]:.0%}.")
    if not found.is_clear:
        n_unclear, n_measured = found.unclear
        which = f"{n_unclear} of {n_measured} settings" if n_unclear else "the training"
        lines.append(f"Too noisy or too short to tell: {which}. Stop other work, or add --seconds.")
    lines += [f"{row.name} is not measured: {row.problem.rstrip('.')}." for row in found.rows if row.problem]
    for row in found.rows:
        if row.verdict == "faster" and not row.is_winner:
            ratio = median(row.ratios)
            why = "it changes results" if row.difference else "it counts as another setting of the job"
            lines.append(f"Advice: {row.name} is {ratio:.2f} times as fast. {why.capitalize()}: choose it yourself.")
    return lines


def _say_written(found: Found, before: dict[str, object]) -> str:
    if found.winner:
        settings = " ".join(f"{key}={value}" for key, value in found.winner.items())
        return f"From now on dl-lab uses {settings} for this kind of job. It is in {local.path()}."
    if not found.is_clear:
        return "Nothing is changed."
    if before:
        return f"The job is fastest as it is: its entry in {local.path()} is removed."
    return "The job is fastest as it is, among the settings that change no result. Nothing is written."
