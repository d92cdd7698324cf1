"""dl-lab best: the best setting of a sweep; --retrain it over more seeds.

The best is the highest (or lowest) mean over the seeds; test is only shown. --retrain starts a new sweep of it.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from dl_lab import keys, project
from dl_lab.show import tables
from dl_lab.show.options import Parser, add_outputs
from dl_lab.sweeps.plan_file import read_frozen
from dl_lab.sweeps.results import comparison, outcome, prose
from dl_lab.sweeps.results.comparison import Comparison
from dl_lab.sweeps.results.groups import Group, is_seed
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.values import to_word
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab best` and return the exit status."""
    options = parse(argv)
    folder = outcome.find_sweep(options.sweep, options.outputs)
    about = comparison.compare(_choose_block(outcome.read(folder).blocks(), options.data), options.metric)
    best = about.best
    if best is None:
        raise UserError(f"The jobs of {folder} have measured no val/* metric: none can be called the best.")
    words = retrain_words(about, best, options.retrain or [])
    if options.outputs != project.outputs() and not any(word.startswith("paths.output_dir=") for word in words):
        words.append(to_word("paths.output_dir", str(options.outputs)))
    print("\n".join(lines(about, best, tables.terminal_width())))
    if not options.retrain:
        print(f"\nMore seeds of it:  {shlex.join(['dl-lab', 'best', str(folder)])} --retrain seed=0,1,2,3,4")
        return 0
    refuse_changed_configs(about, best)
    print(f"\nRetraining:  dl-lab -m {shlex.join(words)}\n", flush=True)
    from dl_lab.sweeps.start import start

    return start(words)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab best", description=summary, epilog=details)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's folder, the key at the end of its name, or last")
    parser.add_argument("--metric", metavar="VAL", help="the val/* metric to choose by (what the trainer watches)")
    parser.add_argument("--data", metavar="NAME", help="of a sweep over several data sets: the one that counts")
    parser.add_argument("--retrain", nargs="+", metavar="key=value", help="run it again, e.g. with seed=0,1,2,3,4")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _choose_block(blocks: Sequence[Outcome], data: str | None) -> Outcome:
    """Return the jobs on one data set.

    Raises:
        UserError: The jobs are on several data sets, and the user has not chosen one of them.
    """
    names = [block.records[0].data for block in blocks]
    found = [block for block, name in zip(blocks, names, strict=True) if data in (None, name, name.partition(" ")[0])]
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"The jobs of this sweep are on {', '.join(names)}: results on different data are not ranked together. "
        "Choose with --data NAME."
    )


def lines(about: Comparison, best: Group, width: int) -> list[str]:
    """Describe the best setting: the metric that chose it, its figures and its runs."""
    shown: list[str] = []
    for sentence in prose.sentences(about):
        if not sentence.startswith("Warning"):
            shown += tables.wrap(sentence, width, "  ")
    columns, rows = comparison.metric_rows(about, best)
    runs = [f"  seed {record.config['seed']}  {record.folder}" for record in best.records]
    return [*shown, "", tables.text(columns, rows, width, rule=True), "", *runs]


def retrain_words(about: Comparison, best: Group, given: Sequence[str]) -> list[str]:
    """Return the words of the command line that runs the best setting again.

    Seeds and the folds of a cross-validation repeat a setting. They belong to its single jobs, so their words are left
    out. A word that the user gives replaces the sweep's word of the same key.
    """
    fixed, varied = overrides(about, best)
    words = list(fixed)
    for word in varied:
        key = keys.of_word(word)
        if key not in best.over and not is_seed(key):
            words.append(word)
    given_keys = {keys.of_word(word) for word in given}
    return [*(word for word in words if keys.of_word(word) not in given_keys), *given]


def overrides(about: Comparison, best: Group) -> tuple[list[str], list[str]]:
    """Return the words of the best setting's first job without its seed: those of all jobs, and its own."""
    jobs = {f"{job['number']}_{job['id']}": job["overrides"] for job in about.outcome.plan["jobs"]}
    fixed = about.outcome.plan.get("fixed", [])
    varied = jobs[best.records[0].folder.name]
    of_all = [word for word in fixed if not word.startswith(DROPPED)]
    own = [word for word in varied if not word.startswith(DROPPED)]
    return of_all, own


DROPPED = ("seed=", "sweep=", "hydra.", "paths.output_dir=")  # what belongs to the sweep or to one job


def refuse_changed_configs(about: Comparison, best: Group) -> None:
    """Refuse a retraining whose words now mean another config than the frozen one of the sweep.

    Raises:
        UserError: A shipped or own config has changed since the sweep.
    """
    from dl_lab import configs
    from dl_lab.configs.identity import relevant
    from dl_lab.runs.settings import settings

    record = best.records[0]
    number = int(record.folder.name.partition("_")[0])
    frozen = {number: entry["config"] for number, entry in read_frozen(about.outcome.folder).items()}
    if number not in frozen:
        return
    seed = f"seed={record.config['seed']}"
    before = relevant(frozen[number])
    fixed, varied = overrides(about, best)
    now = relevant(configs.Composer().compose([*fixed, *varied, seed]).config)
    if configs.key_of(before) != configs.key_of(now):
        old_settings = settings(before)
        new_settings = settings(now)
        paths = dict.fromkeys([*old_settings, *new_settings])
        changed = [path for path in paths if old_settings.get(path) != new_settings.get(path)]
        raise UserError(
            f"The configs have changed since this sweep ({', '.join(changed[:5]) or 'a class'}): retraining would run "
            "something else. Start it yourself if that is meant:  dl-lab -m ..."
        )
