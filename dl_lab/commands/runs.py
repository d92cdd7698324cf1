"""dl-lab runs: the finished and running runs, newest or best first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from dl_lab import records, tables
from dl_lab.records import Record
from dl_lab.tables import Column


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    found = records.collect(options.outputs)
    if not found:
        print(f"There are no runs under {options.outputs} yet. Make one:  dl-lab")
        return 0
    found = records.sort_by(found, options.sort) if options.sort else found[::-1]
    found = found[: options.limit]
    columns, rows = overview(found, options.sort)
    print(options.format(columns, rows))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab runs", description=__doc__, allow_abbrev=False)
    parser.add_argument("--sort", metavar="METRIC", help="the best by this metric first, e.g. val/accuracy")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N")
    tables.add_options(parser)
    return parser.parse_args(list(argv))


def overview(found: Sequence[Record], sort: str | None) -> tuple[list[Column], list[dict[str, Any]]]:
    """One row a run: what it is, how far it is, the settings that differ, and its metrics."""
    settings = [path for path in records.differing(found) if path not in ("experiment", "dataset", "model")]
    metrics = records.metric_names(found)
    ranks = records.metric_ranks(metrics)
    columns = [
        Column("run", priority=0),
        Column("state", priority=0),
        Column("what", priority=1),
        Column("data", priority=2),
        *tables.setting_columns(settings, records.telling(found), priority=3),
        *(Column(name, priority=0 if name == sort else 2 + ranks[name]) for name in metrics),
        Column("epoch", priority=4),
        Column("took", priority=7),
        Column("started", priority=5),
    ]
    return columns, [{**_about(record), **record.config, **record.metrics} for record in found]


def _about(record: Record) -> dict[str, Any]:
    return {
        "run": record.id,
        "state": record.state,
        "what": record.name,
        "data": record.data,
        "epoch": f"{record.epoch}/{record.epochs}" if record.epochs else None,
        "took": records.duration(record.seconds) if record.seconds is not None else None,
        "started": f"{record.started:%m-%d %H:%M}" if record.started else None,
    }
