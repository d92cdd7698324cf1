"""dl-lab diff: what is different between two runs, and nothing else.

Settings, code, packages, hardware, data and results; what is the same is only named. Exit status 0.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import records, tables
from dl_lab.run import find_run, read_json, read_losses, read_records
from dl_lab.tables import Column

Pairs = dict[str, tuple[Any, Any]]
HARDWARE = ("cpu", "cores", "host", "platform", "python")


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    folders = [find_run(name, options.outputs) for name in (options.one, options.other)]
    found = differences(*folders)
    if options.json:
        print(json.dumps({part: {k: list(v) for k, v in pairs.items()} for part, pairs in found.items()}, indent=1))
        return 0
    width = tables.terminal_width()
    print("\n".join(text(folders[0], folders[1], found, width)))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab diff", description=summary, epilog=details, allow_abbrev=False)
    for name in ("one", "other"):
        parser.add_argument(name, metavar=name.upper(), help="a run's folder, the id at the end of its name, or last")
    parser.add_argument("--json", action="store_true", help="as JSON: part -> name -> [one, other]")
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )
    return parser.parse_args(list(argv))


def differences(one: Path, other: Path) -> dict[str, Pairs]:
    """Part -> what differs in it, by name: (the one's, the other's). A part that is the same is empty."""
    environments = [read_json(folder / "env.json") or {} for folder in (one, other)]
    found = [records.read(folder) for folder in (one, other)]
    datasets = [_dataset(folder) for folder in (one, other)]
    return {
        "settings": _changed(*(record.config for record in found)),
        "code": {**_changed(*(_code(env) for env in environments)), **_patch(one, other)},
        "packages": _changed(*(env.get("packages") or {} for env in environments)),
        "hardware": _changed(*(_hardware(env) for env in environments)),
        "data": _changed(*datasets),
        "results": _results(one, other, found),
    }


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> Pairs:
    names = dict.fromkeys([*one, *other])
    return {name: (one.get(name), other.get(name)) for name in names if repr(one.get(name)) != repr(other.get(name))}


def _code(environment: Mapping[str, Any]) -> dict[str, Any]:
    git = environment.get("git") or {}
    facts = {"dl_lab": environment.get("dl_lab"), "fingerprint": environment.get("code"), "git": git.get("sha")}
    return {name: value for name, value in facts.items() if value is not None}


def _patch(one: Path, other: Path) -> Pairs:
    """How the uncommitted changes differ: the first lines that only one of them has."""
    patches = [
        path.read_text(errors="replace") if path.exists() else "" for path in (one / "diff.patch", other / "diff.patch")
    ]
    if patches[0] == patches[1]:
        return {}
    before, now = (patch.splitlines() for patch in patches)
    lines = list(difflib.unified_diff(before, now, n=0, lineterm=""))[2:]
    gone, new = ([line[1:] for line in lines if line.startswith(mark)] for mark in "-+")
    return {"uncommitted changes": (_extract(gone), _extract(new))}


def _extract(lines: Sequence[str]) -> str:
    files = [line.rpartition(" b/")[2] for line in lines if line.startswith("diff --git")]
    return f"{len(lines)} lines of their own" + (f" (in {', '.join(files)})" if files else "") if lines else "none"


def _hardware(environment: Mapping[str, Any]) -> dict[str, Any]:
    devices = environment.get("devices") or {}
    facts = {name: environment.get(name) for name in HARDWARE}
    return {**facts, **{name: devices.get(name) for name in ("torch", "cuda", "gpus", "tf32", "threads")}}


def _dataset(folder: Path) -> dict[str, Any]:
    """Name, label, content fingerprint and sizes of the data."""
    facts = (read_json(folder / "summary.json") or {}).get("dataset") or (read_json(folder / "status.json") or {}).get(
        "dataset"
    )
    return records.flatten(facts) if facts else {}


def _results(one: Path, other: Path, found: Sequence[records.Record]) -> Pairs:
    pairs: Pairs = {}
    losses = [read_losses(folder) for folder in (one, other)]
    first = next((i for i, (a, b) in enumerate(zip(*losses, strict=False), 1) if a != b), None)
    if first:
        pairs[f"first different loss (update {first})"] = (losses[0][first - 1], losses[1][first - 1])
    else:
        logs = [read_records(folder / "metrics.jsonl") for folder in (one, other)]
        epoch = next((a.get("epoch") for a, b in zip(*logs, strict=False) if a != b), None)
        pairs |= {"first different epoch": (epoch, epoch)} if epoch else {}
    if found[0].state != found[1].state:
        pairs["state"] = (found[0].state, found[1].state)
    metrics = [{name: record.metrics[name] for name in records.in_order(record.metrics)} for record in found]
    return {**pairs, **_changed(*metrics)}


# -- in words -----------------------------------------------------------------------------------------------------


def text(one: Path, other: Path, found: Mapping[str, Pairs], width: int) -> list[str]:
    """What differs in words, a table for each part, and what is the same."""
    parts = {part: pairs for part, pairs in found.items() if pairs}
    same = [part for part, pairs in found.items() if not pairs]
    names = [_short(folder) for folder in (one, other)]
    lines = tables.wrapped(_sentence(found), width, "  ")
    for part, pairs in parts.items():
        rows = [_row(name, values, names, part) for name, values in pairs.items()]
        columns = [Column("what", part, 0), *(Column(name, name, 0, exact=part != "results") for name in names)]
        if part == "results" and any("difference" in row for row in rows):
            columns.append(Column("difference", priority=1))
        lines += ["", tables.text(columns, rows, width)]
    return [*lines, "", f"The same: {', '.join(same)}."] if same else lines


def _short(folder: Path) -> str:
    return folder.name.rpartition("_")[2] or folder.name


def _row(name: str, values: tuple[Any, Any], names: Sequence[str], part: str) -> dict[str, Any]:
    row = {"what": name, **{key: "-" if value is None else value for key, value in zip(names, values, strict=True)}}
    if part == "results" and all(isinstance(value, float) for value in values) and not name.startswith("first"):
        row["difference"] = f"{values[1] - values[0]:+.4g}"
    return row


def _sentence(found: Mapping[str, Pairs]) -> str:
    """Which difference explains the results, as far as one can say."""
    causes = [part for part in ("settings", "code", "packages", "hardware", "data") if found[part]]
    if not found["results"]:
        return "The results are the same" + (
            f", although {_and(causes)} differ." if causes else ", and so is all else."
        )
    if not causes:
        return "The results differ although nothing that was recorded does: see dl-lab verify."
    settings = found["settings"]
    if causes == ["settings"]:
        which = _and(list(settings)[:4]) + (f" and {len(settings) - 4} more" if len(settings) > 4 else "")
        return f"The results differ; of what they rest on, only the settings do: {which}."
    return f"The results differ, and so do {_and(causes)}."


def _and(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
