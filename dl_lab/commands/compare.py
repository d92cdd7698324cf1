"""dl-lab compare: runs side by side, or a sweep's settings over seeds.

Of a sweep: mean, standard deviation and 95 % interval over the seeds, the best by a val/* metric, and a paired
comparison with a baseline. Of other runs: only the settings that differ, and what came out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_lab import records, tables
from dl_lab.records import Record
from dl_lab.tables import Column
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    sweep = _the_sweep(options)
    if sweep is not None:
        return _show_sweep(sweep, options)
    found = records.collect(options.outputs, options.runs)
    if not found:
        print(f"There are no runs under {options.outputs} yet. Make one:  dl-lab")
        return 0
    if options.sort:
        found = records.sort_by(found, options.sort)
    columns, rows = differences(found, options.sort)
    print(options.format(columns, rows))
    if options.format is tables.text and len(found) > 1:
        print("\n".join(["", *tables.wrapped(f"The same in all: {_shared(found)}", tables.terminal_width())]))
    return 0


def _the_sweep(options: argparse.Namespace) -> Path | None:
    """The one sweep named, by its folder or its key; None for anything else."""
    sweep = None
    if len(options.runs) == 1 and not options.each and options.runs[0] != "last":
        name = Path(options.runs[0])
        keys = [path.parent.name.partition("_")[2] for path in options.outputs.glob("sweeps/*/*/sweep.yaml")]
        if (name / "sweep.yaml").is_file() or any(key.startswith(str(name)) for key in keys):
            from dl_lab.sweeps import outcome

            sweep = outcome.find_sweep(str(name), options.outputs)
    for flag in ("baseline", "metric", "on"):
        if sweep is None and getattr(options, flag) is not None:
            raise UserError(f"--{flag} needs a sweep: give its folder, e.g. outputs/sweeps/DATE/TIME_KEY.")
    return sweep


def _show_sweep(folder: Path, options: argparse.Namespace) -> int:
    from dl_lab.sweeps import comparison, outcome

    about = comparison.compare(outcome.read(folder), options.metric, options.baseline, options.on)
    if options.format is tables.text:
        print(comparison.text(about, tables.terminal_width()))
    else:
        view = comparison.pretty if options.format is tables.markdown else comparison.plain
        print(options.format(*view(about)))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab compare", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run's id or folder, a sweep's folder, or last; none: all runs",
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best by this metric first, e.g. val/accuracy")
    parser.add_argument("--each", action="store_true", help="of a sweep: every job by itself, not over seeds")
    parser.add_argument("--metric", metavar="VAL", help="of a sweep: the val/* metric that chooses the best")
    parser.add_argument("--baseline", metavar="'model=linear lr=0.01'", help="of a sweep: compare each setting with it")
    parser.add_argument("--on", metavar="METRIC", help="what is compared with the baseline (the first of test/*)")
    tables.add_options(parser)
    return parser.parse_args(list(argv))


def differences(found: Sequence[Record], sort: str | None) -> tuple[list[Column], list[dict[str, Any]]]:
    """One row a run: the settings that differ between them, and the metrics that do."""
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
    about = [{"run": r.id, "state": r.state, "data": r.data, **r.config, **r.metrics} for r in found]
    return columns, about


def _shared(found: Sequence[Record]) -> str:
    first, differing = found[0], set(records.differing(found))
    same = [
        f"{path} {first.config[path]}"
        for path in (*records.CHOICES, "seed")
        if path in first.config and path not in differing
    ]
    return ", ".join(same) + "." if same else "nothing."
