"""dl-lab compare: runs side by side: the settings that differ and the results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from dl_lab import records, tables
from dl_lab.records import Record
from dl_lab.tables import Column


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
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


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab compare", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run's id or folder, a sweep's folder, or last; none: all runs",
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best by this metric first, e.g. val/accuracy")
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
