"""The recorded sessions of the docs: their commands say the same again, from an empty folder and an installed wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "docs" / "sessions.py"
RELATIVE, ABSOLUTE = 0.05, 0.02  # figures of another processor or another torch differ in their last digits

spec = importlib.util.spec_from_file_location("record_sessions", SCRIPT)
assert spec and spec.loader
sessions = importlib.util.module_from_spec(spec)
sys.modules["record_sessions"] = sessions
spec.loader.exec_module(sessions)
PAGES = sorted(page for page in sessions.PAGES.glob("*.md") if page.stem != "index")


# What differs between two recordings: times, ids, and what names the machine.
VARYING = [
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\b\d\d-\d\d-\d\d_", "TIME_"),
    (r"(?<![0-9A-Za-z])[0-9a-f]{8}\b", "ID"),
    (r"\b\d+:\d\d(:\d\d)?\b", "SPAN"),
    (r"~?[\d.,]+ ?(ms|s|min|h|seconds?|minutes?)\b", "SPAN"),
    (r"[\d.,]+/s\b", "RATE"),
    (r"\(\d+ lanes?\)", "(LANES)"),
    (r"✓ +\d+/\d+", "✓"),  # jobs may end in another order
    (r"[▁▂▃▄▅▆▇█]+", "CURVE"),
    (r"(?m)^epoch +(\d+)/(?!\1 ).*\n", ""),  # short epochs share a line
    (r"dl_lab-[\w.+]+-py3", "dl_lab-VERSION-py3"),
]
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?(?!\w)")


def skeleton(said: str) -> list[tuple[str, list[float]]]:
    """The lines of an output: each as its words with # for figures, and the figures. Lines come in a fixed order."""
    for pattern, word in VARYING:
        said = re.sub(pattern, word, said)
    lines = []
    for line in said.splitlines():
        figures = [float(figure.replace(",", "").rstrip("%")) for figure in NUMBER.findall(line)]
        words = re.sub(r"[\s─━│]+", " ", NUMBER.sub("#", line)).strip()
        if words:
            lines.append((words, figures))
    return sorted(lines)


def differences(recorded: str, now: str) -> list[str]:
    """What is not the same in two outputs."""
    one, other = skeleton(recorded), skeleton(now)
    words = [line for line, _ in one], [line for line, _ in other]
    if words[0] != words[1]:
        return [f"- {line}" for line in words[0] if line not in words[1]] + [
            f"+ {line}" for line in words[1] if line not in words[0]
        ] or ["the same line occurs another number of times"]
    found = []
    for (line, before), (_, after) in zip(one, other, strict=True):
        for a, b in zip(before, after, strict=True):
            if not math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
                found.append(f"{line}: {a:g} is now {b:g}")
    return found


def test_the_comparison_sees_another_word_and_another_figure():
    line = "epoch 3  val/loss 0.4123  2026-11-29/21-04-05_0a1b2c3d  1.4 s\n"
    assert not differences(line, "epoch 3  val/loss 0.4126  2027-01-01/00-00-00_ffffffff  12 s\n")
    assert differences(line, line.replace("0.4123", "0.5123")) == [
        "epoch # val/loss # DATE/TIME_ID SPAN: 0.4123 is now 0.5123"
    ]
    assert differences(line, line.replace("val", "test"))
    assert differences(line, line + line)


def test_there_is_a_session_for_each_kind_of_data():
    from dl_lab.commands.init import KINDS

    assert {page.stem for page in PAGES} == KINDS.keys() - {"loop"}
    for page in PAGES:
        typed = " ; ".join(step.command for step in sessions.read_steps(page))
        for word in ("pip install", "dl-lab init", "experiment=first", "-m", "compare", "report", "predict", "pytest"):
            assert word in typed, f"{page.name} lacks {word}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """A wheel, and the `bin` of an environment to install it into."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("building the wheel needs setuptools >= 77 (a development dependency)")
    wheel = sessions.build_wheel(tmp_path_factory.mktemp("source"))
    return wheel, sessions.make_environment(tmp_path_factory.mktemp("environment") / "venv")


def expect_the_same(recorded: list, replayed: list) -> None:
    for before, now in zip(recorded, replayed, strict=True):
        found = differences(before.said, now.said)
        assert not found, f"$ {before.command}\n" + "\n".join(found) + "\nrecord anew: python scripts/docs/sessions.py"


def test_the_commands_of_a_session_say_the_same_again(write_command, tmp_path):
    """Of the session with a table, `dl-lab` alone, forked."""
    recorded = sessions.read_steps(sessions.PAGES / "table.md")
    steps = [step for step in recorded if step.command.startswith(("dl-lab", "cd "))]
    assert len(steps) == len(recorded) - 2  # without pip and pytest
    binaries = tmp_path / "bin"
    binaries.mkdir()
    write_command(binaries / "dl-lab", dict(os.environ))
    here = tmp_path / "here"
    here.mkdir()
    expect_the_same(steps, sessions.replay(steps, here, None, binaries))


@pytest.mark.skipif("DL_LAB_SLOW" not in os.environ, reason="takes minutes: DL_LAB_SLOW=1 replays every session whole")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_session_says_the_same_again(page, installed, tmp_path):
    recorded = sessions.read_steps(page)
    expect_the_same(recorded, sessions.replay(recorded, tmp_path, *installed))
