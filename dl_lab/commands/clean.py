"""dl-lab clean: remove what finished runs no longer need (with --yes).

Checkpoints of finished runs (weights, metrics and figures stay), older tries that were set aside, leftovers of killed
processes; with --failed also the folders of failed runs. A run that is going on, or can be resumed, is left alone.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dl_lab import tables
from dl_lab.run import find_runs, state_of
from dl_lab.tables import Column
from dl_lab.types import UserError

WHY = {
    "checkpoint": "checkpoints of finished runs (only resuming needs them)",
    "set aside": "older tries that were set aside",
    "leftover": "unfinished files of killed processes",
    "failed": "folders of failed runs",
}


@dataclass(frozen=True)
class Waste:
    """A file or folder that nothing needs."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    if not options.folder.is_dir():
        raise UserError(f"There is no folder {options.folder}.")
    found = list(dict.fromkeys(find(options.folder, options.failed)))
    if not found:
        print(f"Nothing to clean in {options.folder}.")
        return 0
    rows = []
    for why, words in WHY.items():
        kind = [waste for waste in found if waste.why == why]
        if kind:
            rows.append({"what": words, "number": len(kind), "size": written(sum(waste.size for waste in kind))})
    print(tables.text([Column("what", priority=0), Column("number", priority=0), Column("size", priority=0)], rows))
    total = written(sum(waste.size for waste in found))
    if not options.yes:
        print(f"\nThis would free {total} in {options.folder}; nothing was removed. Do it:  dl-lab clean --yes")
        return 0
    for waste in found:
        shutil.rmtree(waste.path) if waste.path.is_dir() else waste.path.unlink(missing_ok=True)
    print(f"\nRemoved: {total} freed.")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab clean", description=summary, epilog=details, allow_abbrev=False)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs"), metavar="DIR", help="a run, a sweep, or all (outputs)"
    )
    parser.add_argument("--yes", action="store_true", help="remove it; without this, nothing is removed")
    parser.add_argument("--failed", action="store_true", help="failed runs too")
    return parser.parse_args(list(argv))


def find(root: Path, failed: bool) -> Iterator[Waste]:
    """What can go under a folder, each thing once."""
    aside = [path for path in root.glob("**/set_aside") if path.is_dir() and (path.parent / "sweep.yaml").exists()]
    for path in aside:
        yield Waste(path, "set aside")
    for run in find_runs(root):
        if any(path in run.parents for path in aside):
            continue
        state = state_of(run)
        if state == "failed" and failed:
            yield Waste(run, "failed")
            continue
        if state == "done":
            for path in sorted((run / "checkpoints").glob("*.pt")):
                yield Waste(path, "checkpoint")
        if state not in ("running", "queued"):
            for path in sorted(run.rglob(".*.tmp")):
                yield Waste(path, "leftover")


def written(size: float) -> str:
    """12.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
