"""The page of the notebook, made from docs/notebook.ipynb; run as a script, it executes the notebook and keeps outputs.

    python scripts/docs/notebook_page.py

The cells run one after the other in an empty folder. A cell's output is what it prints, the value of its last
expression, and the figure of that value where it has one.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def page() -> str:
    """Markdown: the text, the code and the outputs of every cell; its title is the page's."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\A# .*\n+", "", source))
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [part for output in cell["outputs"] for part in _written(output)]
    return "\n\n".join(part for part in parts if part)


def _written(output: dict[str, Any]) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        return [f"![Figure of the cell above](data:image/png;base64,{data['image/png']})"]
    text = "".join(data.get("text/plain", output.get("text", [])))
    return [f"```text\n{text.rstrip()}\n```"]


def execute(cells: list[dict[str, Any]]) -> None:
    """Run the code cells in the current folder, and put their outputs into them."""
    names: dict[str, Any] = {}
    for number, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), 1):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        expression = None
        if isinstance(last, ast.Expr):
            tree.body.pop()
            expression = compile(ast.Expression(last.value), "cell", "eval")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "cell", "exec"), names)  # noqa: S102 (our own notebook)
            value = eval(expression, names) if expression else None  # noqa: S307
        cell["execution_count"] = number
        cell["outputs"] = []
        if printed.getvalue():
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
        if value is not None:
            result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
            cell["outputs"].append({**result, "data": _shown(value)})


def _shown(value: Any) -> dict[str, Any]:
    figure = getattr(value, "figure", None)
    if figure is None:
        return {"text/plain": _lines(repr(value))}
    picture = io.BytesIO()
    figure.savefig(picture, dpi=80, bbox_inches="tight")
    return {"image/png": base64.b64encode(picture.getvalue()).decode()}


def _lines(text: str) -> list[str]:
    return text.rstrip().splitlines(keepends=True)


def main() -> None:
    """Execute the notebook in an empty folder, and write its page."""
    os.environ["MPLBACKEND"] = "agg"
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        execute(notebook["cells"])
        os.chdir(ROOT)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
