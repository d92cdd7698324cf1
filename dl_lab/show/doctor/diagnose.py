"""Apply all rules to a run, and write the findings as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from dl_lab.show import tables
from dl_lab.show.doctor import curves, data, epochs, layers
from dl_lab.show.doctor.evidence import LOOKED_AT, VITALS_FILE, Evidence, find_fits, read_evidence
from dl_lab.show.doctor.findings import Finding
from dl_lab.types import count

Rule = Callable[[Evidence], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    curves.find_divergence,
    curves.find_chance_level,
    curves.find_mean_prediction,
    curves.find_slow_learning,
    curves.find_large_updates,
    epochs.find_overfitting,
    epochs.find_short_training,
    epochs.find_early_stop,
    epochs.find_underfitting,
    layers.find_vanishing_gradients,
    layers.find_exploding_gradients,
    layers.find_dead_units,
    layers.find_saturation,
    layers.find_bad_initialisation,
    layers.find_unscaled_inputs,
    layers.find_normalisation_faults,
    layers.find_unused_parts,
    layers.find_forgotten_weights,
    layers.find_frozen_parts,
    data.find_double_softmax,
    data.find_label_faults,
    data.find_shifted_validation,
    data.find_leaked_items,
    data.find_read_padding,
    data.find_evaluation_faults,
    data.find_heavy_regularisation,
    data.find_posterior_collapse,
    data.find_uniform_attention,
    data.find_starved_training,
)


def diagnose(folder: Path) -> list[Finding]:
    """Return the findings of a run, the gravest first.

    Raises:
        UserError: The folder has no readable config.
    """
    return apply_rules(read_evidence(folder))


def summarise(folders: Sequence[Path]) -> list[str]:
    """Return a sentence for each disease of these runs, the commonest first.

    A run that compares several models has a fit for each. A fit that was not watched counts as healthy.
    """
    cases: dict[str, list[tuple[Path, Finding]]] = {}
    fits = [fit for folder in folders for fit in find_fits(folder)]
    noun = "jobs" if fits == list(folders) else "models"
    for folder in fits:
        if (folder / VITALS_FILE).exists():
            for finding in diagnose(folder):
                cases.setdefault(finding.name, []).append((folder, finding))
    sentences = []
    for ill in sorted(cases.values(), key=lambda ill: -len(ill)):
        folder, finding = max(ill, key=lambda case: case[1].weight)
        where = f" in {len(ill)} of {len(fits)} {noun}, clearest in {folder.name}" if len(fits) > 1 else ""
        sentences.append(f"Doctor: {finding.words}{where}. {finding.seen} {finding.means}")
    return sentences


def apply_rules(evidence: Evidence) -> list[Finding]:
    """Return the findings of all rules, one for each name, the gravest first."""
    found: dict[str, Finding] = {}
    for rule in RULES:
        for finding in rule(evidence):
            known = found.get(finding.name)
            if known is None or finding.weight > known.weight:
                found[finding.name] = finding
    findings = sorted(found.values(), key=lambda finding: -finding.weight)
    return [replace(finding, tries=_choose_tries(finding.tries, evidence)) for finding in findings]


PARTS = {"model": "", "learner": "", "optimizer": "learner.", "scheduler": "learner.", "task": "learner."}


def _choose_tries(overrides: Sequence[str], evidence: Evidence) -> tuple[str, ...]:
    """Keep the overrides that change this run: it reads their keys, and has other values.

    In a run that compares several models, a key lies below its contender. A choice of a group ("scheduler=cosine") has
    no such form, so it is left out.
    """
    chosen = []
    for override in overrides:
        key = override.partition("=")[0]
        path = key.replace("/", ".")
        root = path.partition(".")[0]
        if evidence.contender and root in PARTS:
            if key == path != root and evidence.has(f"learner.{key.removeprefix('learner.')}"):
                chosen.append(f"procedure.contenders.{evidence.contender}.{PARTS[root]}{override}")
        elif _reads(evidence, path) and not _has_values(evidence, override):
            chosen.append(override)
    return tuple(chosen)


def _reads(evidence: Evidence, path: str) -> bool:
    """Whether the run's config has a key. A part of the learner must be in the procedure: else nothing reads it."""
    root, _, rest = path.partition(".")
    if root not in PARTS:
        return evidence.has(path)
    return any(not rest or _has_path(part, rest) for part in _find_parts(evidence.procedure, root))


def _find_parts(node: object, name: str) -> Iterator[object]:
    """Yield the values of the keys of this name within a config, at any depth."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == name:
                yield value
            yield from _find_parts(value, name)


def _has_path(node: object, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


def _has_values(evidence: Evidence, overrides: str) -> bool:
    """Whether the run has the values of these overrides already."""
    pairs = [override.partition("=")[::2] for override in overrides.split(" ")]
    return all(evidence.setting(key) == yaml.safe_load(value) for key, value in pairs)


def describe_scope(evidence: Evidence) -> str:
    """Say what the doctor looked at and what is missing, in one or two sentences."""
    parts = []
    if evidence.history:
        parts.append(f"{count(len(evidence.history), 'epoch')} of metrics")
    if evidence.losses:
        parts.append(f"{len(evidence.losses):,} losses")
    if evidence.looks:
        parts.append(f"{count(len(evidence.looks), 'look')} at layers and gradients")
    if evidence.examination:
        parts.append("the data and the trained model")
    scope = f"Looked at {', '.join(parts)} with {len(RULES)} rules." if parts else "There are no records to look at."
    if evidence.examination.get("failed"):
        scope += f" The examination of the trained model failed: {evidence.examination['failed']}."
    if evidence.failed:
        scope += f" {count(len(evidence.failed), 'look')} at the layers failed: {evidence.failed[0].get('error')}."
    elif not evidence.looks:
        is_short = len(evidence.losses) < LOOKED_AT
        why = f"fewer than {LOOKED_AT} updates" if is_short else "no torch model, or callbacks.doctor was off"
        scope += f" No looks at layers: {why}."
    return scope


def to_lines(findings: Sequence[Finding], scope: str, width: int) -> list[str]:
    """Return the findings as lines for a terminal of this width."""
    if not findings:
        return tables.wrap(f"Nothing found. {scope}", width)
    lines: list[str] = []
    for number, finding in enumerate(findings, 1):
        lines.append(f"{number}. {finding.title}")
        lines += _indent(finding.seen, width)
        if finding.plot:
            lines.append(f"   {finding.plot}")
        lines += _indent(finding.means, width)
        if finding.tries:
            lines.append("   Try:  " + "\n         ".join(finding.tries))
        lines.append(f"   More: docs/doctor.md#{finding.name}")
        lines.append("")
    return [*lines, *tables.wrap(scope, width, "")] if scope else lines


def _indent(text: str, width: int) -> list[str]:
    return [f"   {line}" for line in tables.wrap(text, max(20, width - 3), "")]


def to_markdown(findings: Sequence[Finding], scope: str) -> str:
    """Return the findings in Markdown, for TensorBoard's text page and the report."""
    if not findings:
        return f"Nothing found. {scope}"
    blocks = []
    for finding in findings:
        blocks.append(f"**{finding.title}**. {finding.seen} {finding.means}")
        if finding.tries:
            tries = "".join(f"\n- `{override}`" for override in finding.tries)
            blocks.append(f"Try:\n{tries}")
    return "\n\n".join([*blocks, scope])
