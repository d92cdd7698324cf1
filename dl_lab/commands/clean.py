"""dl-lab clean: remove what finished runs no longer need (with --yes).

Checkpoints of finished runs (weights, metrics and figures stay), older tries that were set aside, leftovers of killed
processes; with --failed also the folders of failed runs. A run that is going on, or can be resumed, is left alone.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dl_lab.runs.find import find_runs, no_runs, state_of
from dl_lab.show import tables
from dl_lab.show.options import Parser, add_outputs
from dl_lab.show.tables import Column
from dl_lab.types import UserError, count

WHY = {
    "checkpoint": "checkpoints of finished runs (only resuming needs them)",
    "set aside": "older tries that were set aside",
    "leftover": "unfinished files of killed processes",
    "failed": "folders of failed runs",
}


@dataclass(frozen=True)
class Waste:
    """A file or folder that nothing needs.

    Attributes:
        path: The file or folder.
        why: A key of WHY.
    """

    path: Path
    why: str

    @property
    def size(self) -> int:
        """The size in bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab clean` and return the exit status."""
    options = parse(argv)
    folder = options.outputs if options.name is None else _find_folder(options.name, options.outputs)
    if not folder.is_dir():
        raise UserError(no_runs(folder))
    found = list(dict.fromkeys(find(folder, options.failed)))
    failed = [run for run in find_runs(folder) if state_of(run) == "failed"]
    kept = [run for run in failed if _can_resume(run)]
    if kept and options.failed:
        print(f"Kept: {count(len(kept), 'failed run')} with a checkpoint. Go on from one:  dl-lab resume {kept[0]}\n")
    if not found:
        print(f"Nothing to clean in {folder}.")
        return 0
    rows = []
    for why, words in WHY.items():
        kind = [waste for waste in found if waste.why == why]
        if kind:
            size = write_size(sum(waste.size for waste in kind))
            rows.append({"what": words, "number": len(kind), "size": size})
    print(tables.text([Column("what", priority=0), Column("number", priority=0), Column("size", priority=0)], rows))
    total = write_size(sum(waste.size for waste in found))
    if not options.yes:
        flags = ["--failed"] if options.failed else []
        again = shlex.join(["dl-lab", "clean", str(folder), *flags, "--yes"])
        print(f"\nThis would free {total} in {folder}; nothing was removed. Do it:  {again}")
        return 0
    for waste in found:
        if waste.path.is_dir():
            shutil.rmtree(waste.path)
        else:
            waste.path.unlink(missing_ok=True)
    print(f"\nRemoved: {total} freed.")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab clean", description=summary, epilog=details)
    parser.add_argument(
        "name",
        nargs="?",
        metavar="RUN|SWEEP|DIR",
        help="a run's id or folder, a sweep's key or folder, last, or a folder of runs; none: all runs",
    )
    parser.add_argument("--yes", action="store_true", help="remove it; without this, nothing is removed")
    parser.add_argument("--failed", action="store_true", help="failed runs too")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _find_folder(name: str, outputs: Path) -> Path:
    """Return the folder itself, or that of the run or sweep of this name."""
    from dl_lab.sweeps.results import outcome

    return Path(name) if Path(name).is_dir() else outcome.find_sweep_or_run(name, outputs)


def find(root: Path, failed: bool) -> Iterator[Waste]:
    """Yield the files and folders that can go, each once.

    Args:
        root: The folder to look through.
        failed: Whether failed runs can go too.
    """
    aside = [path for path in root.glob("**/set_aside") if path.is_dir() and (path.parent / "sweep.yaml").exists()]
    for path in aside:
        yield Waste(path, "set aside")
    for run in find_runs(root):
        if any(path in run.parents for path in aside):
            continue
        state = state_of(run)
        if state == "failed" and failed and not _can_resume(run):
            yield Waste(run, "failed")
            continue
        if state == "done":
            for path in sorted((run / "checkpoints").glob("*.pt")):
                yield Waste(path, "checkpoint")
        if state not in ("running", "queued"):
            for path in sorted(run.rglob(".*.tmp")):
                yield Waste(path, "leftover")


def _can_resume(run: Path) -> bool:
    """Whether a run has a checkpoint from which `dl-lab resume` can continue."""
    return any(run.glob("**/checkpoints/*.pt"))


def write_size(size: float) -> str:
    """Write a number of bytes: 12.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
