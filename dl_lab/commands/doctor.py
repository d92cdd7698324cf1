"""dl-lab doctor: say why a net does not learn, with evidence and what to try.

Reads the records of a finished, failed or running run, or of every job of a sweep. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dl_lab.runs.find import find_run
from dl_lab.show import tables
from dl_lab.show.doctor.diagnose import apply_rules, describe_scope, to_lines
from dl_lab.show.doctor.evidence import Evidence, find_fits, read_evidence
from dl_lab.show.doctor.findings import Finding
from dl_lab.show.options import Parser, add_outputs
from dl_lab.sweeps.results import outcome
from dl_lab.sweeps.results.noise import find_noise
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab doctor` and return the exit status."""
    options = parse(argv)
    runs = find_runs(options.run, options.outputs)
    found: list[tuple[Path, Evidence, list[Finding]]] = []
    for run in runs:
        device_faults = _try_on_gpu(run) if options.gpu else []
        for fit in find_fits(run):
            evidence = read_evidence(fit)
            found.append((fit, evidence, [*device_faults, *apply_rules(evidence)]))
    noise = find_noise(runs[0].parent) if len(runs) > 1 else None
    if options.json:
        rows = [{"run": str(folder), "findings": [f.as_dict() for f in findings]} for folder, _, findings in found]
        if noise is not None:
            rows.insert(0, {"run": str(runs[0].parent), "findings": [noise.as_dict()]})
        print(json.dumps(rows if len(rows) > 1 else rows[0], indent=1))
        return 0
    width = tables.terminal_width()
    if len(found) == 1:
        folder, evidence, findings = found[0]
        print("\n".join([f"{folder}", "", *to_lines(findings, describe_scope(evidence), width)]))
        return 0
    lines = describe_sweep(found, width)
    if noise is not None:
        lines = [*to_lines([noise], "", width), *lines]
    print("\n".join(lines))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab doctor", description=summary, epilog=details)
    parser.add_argument(
        "run", nargs="?", default="last", metavar="RUN|SWEEP", help="a folder, the id at the end of its name, or last"
    )
    parser.add_argument("--gpu", action="store_true", help="build the model again and try a step on a pretended GPU")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_outputs(parser)
    return parser.parse_args(list(argv))


def _try_on_gpu(folder: Path) -> list[Finding]:
    from dl_lab.jobs.pretended_gpu import try_run  # imports torch

    return try_run(folder)


def find_runs(name: str, outputs: Path) -> list[Path]:
    """Return the folder of a run, or the folders of all jobs of a sweep.

    Raises:
        UserError: No run and no sweep has this name.
    """
    sweep = outcome.find_sweep_or_none(name, outputs)
    if sweep is None:
        return [find_run(name, outputs)]
    jobs = sorted(path.parent for path in sweep.glob("*/status.json"))
    if not jobs:
        raise UserError(f"No job of {sweep} has begun.")
    return jobs


def describe_sweep(found: Sequence[tuple[Path, Evidence, list[Finding]]], width: int) -> list[str]:
    """Describe each disease of several fits once, with the jobs or models that have it and the clearest case."""
    noun = "models" if any(evidence.contender for _, evidence, _ in found) else "jobs"
    cases: dict[str, list[tuple[Path, Finding]]] = {}
    for folder, _, findings in found:
        for finding in findings:
            cases.setdefault(finding.name, []).append((folder, finding))
    healthy = [folder for folder, _, findings in found if not findings]
    lines: list[str] = []
    commonest_first = sorted(cases.values(), key=lambda ill: (-len(ill), -max(f.weight for _, f in ill)))
    for ill in commonest_first:
        folder, finding = max(ill, key=lambda case: case[1].weight)
        names = ", ".join(path.name for path, _ in ill[:6])
        more = " ..." if len(ill) > 6 else ""
        lines += tables.wrap(f"{finding.title}: {len(ill)} of {len(found)} {noun} ({names}{more})", width, "")
        lines += tables.wrap(f"In {folder.name}: {finding.seen} {finding.means}", width - 3, "   ")
        if finding.tries:
            lines.append("   Try:  " + "\n         ".join(finding.tries))
        lines.append("")
    lines.append(f"Nothing found in {len(healthy)} of {len(found)} {noun}.")
    return lines
