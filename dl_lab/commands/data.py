"""dl-lab data: list, fetch and verify the files of the data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dl_lab import configs
from dl_lab.datasets.files import DataFile, ensure, needed_files
from dl_lab.show import tables
from dl_lab.show.options import Parser
from dl_lab.show.tables import Column

HASHED_BY_LIST = 300e6  # bytes; only `verify` hashes larger files
WORDS = {
    "official": "official",
    "differs": "differs from the official file",
    "unchecked": "here (no official checksum)",
    "unpacked": "here (unpacked)",
    "missing": "missing",
    "unreadable": "cannot be read (a broken link, or another user's file)",
}
SHORT = {
    **WORDS,
    "differs": "differs",
    "unchecked": "here",
    "unpacked": "here",
    "large": "here",
    "unreadable": "unreadable",
}


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab data` and return the exit status."""
    options = parse(argv)
    composer = configs.Composer(options.config_dir)
    if options.action == "list":
        print(list_files(composer))
        return 0
    act = fetch if options.action == "fetch" else verify
    return max(act(name, *files_of(composer, name)) for name in options.names)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="dl-lab data", description=__doc__)
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
    """Return the files of a data set, and the folder to which their paths are relative.

    Raises:
        ConfigError: There is no data set of this name.
    """
    storage = composer.storage(name)
    return storage.entries(), storage.data


def list_files(composer: configs.Composer) -> str:
    """Return a table of all files of all data sets, with their states, sizes and sources."""
    rows: list[dict[str, str]] = []
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


def _row(name: str, file: DataFile, data_dir: Path) -> dict[str, str]:
    n_bytes = _size_of(file.locate(data_dir))
    is_large = n_bytes is not None and n_bytes > HASHED_BY_LIST and bool(file.checksum)
    state = "large" if is_large else file.state(data_dir)
    return {
        "name": name,
        "state": SHORT[state],
        "size": size(file.size if n_bytes is None else n_bytes),
        "file": file.path,
        "source": file.url.partition("://")[2].partition("/")[0] or "no public download",
    }


def _size_of(path: Path) -> int | None:
    """Return the size of a file in bytes; None where there is no file, or a link that leads nowhere."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def size(n_bytes: int | None) -> str:
    """Write a number of bytes, 1234567 as "1.2 MB"; "" for None."""
    if n_bytes is None:
        return ""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value = n_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def fetch(name: str, files: Sequence[DataFile], data_dir: Path) -> int:
    """Download the missing files. Of several alternatives, one is enough.

    Returns:
        The exit status, 0.

    Raises:
        UserError: A file cannot be downloaded. The message says what to do by hand.
    """
    if not files:
        print(f"{name} needs no files.")
    for file in needed_files(files, data_dir):
        replacement = file.replacement(data_dir)
        if file.optional and not file.url and file.state(data_dir) == "missing":
            print(f"{name}: {file.locate(data_dir)}: missing, but not needed")
        elif replacement is not None:
            print(f"{name}: {replacement}")
        else:
            print(f"{name}: {ensure(file, data_dir)}")
    return 0


def verify(name: str, files: Sequence[DataFile], data_dir: Path) -> int:
    """Compare the files with the official checksums.

    Returns:
        The exit status: 0 where every needed file is here and no file differs from the official one.
    """
    if not files:
        print(f"{name} needs no files.")
    needed = needed_files(files, data_dir)
    status = 0
    for file in files:
        state = file.state(data_dir)
        words = WORDS[state]
        is_needed = file in needed and not file.optional
        if state == "missing" and not is_needed:
            words += ", but not needed"
        print(f"{name}: {file.locate(data_dir)}: {words}")
        if state in ("differs", "unreadable") or (state == "missing" and is_needed):
            status = 1
    return status
