"""dl-lab runs: the finished and running runs, newest or best first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dl_lab.runs import records
from dl_lab.runs.find import no_runs, short_name
from dl_lab.runs.records import Record
from dl_lab.show import tables
from dl_lab.show.options import Parser
from dl_lab.show.tables import Column


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab runs` and return the exit status."""
    options = parse(argv)
    found = records.collect(options.outputs)
    if not found:
        print(no_runs(options.outputs))
        return 0
    found = records.sort_by(found, options.sort) if options.sort else found[::-1]
    found = found[: options.limit]
    columns, rows = short(found, options.sort) if options.format is tables.text else overview(found, options.sort)
    print(options.format(columns, rows))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="dl-lab runs", description=__doc__)
    parser.add_argument("--sort", metavar="METRIC", help="the best by this metric first, e.g. val/accuracy")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N")
    tables.add_options(parser)
    return parser.parse_args(list(argv))


def short(found: Sequence[Record], sort: str | None) -> tuple[list[Column], list[dict[str, object]]]:
    """Return the columns and one row a run for a terminal: a few facts, and the settings that differ as words.

    The monitored metric has a column where all runs monitor the same one. Else its name stands beside its value.
    """
    monitored = {record.monitored for record in found} - {""}
    metrics = [sort] if sort else []
    if len(monitored) == 1:
        metrics += monitored - set(metrics)
    keys = _shortest([_sweep(record) for record in found])
    words = _setting_words(found)
    rows: list[dict[str, object]] = []
    for record in found:
        what = f"{_title(record)} {words[record.folder]}".strip()
        if record.label in ("part", "generated"):
            what += f" ({record.label})"
        if record.monitored and record.monitored not in metrics:
            what += f": {record.monitored} {tables.cell(record.metrics[record.monitored])}"
        row = {**_about(record), "sweep": keys[_sweep(record)], "what": what}
        row |= {name: record.metrics.get(name) for name in metrics}
        if record.state == "done":
            row["epoch"] = None
        rows.append(row)
    columns = [
        Column("run", priority=0),
        Column("state", priority=0),
        Column("started", priority=1),
        Column("took", priority=3),
        Column("epoch", priority=4),
        Column("sweep", priority=2),
        *(Column(name, priority=0) for name in metrics),
        Column("what", priority=0, folds=True),
    ]
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)], rows


def _sweep(record: Record) -> str:
    """Return the short name of the sweep to which a run belongs; "" for a run of its own."""
    parent = record.folder.parent
    return short_name(parent) if (parent / "sweep.yaml").is_file() else ""


def _title(record: Record) -> str:
    """Return the experiment; where none was chosen, "mlp on digits" or the procedure."""
    if "experiment" in record.config:
        return record.name
    parts = [str(record.config[key]) for key in ("model", "dataset") if key in record.config]
    return " on ".join(parts) or record.name


def _shortest(keys: Sequence[str]) -> dict[str, str | None]:
    """Map each key to its first characters: as many as tell the keys apart, and at least 5."""
    different = set(keys)
    n = 5
    while len({key[:n] for key in different}) < len(different):
        n += 1
    return {key: key[:n] or None for key in different}


def _setting_words(found: Sequence[Record]) -> dict[Path, str]:
    """Map the folder of each run to the settings in which the runs of its experiment differ: "lr=0.01 seed=1".

    The settings that a command line gave are always among them. Others are added only where those leave two runs alike.
    """
    alike: dict[str, list[Record]] = {}
    for record in found:
        alike.setdefault(_title(record), []).append(record)
    words = {}
    for members in alike.values():
        shown = records.telling(members)
        for path in records.differing(members):
            if _n_different(members, [*shown, path]) > _n_different(members, shown):
                shown.append(path)
        for record in members:
            own = {path: record.config[path] for path in shown if path in record.config}
            words[record.folder] = tables.setting_words(own)
    return words


def _n_different(found: Sequence[Record], paths: Sequence[str]) -> int:
    return len({repr([record.config.get(path) for path in paths]) for record in found})


def overview(found: Sequence[Record], sort: str | None) -> tuple[list[Column], list[dict[str, object]]]:
    """Return the columns and one row a run: its name, its state, the settings that differ, and its metrics."""
    settings = [path for path in records.differing(found) if path not in ("experiment", "dataset", "model")]
    metrics = records.metric_names(found)
    ranks = records.metric_ranks(metrics)
    columns = [
        Column("run", priority=0),
        Column("state", priority=0),
        Column("sweep", priority=5),
        Column("what", priority=1),
        Column("data", priority=2),
        *tables.setting_columns(settings, records.telling(found), priority=3),
        *(Column(name, priority=0 if name == sort else 2 + ranks[name]) for name in metrics),
        Column("epoch", priority=4),
        Column("took", priority=7),
        Column("started", priority=5),
    ]
    return columns, [{**_about(record), **record.config, **record.metrics} for record in found]


def _about(record: Record) -> dict[str, object]:
    return {
        "run": record.id,
        "state": record.state,
        "sweep": _sweep(record) or None,
        "what": record.name,
        "data": record.data,
        "epoch": f"{record.epoch}/{record.epochs}" if record.epochs else None,
        "took": records.duration(record.seconds) if record.seconds is not None else None,
        "started": f"{record.started:%m-%d %H:%M}" if record.started else None,
    }
