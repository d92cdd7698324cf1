"""dl-lab best: the best setting of a sweep; --retrain it over more seeds.

The best is the highest (or lowest) mean over the seeds; test is only shown. --retrain starts a new sweep of it.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from dl_lab import tables
from dl_lab.run import read_records
from dl_lab.sweeps import comparison, outcome
from dl_lab.sweeps.comparison import Comparison
from dl_lab.sweeps.outcome import Group
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    folder = outcome.find_sweep(options.sweep, options.outputs)
    about = comparison.compare(outcome.read(folder), options.metric)
    best = about.best
    if best is None:
        raise UserError(f"The jobs of {folder} have measured no val/* metric: none can be called the best.")
    words = [*overrides(about, best), *(options.retrain or [])]
    print("\n".join(lines(about, best, tables.terminal_width())))
    if not options.retrain:
        print(f"\nMore seeds of it:  dl-lab best {options.sweep} --retrain seed=0,1,2,3,4")
        return 0
    refuse_changed_configs(about, best)
    print(f"\nRetraining:  dl-lab -m {shlex.join(words)}\n", flush=True)
    from dl_lab.commands import sweep

    return sweep.main(words)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab best", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's folder, the key at the end of its name, or last")
    parser.add_argument("--metric", metavar="VAL", help="the val/* metric to choose by (what the trainer watches)")
    parser.add_argument("--retrain", nargs="+", metavar="key=value", help="run it again, e.g. with seed=0,1,2,3,4")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def lines(about: Comparison, best: Group, width: int) -> list[str]:
    """Which it is, by what, its figures, its runs."""
    found = [line for line in comparison.sentences(about) if not line.startswith("Warning")]
    shown = [line for sentence in found for line in tables.wrapped(sentence, width, "  ")]
    columns, rows = comparison.metric_rows(about, best)
    runs = [f"  seed {record.config['seed']}  {record.folder}" for record in best.records]
    return [*shown, "", tables.text(columns, rows, width, rule=True), "", *runs]


def overrides(about: Comparison, best: Group) -> list[str]:
    """The command line that gives the best setting, without its seed."""
    jobs = {f"{job['number']}_{job['id']}": job["overrides"] for job in about.outcome.plan["jobs"]}
    varied = jobs[best.records[0].folder.name]
    words = [*about.outcome.plan.get("fixed", []), *varied]
    return [word for word in words if not word.startswith(("seed=", "sweep=", "hydra.", "paths.output_dir="))]


def refuse_changed_configs(about: Comparison, best: Group) -> None:
    """Raises UserError where the same words now mean another config than the sweep's frozen one."""
    from dl_lab import config as configs
    from dl_lab.records import settings
    from dl_lab.sweeps.identity import relevant

    record = best.records[0]
    number = int(record.folder.name.partition("_")[0])
    frozen = {entry["number"]: entry["config"] for entry in read_records(about.outcome.folder / "configs.jsonl")}
    if number not in frozen:
        return
    seed = f"seed={record.config['seed']}"
    before = relevant(frozen[number])
    now = relevant(configs.Composer().compose([*overrides(about, best), seed]).config)
    if configs.key_of(before) != configs.key_of(now):
        one, other = settings(before), settings(now)
        changed = [path for path in dict.fromkeys([*one, *other]) if one.get(path) != other.get(path)]
        raise UserError(
            f"The configs have changed since this sweep ({', '.join(changed[:5]) or 'a class'}): retraining would run "
            "something else. Start it yourself if that is meant:  dl-lab -m ..."
        )
