"""The campaign: proves by many random trials what dl-lab promises about kills, faults and hostile or broken input.

    python scripts/campaign.py --minutes 10 --work /tmp/campaign --table docs/campaign.md

Every trial has a number; the seed and the number determine what it does. Results go to `results.jsonl` in the work
folder: the same command continues there, and ends when every part has had its trials or the time is over. `--only PART
...` runs some parts (two processes with a folder each share the work; joined results.jsonl files give one table), and
`--trial N` repeats one trial of a part and shows what it found. docs/campaign.md explains the parts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns import faults, hostile, kills, malformed
from campaigns.processes import COMMANDS, REAL_STARTS, Problem, Skip, TooLate
from campaigns.shell import Shell

ROOT = Path(__file__).resolve().parent.parent
LATE = "late"
MOST_TRIES = 5  # of a trial whose kill came too late
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Part:
    """A part of the campaign.

    Args:
        name: as `--only` takes it, and in the table.
        promise: what a trial that passes has shown.
        n_trials: how many trials a whole campaign has.
        run: one trial: (work folder, random numbers, its number). It raises Problem or Skip.
    """

    name: str
    promise: str
    n_trials: int
    run: Callable[[Path, random.Random, int], object]


def kill_run(work: Path, rng: random.Random, number: int) -> None:
    """Kill a run of a kind that goes by the trial's number."""
    names = list(kills.RUNS)
    kills.kill_run(work, rng, names[number % len(names)])


def kill_sweep(work: Path, rng: random.Random, number: int) -> None:
    """Kill a process of a sweep of a kind that goes by the trial's number."""
    names = list(kills.SWEEPS)
    victim = kills.VICTIMS[number // len(names) % len(kills.VICTIMS)]
    kills.kill_sweep(work, rng, names[number % len(names)], victim)


def disturb_files(work: Path, rng: random.Random, number: int) -> None:
    """Disturb the files of a run in a way that goes by the trial's number."""
    names = list(faults.FAULTS)
    faults.FAULTS[names[number % len(names)]](work, rng)


def attack(work: Path, rng: random.Random, number: int) -> None:
    """Try the hostile config of the trial's number."""
    hostile.attack(work, rng, hostile.names()[number])


def damage(work: Path, rng: random.Random, number: int) -> None:
    """Damage the files of a run at random places."""
    malformed.damage(work, rng)


PARTS = (
    Part("runs", "`kill -9` of a run: weights, metrics and TensorBoard scalars have the same bits", 200, kill_run),
    Part("sweeps", "`kill -9` of a sweep, a server or a job: every job and results.csv are the same", 100, kill_sweep),
    Part("heap", "Ctrl-C and SIGTERM in a three-layer BiLSTM: its memory is sound", 60, kills.interrupt_deep_run),
    Part("files", "full, read-only or broken disk, clock, moved folders, two sweeps, stale locks", 60, disturb_files),
    Part("hostile", "hostile configs: nothing is executed, each is refused", len(hostile.names()), attack),
    Part("malformed", "damaged run and sweep folders: no verb shows a traceback", 200, damage),
)


def main() -> int:
    """Run the script."""
    options = parse()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.nice(5)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    if options.trial is not None:
        outcome = run_trial(parts[0], options.trial, options.seed, work, keep=True)
        print(json.dumps(outcome))
        return outcome["outcome"] == "failed"
    end = time.monotonic() + 60 * options.minutes
    results = work / "results.jsonl"
    for part, number in order(parts):
        if (part.name, number) in read_done(results, options.seed):
            continue
        if time.monotonic() > end:
            break
        outcome = run_trial(part, number, options.seed, work)
        with results.open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        print(f"{part.name} {number}: {outcome['outcome']} {outcome['words']}", flush=True)
    Shell.close_all()
    text = table(read_results(results, options.seed))
    print(f"\n{text}")
    if options.table:
        write_table(options.table, text)
    return any(result["outcome"] == "failed" for result in read_results(results, options.seed))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="when to stop beginning trials (%(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="determines every trial (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("outputs/campaign"), help="folder of all files (%(default)s)")
    parser.add_argument("--only", choices=[part.name for part in PARTS], nargs="+", default=[], help="some parts")
    parser.add_argument("--trial", type=int, metavar="N", help="repeat trial N of the part and keep its files")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    options = parser.parse_args()
    if options.trial is not None and len(options.only) != 1:
        parser.error("--trial needs --only with one PART")
    return options


def order(parts: Sequence[Part]) -> list[tuple[Part, int]]:
    """All trials, the parts in turn, so that a short campaign has some of each."""
    longest = max(part.n_trials for part in parts)
    return [(part, number) for number in range(longest) for part in parts if number < part.n_trials]


def run_trial(part: Part, number: int, seed: int, work: Path, keep: bool = False) -> dict[str, object]:
    """One trial with its outcome: passed, failed or skipped, and in words why."""
    rng = random.Random(f"{seed} {part.name} {number}")
    COMMANDS.enabled = number % REAL_STARTS > 0
    outcome, words, began = LATE, "", time.monotonic()
    for _ in range(MOST_TRIES):
        shutil.rmtree(work / "trial", ignore_errors=True)
        outcome, words = attempt(part, work, rng, number)
        if outcome != LATE:
            break
    if not keep:
        shutil.rmtree(work / "trial", ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    outcome = "skipped" if outcome == LATE else outcome
    facts = {"part": part.name, "number": number, "seed": seed, "outcome": outcome, "words": words}
    return {**facts, "seconds": seconds}


def attempt(part: Part, work: Path, rng: random.Random, number: int) -> tuple[str, str]:
    """Try a trial once: its outcome, and in words why."""
    try:
        part.run(work, rng, number)
    except TooLate as late:
        return LATE, str(late)
    except Skip as skip:
        return "skipped", str(skip)
    except Problem as problem:
        return "failed", str(problem)
    return "passed", ""


def read_results(path: Path, seed: int) -> list[dict[str, object]]:
    """Read the results of earlier trials with this seed."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [result for result in found if result["seed"] == seed]


def read_done(path: Path, seed: int) -> set[tuple[object, object]]:
    """List the trials that are done, as (part, number)."""
    return {(result["part"], result["number"]) for result in read_results(path, seed)}


def table(results: Sequence[dict[str, object]]) -> str:
    """The results by part as Markdown, with date and hardware."""
    import torch

    lines = ["| part | what a passed trial shows | trials | passed | failed | skipped |", "|---|---|---|---|---|---|"]
    for part in PARTS:
        outcomes = [result["outcome"] for result in results if result["part"] == part.name]
        counts = " | ".join(str(outcomes.count(outcome)) for outcome in ("passed", "failed", "skipped"))
        lines.append(f"| {part.name} | {part.promise} | {len(outcomes)} of {part.n_trials} | {counts} |")
    day = datetime.datetime.now(datetime.UTC).date()
    lines += ["", f"{day}, {_processor()}, Python {platform.python_version()}, torch {torch.__version__}."]
    failed = [result for result in results if result["outcome"] == "failed"]
    lines += ["", *(f"- {result['part']} {result['number']}: {result['words']}" for result in failed)]
    return "\n".join(lines).rstrip() + "\n"


def _processor() -> str:
    from dl_lab.runs.environment import describe_environment

    facts = describe_environment([])
    return f"{facts.get('cores')} cores of {facts.get('cpu')}"


def write_table(page: Path, text: str) -> None:
    """Replace what stands between the marks of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
