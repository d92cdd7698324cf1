"""dl-lab compare: runs side by side, or a sweep's settings over seeds.

Of a sweep: mean, standard deviation and 95 % interval over the seeds (and folds, with --over fold), the best by a val/*
metric, parameters and time, and a paired comparison with a baseline. Of other runs: only the settings that differ, and
what came out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dl_lab import keys
from dl_lab.runs import records
from dl_lab.runs.find import find_run, no_runs
from dl_lab.runs.records import Record
from dl_lab.show import tables
from dl_lab.show.options import Parser
from dl_lab.show.tables import Column
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab compare` and return the exit status."""
    options = parse(argv)
    sweeps = _find_sweeps(options)
    if sweeps and not options.each:
        return _show_sweeps(sweeps, options)
    _refuse_flags_of_sweeps(options)
    names = [str(sweeps.get(name, name)) for name in options.runs]
    found = records.collect(options.outputs, names)
    if not found:
        print(no_runs(options.outputs))
        return 0
    if options.sort:
        found = records.sort_by(found, options.sort)
    columns, rows = differences(found, options.sort)
    print(options.format(columns, rows))
    if options.format is tables.text and len(found) > 1:
        same = f"The same in all: {_describe_shared(found)}"
        print("\n".join(["", *tables.wrap(same, tables.terminal_width())]))
    return 0


def _find_sweeps(options: argparse.Namespace) -> dict[str, Path]:
    """Map the names that are sweeps to the folders of these sweeps."""
    if not options.runs:
        return {}
    from dl_lab.sweeps.results import outcome

    return {name: found for name in options.runs if (found := outcome.find_sweep_or_none(name, options.outputs))}


def _refuse_flags_of_sweeps(options: argparse.Namespace) -> None:
    for flag in ("baseline", "metric", "on", "over"):
        if getattr(options, flag) not in (None, []):
            raise UserError(f"--{flag} needs a sweep: give its folder, e.g. outputs/sweeps/DATE/TIME_KEY.")


def _show_sweeps(sweeps: dict[str, Path], options: argparse.Namespace) -> int:
    from dl_lab.sweeps.results import comparison, outcome, prose

    singles = [find_run(name, options.outputs) for name in options.runs if name not in sweeps]
    found = outcome.read_several(list(sweeps.values()), singles, options.over)
    abouts = [comparison.compare(block, options.metric, options.baseline, options.on) for block in found.blocks()]
    if options.format is tables.text:
        print(prose.text_of_all(abouts, tables.terminal_width()))
        return 0
    view = comparison.pretty if options.format is tables.markdown else comparison.plain
    columns: dict[str, Column] = {"data": Column("data")} if len(abouts) > 1 else {}
    rows = []
    for about in abouts:
        own, more = view(about)
        columns |= {column.key: column for column in own}
        rows += [{"data": about.outcome.records[0].data, **row} for row in more]
    print(options.format(list(columns.values()), rows))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab compare", description=summary, epilog=details)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="runs and sweeps by id, key or folder; last: the newest run, or the sweep it belongs to; none: all runs",
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best by this metric first, e.g. val/accuracy")
    parser.add_argument("--each", action="store_true", help="of a sweep: every job by itself, not over seeds")
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY",
        help="of a sweep: this key's values are repetitions, like seeds (fold); may be given again",
    )
    parser.add_argument("--metric", metavar="VAL", help="of a sweep: the val/* metric that chooses the best")
    parser.add_argument("--baseline", metavar="'model=linear lr=0.01'", help="of a sweep: compare each setting with it")
    parser.add_argument("--on", metavar="METRIC", help="what is compared with the baseline (the first of test/*)")
    tables.add_options(parser)
    return parser.parse_args(list(argv))


def differences(found: Sequence[Record], sort: str | None) -> tuple[list[Column], list[dict[str, object]]]:
    """Return the columns and one row a run: the settings and the metrics that differ between the runs."""
    metrics = [name for name in records.metric_names(found) if name == sort or records.varies(found, name)]
    columns = [Column("run", priority=0)]
    if {record.state for record in found} != {"done"}:
        columns.append(Column("state", priority=1))
    settings = [path for path in records.differing(found) if path != "dataset"]
    columns += tables.setting_columns(settings, records.telling(found), priority=1)
    if len({record.data for record in found}) > 1 or any(record.label in ("part", "generated") for record in found):
        columns.append(Column("data", priority=0))
    ranks = records.metric_ranks(metrics)
    columns += [Column(name, priority=0 if name == sort else 2 * ranks[name]) for name in metrics]
    if len({record.parameters for record in found}) > 1:
        columns.append(Column("parameters", priority=2))
    if len(found) > 1 and any(record.seconds is not None for record in found):
        columns.append(Column("seconds", priority=2))
    rows: list[dict[str, object]] = []
    for record in found:
        seconds = None if record.seconds is None else round(record.seconds)
        row = {"run": record.id, "state": record.state, "data": record.data, **record.config, **record.metrics}
        rows.append({**row, "parameters": record.parameters, "seconds": seconds})
    return columns, rows


def _describe_shared(found: Sequence[Record]) -> str:
    """Name the chosen parts and the seed that are the same in all runs."""
    config = found[0].config
    differing = set(records.differing(found))
    same = [path for path in (*keys.choices(), "seed") if path in config and path not in differing]
    return ", ".join(f"{path} {config[path]}" for path in same) + "." if same else "nothing."
