"""dl-lab reproduce: run an experiment and judge it by its reference figures.

With --all it runs every experiment that has such figures, each in a process of its own; --missing leaves out those that
are done, and resumes those that were stopped. Missing data are downloaded first. Exit status: 0 all figures reached,
1 one falls short or the data are not the full official ones, 2 wrong input.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from dl_lab import configs
from dl_lab.configs import catalogue
from dl_lab.jobs import reproduction
from dl_lab.jobs.reproduction import Item
from dl_lab.runs import records
from dl_lab.runs.records import Record
from dl_lab.show import tables
from dl_lab.show.judge import Verdict, judge
from dl_lab.show.options import Parser, add_outputs
from dl_lab.show.tables import Column
from dl_lab.types import ConfigError, Interrupted


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab reproduce` and return the exit status."""
    options = parse(argv)
    return reproduce_all(options) if options.all else reproduce(options, argv)


def reproduce(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run one experiment and judge it. Return the exit status."""
    from dl_lab.jobs.one import perform, prepare

    overrides = [f"experiment={options.experiment}", *options.overrides]
    composed = configs.Composer(options.config_dir).compose(overrides)
    configs.refuse_unread(composed.unread)
    reference = composed.config.get("reference")
    if not reference:
        raise ConfigError(
            f"{options.experiment} names no reference figure (reference:): there is nothing to judge it by."
        )
    run = prepare(composed, ["dl-lab", "reproduce", *argv])
    metrics = perform(run, composed.choices)
    verdicts = judge(metrics, reference)
    print("\n" + verdict_table(verdicts))
    problems = find_shortcomings(verdicts, run.summary.get("dataset") or {})
    success = f"{options.experiment} is reproduced: {len(verdicts)} of {len(verdicts)} figures."
    print("\n" + "\n".join(problems or [success]))
    return 1 if problems else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, statuses = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab reproduce", description=summary, epilog=statuses)
    parser.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="see dl-lab list")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as when training, e.g. seed=1")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    parser.add_argument("--all", action="store_true", help="every experiment that has published figures")
    parser.add_argument("--missing", action="store_true", help="with --all: only those without a finished run")
    parser.add_argument("--dry-run", action="store_true", help="with --all: show what would be fetched and run")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="with --all: N seeds, from the experiment's own on (1)"
    )
    add_outputs(parser)
    options = parser.parse_intermixed_args(list(argv))
    if options.all:
        options.overrides = [word for word in (options.experiment, *options.overrides) if word is not None]
        _refuse_names(options.overrides)
    else:
        _refuse_flags_of_all(options)
    if options.seeds < 1:
        raise ConfigError(f"--seeds {options.seeds} is not at least 1.")
    return options


def _refuse_names(overrides: Sequence[str]) -> None:
    for word in overrides:
        if "=" not in word:
            raise ConfigError(f"--all runs every experiment: leave out {word}, or leave out --all.")
        if word.startswith(("seed=", "experiment=")):
            raise ConfigError(f"--all runs every experiment with its own seed: leave out {word} (see --seeds).")


def _refuse_flags_of_all(options: argparse.Namespace) -> None:
    if options.experiment is None:
        raise ConfigError("Name an experiment (see dl-lab list), or give --all.")
    given = {"--missing": options.missing, "--dry-run": options.dry_run, "--seeds": options.seeds != 1}
    for flag, is_given in given.items():
        if is_given:
            raise ConfigError(f"{flag} needs --all.")


# -- every experiment -------------------------------------------------------------------------------------------------


def reproduce_all(options: argparse.Namespace) -> int:
    """Download the data of every published experiment, run it, and show the results. Return the exit status."""
    names = [entry.name for entry in catalogue.experiments(options.config_dir) if entry.reference]
    composer = configs.Composer(options.config_dir)

    def plan(found: Sequence[Record]) -> list[Item]:
        return reproduction.plan(composer, names, found, options.overrides, options.seeds)

    items = plan(records.collect(options.outputs) if options.missing else [])
    print(plan_table(items))
    if options.dry_run:
        return 0
    flags = ["--config-dir", options.config_dir] if options.config_dir else []
    todo = [item for item in items if item.step in ("run", "resume")]
    for number, item in enumerate(todo, 1):
        print(f"\n[{number} of {len(todo)}] dl-lab {' '.join(item.command)}", flush=True)
        if reproduction.perform(item, flags) == Interrupted.exit_code:
            raise Interrupted("Interrupted. The same command with --missing continues.")
    outcome, n_short = outcome_table(plan(records.collect(options.outputs)))
    print(f"\n{outcome}")
    return 1 if n_short else 0


def plan_table(items: Sequence[Item]) -> str:
    """Return a table of the runs: which are done, what each one needs, and which cannot run here."""
    rows: list[dict[str, object]] = []
    for item in items:
        row = {"experiment": item.experiment, "seed": item.seed, "step": item.step, "data": _data_words(item)}
        rows.append({**row, "run": str(item.record.folder) if item.record else ""})
    columns = [Column("experiment", priority=0), Column("seed", priority=1), Column("step", priority=0)]
    columns += [Column("data", "data to get", priority=0), Column("run", priority=2)]
    table = tables.text(columns, rows, rule=True, whole="a wider terminal")
    return f"{table}\n\n{_count(items)}"


def _data_words(item: Item) -> str:
    """Name the files and weights that a run needs and does not have yet."""
    parts = [f"{file.path} ({_megabytes(file.size)})" if file.size else file.path for file, _ in item.to_fetch]
    if item.weights:
        parts.append(f"ImageNet weights of {item.weights}")
    if item.by_hand:
        parts.append(f"by hand: {', '.join(item.by_hand)}")
    return "; ".join(parts)


def _count(items: Sequence[Item]) -> str:
    """Count the runs by their steps, and the files to download."""
    steps = [item.step for item in items]
    counts = ", ".join(f"{steps.count(step)} {words}" for step, words in STEPS.items() if step in steps)
    sentences = [f"{_plural(len(items), 'run')}: {counts}."]
    sizes = {}
    for item in items:
        sizes |= {file.path: file.size or 0 for file, _ in item.to_fetch}
    if sizes:
        known = f", {_megabytes(sum(sizes.values()))}" if all(sizes.values()) else " (not every size is known)"
        sentences.append(f"To download: {_plural(len(sizes), 'file')}{known}.")
    weights = sorted({item.weights for item in items if item.weights})
    if weights:
        sentences.append(f"The runs themselves download the ImageNet weights of {', '.join(weights)}.")
    lines: list[str] = []
    for sentence in sentences:
        lines += tables.wrap(sentence, tables.terminal_width())
    return "\n".join(lines)


def _plural(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{n} {noun}s"


STEPS = {
    "done": "done",
    "running": "running now",
    "resume": "to resume",
    "run": "to run",
    "lacks data": "without data that can be downloaded",
}


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes >= 5e5 else f"{n_bytes / 1e3:,.0f} kB"


def outcome_table(items: Sequence[Item]) -> tuple[str, int]:
    """Return a table of the figures that each run reaches, and the number of runs that fall short or are not done."""
    rows: list[dict[str, object]] = []
    n_short = 0
    for item in items:
        row = {"experiment": item.experiment, "seed": item.seed, "figures": "not run", "data": "", "run": ""}
        reached = False
        if item.record is not None and item.step == "done":
            verdicts = judge(dict(item.record.metrics), item.record.reference)
            n_passed = sum(verdict.passed for verdict in verdicts)
            label = item.record.label or "no data"
            reached = n_passed == len(verdicts) and label not in ("part", "generated")
            row |= {"figures": f"{n_passed} of {len(verdicts)}", "data": label, "run": str(item.record.folder)}
        n_short += not reached
        rows.append(row)
    columns = [Column("experiment", priority=0), Column("seed", priority=1), Column("figures", priority=0)]
    columns += [Column("data", priority=0), Column("run", priority=2)]
    words = f"{len(items) - n_short} of {len(items)} runs reach all their published figures on the full data."
    return f"{tables.text(columns, rows, rule=True, whole='a wider terminal')}\n\n{words}", n_short


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return a table of measured and published figures, with the source of each figure below."""
    rows = [_row(verdict) for verdict in verdicts]
    lines = [tables.text([Column(key, priority=0) for key in rows[0]], rows)]
    for source in dict.fromkeys(verdict.source for verdict in verdicts if verdict.source):
        about = [verdict.metric for verdict in verdicts if verdict.source == source]
        lines += tables.wrap(f"{', '.join(about)}: {source}", tables.terminal_width(), indent="  ")
    return "\n".join(lines)


def _row(verdict: Verdict) -> dict[str, object]:
    words = {"max": "at least", "min": "at most", "equal": "equal"}
    answer = "pass" if verdict.passed else "FAIL"
    if verdict.measured is None:
        answer = "FAIL (not measured)"
    return {
        "metric": verdict.metric,
        "measured": verdict.measured,
        "reference": f"{words[verdict.mode]} {tables.number(verdict.published)}",
        "tolerance": verdict.tolerance,
        "verdict": answer,
    }


def find_shortcomings(verdicts: Sequence[Verdict], data: Mapping[str, str]) -> list[str]:
    """Return sentences that say why the result does not count as reproduced; [] where it does.

    Args:
        verdicts: A verdict for each published figure.
        data: The facts of the data set; {} where the run has none.
    """
    failed = [verdict.metric for verdict in verdicts if not verdict.passed]
    found = []
    if failed:
        found.append(f"Not reproduced: {', '.join(failed)} (out of the reference's tolerance).")
    if data and data["label"] != "full":
        kind = "generated" if data["label"] == "generated" else f"only a part ({data['note']})"
        found.append(f"The reference figures do not apply: the data are {kind}, not the full official {data['name']}.")
    return found
