"""The reference of experiments and ready sweeps, and what their ids mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dl_lab.configs import catalogue
from dl_lab.configs.catalogue import Experiment

# What the beginning of an id stands for. The rest names the exercise and its variant.
SOURCES = {
    "IST1": "Instituto Superior Técnico, Deep Learning 2023/24, homework 1",
    "IST2": "Instituto Superior Técnico, Deep Learning 2023/24, homework 2",
    "PD1": "University of Padova, Deep Learning 2022/23, homework 1 (perceptrons and softmax by hand)",
    "PD2": "University of Padova, Deep Learning 2022/23, homework 2 (news, over-fitting, regularisation)",
    "PD3": "University of Padova, Deep Learning 2022/23, homework 3 (convolutional nets)",
    "PD4": "University of Padova, Deep Learning 2022/23, homework 4 (film reviews)",
    "PD5": "University of Padova, Deep Learning 2022/23, homework 5 (autoencoders)",
    "PD6": "University of Padova, Deep Learning 2022/23, homework 6 (variational autoencoder)",
    "BUF": "University at Buffalo, CSE 676 (Deep Learning), assignments",
    "CIFAR-FAST": "The fast-training literature on CIFAR-10 (D. Page, DAWNBench)",
    "TONES": "Toy speech of this project: each letter is a tone",
}
ID = re.compile(r"\b(?:IST[12]|PD[1-6]|BUF)-[A-Z0-9]+(?:-[A-Z0-9]+)*\b|\bCIFAR-FAST\b|\bTONES\b")


def source(identity: str) -> str:
    """Where an id comes from, in words; "" for one that no source explains."""
    for start, words in SOURCES.items():
        if identity == start or identity.startswith(f"{start}-"):
            return words
    return ""


def abbreviations(text: str) -> str:
    """Definitions of the ids that a page mentions: the site shows them as tooltips."""
    found = sorted(set(ID.findall(text)))
    questions = {entry.id: entry.question for entry in reversed(catalogue.experiments()) if entry.id}
    lines = []
    for identity in found:
        words = source(identity)
        if words:
            question = questions.get(identity, "")
            lines.append(f"*[{identity}]: {words}. {question}".strip())
    return "\n".join(lines)


def ids() -> str:
    """Return the table of the ids' beginnings."""
    lines = ["| an id begins with | and comes from |", "|---|---|"]
    lines += [f"| `{start}` | {words} |" for start, words in SOURCES.items()]
    return "\n".join(lines)


def experiments() -> str:
    """A section for each source, a row for each experiment."""
    entries = catalogue.experiments()
    parts = []
    for start, words in SOURCES.items():
        own = [entry for entry in entries if entry.id == start or entry.id.startswith(f"{start}-")]
        if own:
            parts.append(f"## {words}\n\n{_rows(own)}")
    rest = [entry for entry in entries if not source(entry.id)]
    if rest:
        parts.append(f"## Others\n\n{_rows(rest)}")
    return "\n\n".join(parts)


def _rows(entries: Sequence[Experiment]) -> str:
    lines = ["| experiment | id | asks | data | model | published |", "|---|---|---|---|---|---|"]
    for entry in entries:
        published = [f"{metric} {one['value']:g}" for metric, one in entry.reference.items()]
        shown = "; ".join(published[:2]) + (" ..." if len(published) > 2 else "")
        question = entry.question.replace("|", "\\|")
        dataset, model = (
            value.replace("-", "none") if value == "-" else value for value in (entry.dataset, entry.model)
        )
        lines.append(f"| `{entry.name}` | {entry.id} | {question} | {dataset} | {model} | {shown} |")
    return "\n".join(lines)


def _used(name: str) -> str:
    return "none" if name == catalogue.UNUSED else name


def sweeps() -> str:
    """Return the table of the ready sweeps."""
    lines = ["| sweep | asks |", "|---|---|"]
    lines += [f"| `{entry.name}` | {entry.question} |" for entry in catalogue.entries("sweep")]
    return "\n".join(lines)
