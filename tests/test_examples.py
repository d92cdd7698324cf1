"""The projects in examples/: each command of a README works, in smoke form, and the code of each is short.

The lines of the examples are counted here too, and stand in docs/from_lightning.md beside those of other projects.
Write the table anew with `python tests/test_examples.py`.
"""

from __future__ import annotations

import ast
import io
import re
import runpy
import shlex
import shutil
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/README.md"))
PAGE = ROOT / "docs" / "from_lightning.md"
TABLE = re.compile(r"<!-- The table below is counted by tests/test_examples.py. -->\n\n(.*?)\n\n<!--", re.DOTALL)
LONGEST = 60  # lines of Python of an example, comments included
TRAINING = ["trainer.max_epochs=1", "trainer.limit_batches=2"]
OTHERS = {  # a word of a command -> what makes its procedure short, where that is no training
    "experiment=loop": ["procedure.epochs=2"],
    "procedure=lr_finder": ["procedure.n_updates=12"],
}


def commands_of(example: Path) -> list[list[str]]:
    """The words of each command in the README."""
    blocks = re.findall(r"```console\n(.*?)```", (example / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@dataclass(frozen=True)
class Peer:
    """An example of another project for the same task.

    Attributes:
        files: What was counted, below `examples/` of the project's repository where nothing else is said.
        python: Its lines of Python, counted as `count_python` does.
        yaml: Its lines of YAML, counted as `count_yaml` does.
    """

    project: str
    files: str
    python: int
    yaml: int


LIGHTNING = "Lightning"
LUDWIG = "Ludwig"
PEERS: dict[str, list[Peer]] = {  # read and counted on 29 November 2026
    "gan": [Peer(LIGHTNING, "`pytorch/domain_templates/generative_adversarial_net.py`", 124, 0)],
    "image_fine_tuning": [
        Peer(LIGHTNING, "`pytorch/domain_templates/computer_vision_fine_tuning.py`", 157, 0),
        Peer(LUDWIG, "`image_encoders/config_dinov2_finetuned.yaml`", 0, 14),
    ],
    "k_fold": [
        Peer(LIGHTNING, "`fabric/kfold_cv/train_fabric.py`", 121, 0),
        Peer(LUDWIG, "`kfold_cv/prepare_classification_data_set.py`, which writes the config", 51, 0),
    ],
    "lightning_hydra_template": [
        Peer(
            "lightning-hydra-template",
            "`src/models/mnist_module.py`, `src/models/components/simple_dense_net.py`, "
            "`src/data/mnist_datamodule.py`, `configs/{data,model}/mnist.yaml`, `configs/experiment/example.yaml`, "
            "`configs/hparams_search/mnist_optuna.yaml`",
            190,
            62,
        )
    ],
    "own_loop": [Peer(LIGHTNING, "`fabric/image_classifier/train_fabric.py`", 104, 0)],
    "regression": [Peer(LUDWIG, "`titanic/model1_config.yaml` (a table with classes)", 0, 30)],
    "segmentation": [
        Peer(LIGHTNING, "`pytorch/domain_templates/semantic_segmentation.py`", 211, 0),
        Peer(LUDWIG, "`semantic_segmentation/config_camseq.yaml`", 0, 30),
    ],
    "simclr": [Peer("stable-pretraining", "`simclr_cifar10_config.yaml` of 0.1.8", 0, 170)],
    "text": [Peer(LUDWIG, "`getting_started/rotten_tomatoes.yaml`", 0, 18)],
}


def count_python(text: str) -> int:
    """The lines of a Python file that are neither blank nor comment nor docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            used |= set(range(token.start[0], token.end[0] + 1))
    return len(used - documented)


def count_yaml(text: str) -> int:
    """The lines of a YAML file that are neither blank nor comment."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())


def texts_of(example: Path, ending: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(example.rglob(f"*{ending}"))]


def make_table() -> str:
    rows = ["| example | what it does | Python | YAML | others: Python, YAML |", "|---|---|---|---|---|"]
    for example in EXAMPLES:
        title = (example / "README.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        python = sum(map(count_python, texts_of(example, ".py")))
        yaml = sum(map(count_yaml, texts_of(example, ".yaml")))
        peers = [f"{peer.project} {peer.python}, {peer.yaml}: {peer.files}" for peer in PEERS.get(example.name, [])]
        beside = "; ".join(peers) or "no example found"
        rows.append(f"| `{example.name}` | {title} | {python} | {yaml} | {beside} |")
    return "\n".join(rows)


def test_lines_are_counted_without_comments_and_docstrings():
    text = '"""About\nit."""\n\nx = 1  # one\n# none\n\n\ndef f():\n    """None."""\n    return """a\n\n    b"""\n'
    assert count_python(text) == 5
    assert count_yaml("# @package _global_\na: 1  # one\n\n  # none\nb:\n  - c\n") == 3


def sweep_and_compare(arguments: list[str], folder: Path) -> None:
    """Run a sweep in smoke form; every job must end, and `compare` must show a line for each setting."""
    from dl_lab import cli
    from dl_lab.runs.files import read_json
    from dl_lab.sweeps.results import outcome

    place = folder / "outputs" / "sweep"
    short = next((OTHERS[word] for word in arguments if word in OTHERS), [*TRAINING, "callbacks.curves=null"])
    assert cli.main([*arguments, *short, "logger=none", "threads=1", f"hydra.sweep.dir={place}"]) == 0, arguments
    states = [(read_json(path) or {})["state"] for path in sorted(place.glob("*/status.json"))]
    assert states and set(states) == {"done"}
    ((groups, repetitions),) = [
        (len(block.groups), {len(group.records) for group in block.groups}) for block in outcome.read(place).blocks()
    ]
    assert groups > 1 and repetitions == {len(states) // groups}
    assert cli.main(["compare", str(place)]) == 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_commands_of_an_example_work(example, tmp_path, monkeypatch, fresh_imports):
    from dl_lab import cli
    from dl_lab.runs.files import read_json

    folder = tmp_path / example.name
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("outputs", "__pycache__"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trainings = 0
    for words in commands_of(example):
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            continue
        at = words.index("dl-lab")
        for word in words[:at]:
            monkeypatch.setenv(*word.split("=", 1))
        arguments = words[at + 1 :]
        if "-m" in arguments:
            sweep_and_compare(arguments, folder)
        elif any(word.startswith("experiment=") for word in arguments):
            trainings += 1
            named = [word for word in arguments if word.startswith("hydra.run.dir=")]
            place = named or [f"hydra.run.dir=outputs/run{trainings}"]
            smoke = next((OTHERS[word] for word in arguments if word in OTHERS), TRAINING)
            assert cli.main([*arguments, *place, *smoke, "logger=none", "threads=1"]) == 0, words
            status = read_json(folder / place[0].partition("=")[2] / "status.json") or {}
            assert status["state"] == "done"
        else:
            assert cli.main(arguments) == 0, words
    assert trainings


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_code_of_an_example_is_short(example):
    assert sum(bool(line.strip()) for text in texts_of(example, ".py") for line in text.splitlines()) < LONGEST


def test_the_page_shows_how_long_the_examples_are():
    found = TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert found
    assert found[1] == make_table(), "run: python tests/test_examples.py"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    start, end = TABLE.search(text).span(1)  # pyright: ignore[reportOptionalMemberAccess]  # the page has the marks
    PAGE.write_text(text[:start] + make_table() + text[end:], encoding="utf-8")
