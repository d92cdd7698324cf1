"""Draw the layers of the design page from the rows that tests/test_imports.py enforces. Writes docs/figures/layers.svg.

python scripts/docs/layers.py
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURE = ROOT / "docs" / "figures" / "layers.svg"
NOTES = {  # one part of a row -> what the row is for
    "cli": "a verb, or overrides",
    "commands": "one file for each verb",
    "sweeps": "which jobs, where, results",
    "jobs": "one execution",
    "procedures": "what an experiment does",
    "training": "loop, learners, checkpoints",
    "show": "tables, statistics, figures",
    "configs": "compose, check, build",
    "models": "the parts that a YAML names",
    "runs": "the run folder",
    "project": "a user's own project",
    "types": "shared words",
}
WIDTH, BOX_HEIGHT, GAP, LEFT, ROW_WIDTH = 780, 38, 8, 60, 480
STYLE = (
    ".box{fill:#eaf2ff;stroke:#2f6fde}.name{font:600 15px ui-monospace,monospace;fill:#12315f}"
    ".note{font-size:13px;fill:#57606a}.arrow{stroke:#57606a;stroke-width:2;fill:none}"
)


def rows() -> list[list[str]]:
    """The parts of the package in rows, the highest first."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROWS":
            found = [sorted(row - {"__main__"}) for row in ast.literal_eval(node.value)]
            return [row for row in found if row]
    raise LookupError("tests/test_imports.py has no ROWS.")


def draw() -> str:
    """The picture as SVG text."""
    layout = rows()
    height = len(layout) * (BOX_HEIGHT + GAP) + 20
    label = "Packages of dl-lab in rows; imports point down"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" '
        'font-family="system-ui, sans-serif">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<path class="arrow" d="M28 20V{height - 26}M20 {height - 36}L28 {height - 24}L36 {height - 36}"/>',
        f'<text class="note" transform="translate(18 {height / 2}) rotate(-90)" text-anchor="middle">'
        "imports point down</text>",
    ]
    for i, names in enumerate(layout):
        parts += _row(names, 10 + i * (BOX_HEIGHT + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(names: list[str], y: int) -> list[str]:
    width = (ROW_WIDTH - GAP * (len(names) - 1)) / len(names)
    parts = []
    for i, name in enumerate(names):
        x = LEFT + i * (width + GAP)
        narrow = f' textLength="{width - 12:.0f}" lengthAdjust="spacingAndGlyphs"' if len(name) * 9 > width - 14 else ""
        parts.append(f'<rect class="box" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BOX_HEIGHT}" rx="5"/>')
        place = f'x="{x + width / 2:.1f}" y="{y + 24}" text-anchor="middle"{narrow}'
        parts.append(f'<text class="name" {place}>{escape(name)}</text>')
    notes = [NOTES[name] for name in names if name in NOTES]
    parts.append(f'<text class="note" x="{LEFT + ROW_WIDTH + 16}" y="{y + 24}">{"; ".join(notes)}</text>')
    return parts


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
