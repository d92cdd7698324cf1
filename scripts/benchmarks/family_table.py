"""The Markdown table of families.json: for families.py and for the documentation."""

from __future__ import annotations

from typing import Any

GOALS = {"tuned": 0.97, "notebook": 1.3, "lightning": 1.5}  # the least ratio of each
MOST_MEMORY = 1.1  # of the tuned loop's


def markdown(report: dict[str, Any]) -> str:
    """Two tables: ratios, where one that misses its goal is in italics; then sizes, memory and fitted costs."""
    others = [name for name in GOALS if any(name in row["ratios"] for row in report["families"].values())]
    head = [f"{name}, {kind}" for name in others for kind in ("short", "long")]
    ratios = [f"| family | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    costs = ["| family | batch | samples | memory | dl-lab: update, epoch, run | tuned |", "|---|---|---|---|---|---|"]
    for name, row in report["families"].items():
        cells = [_ratio(row, other, kind) for other in others for kind in ("short", "long")]
        ratios.append(f"| {name} | {' | '.join(cells)} |")
        memory = row.get("memory", {}).get("ratio")
        cells = [
            str(row["batch"]),
            " and ".join(f"{n:,}" for n in row["samples"]),
            "" if memory is None else _marked(f"{memory:.2f}", memory <= MOST_MEMORY),
            *("{update:.2f}, {epoch:.1f}, {run:.0f} ms".format(**row["costs"][who]) for who in ("dl-lab", "tuned")),
        ]
        costs.append(f"| {name} | {' | '.join(cells)} |")
    memory_note = "Memory is dl-lab's peak beside the tuned loop's."
    facts = f"`{report['command']}`, one thread. {measured_on(report)}"
    return "\n".join([*ratios, "", *costs, "", f"{memory_note} {facts}"])


def measured_on(report: dict[str, Any]) -> str:
    """Say which machine, torch and date the families were measured with."""
    places: dict[str, list[str]] = {}
    for name, row in report["families"].items():
        places.setdefault(f"{row['hardware']}, torch {row['torch']}, {row['date']}", []).append(name)
    if len(places) == 1:
        return f"{next(iter(places))}."
    return " ".join(f"{', '.join(names)}: {place}." for place, names in places.items())


def _ratio(row: dict[str, Any], other: str, kind: str) -> str:
    found = row["ratios"].get(other, {}).get(kind)
    if found is None:
        return ""
    text = "{median:.2f} ({least:.2f}–{greatest:.2f})".format(**found)
    return _marked(text, found["median"] >= GOALS[other])


def _marked(text: str, is_met: bool) -> str:
    return text if is_met else f"*{text}*"
