"""dl-lab diff: what is different between two runs, and nothing else.

Settings, code, packages, hardware, data and results; what is the same is only named. Exit status 0.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dl_lab.datasets.contents import MISSING
from dl_lab.runs import records
from dl_lab.runs.files import as_mapping, read_json, read_losses, read_records
from dl_lab.runs.find import find_run, short_name
from dl_lab.runs.records import Record
from dl_lab.runs.settings import flatten
from dl_lab.show import tables
from dl_lab.show.options import Parser, add_outputs
from dl_lab.show.tables import Column
from dl_lab.types import count

Pairs = dict[str, tuple[object, object]]  # name -> (the one's value, the other's)
HARDWARE = ("cpu", "cores", "host", "platform", "python")
DEVICES = ("torch", "cuda", "gpus", "tf32", "threads")


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab diff` and return the exit status."""
    options = parse(argv)
    folders = [find_run(name, options.outputs) for name in (options.one, options.other)]
    found = differences(*folders)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    width = tables.terminal_width()
    print("\n".join(text(folders[0], folders[1], found, width)))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab diff", description=summary, epilog=details)
    for name in ("one", "other"):
        parser.add_argument(name, metavar=name.upper(), help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("--json", action="store_true", help="as JSON: part -> name -> [one, other]")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def differences(one: Path, other: Path) -> dict[str, Pairs]:
    """Return the differences between two runs: part -> name -> (the one's value, the other's).

    A part that is the same is empty.
    """
    env_one = read_json(one / "env.json") or {}
    env_other = read_json(other / "env.json") or {}
    record_one = records.read(one)
    record_other = records.read(other)
    return {
        "settings": _compare(record_one.config, record_other.config),
        "code": {**_compare(_code(env_one), _code(env_other)), **_compare_patches(one, other)},
        "packages": _compare(as_mapping(env_one.get("packages")), as_mapping(env_other.get("packages"))),
        "hardware": _compare(_hardware(env_one), _hardware(env_other)),
        "data": _compare_data(_dataset(one, env_one), _dataset(other, env_other)),
        "results": _compare_results(record_one, record_other),
    }


def _compare(one: Mapping[str, object], other: Mapping[str, object]) -> Pairs:
    pairs: Pairs = {}
    for name in dict.fromkeys([*one, *other]):
        values = (one.get(name), other.get(name))
        if repr(values[0]) != repr(values[1]):
            pairs[name] = values
    return pairs


def _compare_data(one: Mapping[str, object], other: Mapping[str, object]) -> Pairs:
    """Compare the data. Where their contents are equal, a file that one of the runs did not have is left out."""
    pairs = _compare(one, other)
    if not one.get("fingerprint") or one.get("fingerprint") != other.get("fingerprint"):
        return pairs
    return {name: values for name, values in pairs.items() if MISSING not in values}


def _code(environment: Mapping[str, object]) -> dict[str, object]:
    git = as_mapping(environment.get("git"))
    facts = {"dl_lab": environment.get("dl_lab"), "fingerprint": environment.get("code"), "git": git.get("sha")}
    known = {name: value for name, value in facts.items() if value is not None}
    return {**known, **_digests(environment, "own_code")}


def _digests(environment: Mapping[str, object], part: str) -> dict[str, object]:
    """Return the digests of the files that a run depends on, by name. `part` is "own_code" or "data_files"."""
    return as_mapping(environment.get(part))


def _compare_patches(one: Path, other: Path) -> Pairs:
    """Compare the uncommitted changes: count the lines that only one of them has."""
    old_patch = _read_patch(one)
    new_patch = _read_patch(other)
    if old_patch == new_patch:
        return {}
    lines = list(difflib.unified_diff(old_patch.splitlines(), new_patch.splitlines(), n=0, lineterm=""))[2:]
    gone = [line[1:] for line in lines if line.startswith("-")]
    new = [line[1:] for line in lines if line.startswith("+")]
    return {"uncommitted changes": (_count_lines(gone), _count_lines(new))}


def _read_patch(folder: Path) -> str:
    path = folder / "diff.patch"
    return path.read_text(errors="replace") if path.exists() else ""


def _count_lines(lines: Sequence[str]) -> str:
    if not lines:
        return "none"
    files = [line.rpartition(" b/")[2] for line in lines if line.startswith("diff --git")]
    where = f" (in {', '.join(files)})" if files else ""
    return f"{count(len(lines), 'line')} of their own{where}"


def _hardware(environment: Mapping[str, object]) -> dict[str, object]:
    facts = {name: environment.get(name) for name in HARDWARE}
    devices = as_mapping(environment.get("devices"))
    return facts | {name: devices.get(name) for name in DEVICES}


def _dataset(folder: Path, environment: Mapping[str, object]) -> dict[str, object]:
    """Return the name, label, content fingerprint and sizes of the data, and the digest of each of its files."""
    for name in ("summary.json", "status.json"):
        facts = (read_json(folder / name) or {}).get("dataset")
        if facts:
            return {**flatten(facts), **_digests(environment, "data_files")}
    return _digests(environment, "data_files")


def _compare_results(one: Record, other: Record) -> Pairs:
    pairs: Pairs = _find_first_difference(one.folder, other.folder)
    if one.state != other.state:
        pairs["state"] = (one.state, other.state)
    old = {name: one.metrics[name] for name in records.in_order(one.metrics)}
    new = {name: other.metrics[name] for name in records.in_order(other.metrics)}
    return {**pairs, **_compare(old, new)}


def _find_first_difference(one: Path, other: Path) -> Pairs:
    """Return the first update with another loss, else the first epoch with another record."""
    for step, losses in enumerate(zip(read_losses(one), read_losses(other), strict=False), 1):
        if losses[0] != losses[1]:
            return {f"first different loss (update {step})": losses}
    old = read_records(one / "metrics.jsonl")
    new = read_records(other / "metrics.jsonl")
    for before, now in zip(old, new, strict=False):
        if before != now:
            epoch = before.get("epoch")
            return {"first different epoch": (epoch, epoch)} if epoch else {}
    return {}


# -- in words -----------------------------------------------------------------------------------------------------


def text(one: Path, other: Path, found: Mapping[str, Pairs], width: int) -> list[str]:
    """Return the answer: what differs in words, a table for each part that differs, and which parts are the same."""
    same = [part for part, pairs in found.items() if not pairs]
    names = [short_name(folder) for folder in (one, other)]
    lines = tables.wrap(_sentence(found), width, "  ")
    for part, pairs in found.items():
        if not pairs:
            continue
        rows = [_row(name, values, names, part) for name, values in pairs.items()]
        columns = [Column("what", part, 0), *(Column(name, name, 0, exact=part != "results") for name in names)]
        if part == "results" and any("difference" in row for row in rows):
            columns.append(Column("difference", priority=1))
        lines += ["", tables.text(columns, rows, width)]
    return [*lines, "", f"The same: {', '.join(same)}."] if same else lines


def _row(name: str, values: tuple[object, object], names: Sequence[str], part: str) -> dict[str, object]:
    one, other = values
    row = {"what": name, names[0]: "-" if one is None else one, names[1]: "-" if other is None else other}
    is_metric = part == "results" and not name.startswith("first")
    if is_metric and isinstance(one, float) and isinstance(other, float):
        row["difference"] = f"{other - one:+.4g}"
    return row


def _sentence(found: Mapping[str, Pairs]) -> str:
    """Say which difference may explain the results."""
    causes = [part for part in ("settings", "code", "packages", "hardware", "data") if found[part]]
    if not found["results"]:
        rest = f"although {_and(causes)} differ" if causes else "and so is all else"
        return f"The results are the same, {rest}."
    if not causes:
        return "The results differ, although nothing else that was recorded does: see dl-lab verify."
    if causes == ["settings"]:
        settings = list(found["settings"])
        more = f" and {len(settings) - 4} more" if len(settings) > 4 else ""
        return f"The results differ, and only the settings explain it: {_and(settings[:4])}{more}."
    return f"The results differ, and so do {_and(causes)}."


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
