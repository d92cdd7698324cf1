"""dl-lab data: list, fetch and verify the files of the data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab import tables
from dl_lab.datasets.files import DataFile, data_files, ensure
from dl_lab.tables import Column

HASHED_BY_LIST = 300e6  # bytes; larger files are hashed by `verify` only
WORDS = {
    "official": "official",
    "differs": "differs from the official file",
    "unchecked": "here (no official checksum)",
    "missing": "missing",
}


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    composer = configs.Composer(options.config_dir)
    if options.action == "list":
        print(listing(composer))
        return 0
    act = fetch if options.action == "fetch" else verify
    return max(act(name, *files_of(composer, name)) for name in options.names)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab data", description=__doc__, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|fetch|verify")
    parsers = [actions.add_parser("list", help="all data sets and the state of their files")]
    for action, words in (
        ("fetch", "download what is missing (with checksum)"),
        ("verify", "compare with the official checksums; exit status 1 where one differs or is missing"),
    ):
        parsers.append(actions.add_parser(action, help=words, description=words))
        parsers[-1].add_argument("names", nargs="+", metavar="NAME", help="see dl-lab data list")
    for each in parsers:
        each.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    return parser.parse_args(list(argv))


def files_of(composer: configs.Composer, name: str) -> tuple[list[DataFile], Path]:
    """A data set's files and the folder they are relative to. Raises ConfigError for an unknown name."""
    entries, data_dir = composer.data_files(name)
    return data_files(entries), Path(data_dir).expanduser()


def listing(composer: configs.Composer) -> str:
    """Every file of every data set: its state, size and source."""
    rows: list[dict[str, Any]] = []
    for name in [*composer.groups()["dataset"], *composer.groups()["vectors"]]:
        files, data_dir = files_of(composer, name)
        rows += [_row(name if i == 0 else "", file, data_dir) for i, file in enumerate(files)]
        if not files:
            rows.append({"name": name, "state": "ready", "file": "needs none"})
    columns = [
        Column("name", priority=0),
        Column("state", priority=0),
        Column("size"),
        Column("file"),
        Column("source", priority=2),
    ]
    _, data_dir = files_of(composer, composer.groups()["dataset"][0])
    table = tables.text(columns, rows, whole="a wider terminal")
    return f"{table}\n\nData folder: {data_dir} (DL_LAB_DATA or paths.data_dir)"


def _row(name: str, file: DataFile, data_dir: Path) -> dict[str, Any]:
    path = file.locate(data_dir)
    there = path.is_file()
    state = "large" if there and path.stat().st_size > HASHED_BY_LIST and file.checksum else file.state(data_dir)
    return {
        "name": name,
        "state": {**WORDS, "differs": "differs", "unchecked": "here", "large": "here"}[state],
        "size": size(path.stat().st_size if there else file.size),
        "file": file.path,
        "source": file.url.partition("://")[2].partition("/")[0] or "no public download",
    }


def size(n_bytes: int | None) -> str:
    """1234567 -> "1.2 MB"."""
    if n_bytes is None:
        return ""
    value, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def fetch(name: str, files: Sequence[DataFile], data_dir: Path) -> int:
    """Download what is missing. Raises UserError, with the manual steps, where that cannot be done."""
    if not files:
        print(f"{name} needs no files.")
    for file in files:
        print(f"{name}: {ensure(file, data_dir)}")
    return 0


def verify(name: str, files: Sequence[DataFile], data_dir: Path) -> int:
    """0 where every file is here and none differs from the official one."""
    if not files:
        print(f"{name} needs no files.")
    states = [file.state(data_dir) for file in files]
    for file, state in zip(files, states, strict=True):
        print(f"{name}: {file.locate(data_dir)}: {WORDS[state]}")
    return 1 if {"differs", "missing"} & set(states) else 0
