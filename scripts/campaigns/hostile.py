"""Hostile configs: none may execute anything, and each is refused in a sentence.

Every attack that would succeed creates a file (`canary`), starts a process, or writes outside its folder; the process
that runs the commands watches for all three.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from campaigns.processes import Problem
from campaigns.shell import Shell

TARGETS = (
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "pathlib.Path.touch",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "pickle.loads",
    "yaml.unsafe_load",
    "hydra.utils.instantiate",
    "hydra._internal.utils._locate",
    "importlib.import_module",
    "dl_lab.cli.main",
    "dl_lab.runs.files.write_atomic",
    "dl_lab.datasets.download.fetch",
    "torch.nn.Module.__init__.__globals__",
    "torch.nn.modules.module.torch.load",
    "torch.optim.optimizer.torch._utils.os.system",
    "torchvision.models.__builtins__.eval",
    "evil.touch",
)
PLACES = (
    "model",
    "optimizer",
    "task",
    "dataset",
    "scheduler",
    "trainer",
    "logger",
    "learner",
    "callbacks.curves",
    "procedure",
    "model.hidden",
    "dataset.order",
    "search",
    "launcher",
    "predictor",
)


@dataclass(frozen=True)
class Attack:
    """One hostile command.

    Args:
        words: what is typed.
        files: YAML files below the user's config folder `own`, by their paths.
        source: where the data come from.
    """

    words: list[str]
    files: dict[str, str] = field(default_factory=dict)
    source: str = "generated"


def attacks(canary: str) -> Iterator[tuple[str, Attack]]:
    """All attacks by name."""
    for target in TARGETS:
        node = f"{{_target_: {target}, _args_: ['touch {canary}']}}"
        yield (
            f"_target_ {target}",
            Attack(["experiment=evil"], {"experiment/evil.yaml": _experiment(f"model: {node}")}),
        )
    for place in PLACES:
        node = f"{{_target_: os.system, command: 'touch {canary}'}}"
        sweep = ["-m", "seed=0,1"] if place in ("search", "launcher") else []  # a single run has no such part
        yield f"_target_ at {place}", Attack([*sweep, f"++{place}={node}"])
    yaml_attacks = {
        "python/object/apply": f"seed: !!python/object/apply:os.system ['touch {canary}']",
        "python/object/new": f"seed: !!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        "python/name": "seed: !!python/name:os.system",
        "python/module": "seed: !!python/module:evil",
        "own tag": f"seed: !run 'touch {canary}'",
        "alias of a target": f"task: &a {{_target_: os.system, command: 'touch {canary}'}}\nmodel: *a",
        "merge of a target": f"task: &a {{_target_: os.system}}\nmodel: {{<<: *a, command: 'touch {canary}'}}",
        "huge anchors": _billion_laughs(),
        "deep nesting": "a: " + "[" * 3000 + "]" * 3000,
        "interpolated target": f"a: os.system\nmodel: {{_target_: '${{a}}', command: 'touch {canary}'}}",
        "oc.env": "seed: ${oc.env:HOME}",
        "oc.create": f'model: "${{oc.create:{{_target_:os.system,command:touch {canary}}}}}"',
        "oc.decode": f"model: \"${{oc.decode:'{{_target_: os.system, command: touch {canary}}}'}}\"",
        "unknown resolver": f"seed: ${{shell:'touch {canary}'}}",
        "hydra resolver": "seed: ${hydra:runtime.cwd}",
        "own searchpath": "hydra: {searchpath: ['pkg://evil']}",
        "own launcher": f"hydra: {{launcher: {{_target_: os.system, command: 'touch {canary}'}}}}",
        "own sweeper": "hydra: {sweeper: {_target_: evil.touch}}",
        "hydra callbacks": f"hydra: {{callbacks: {{x: {{_target_: os.system, command: 'touch {canary}'}}}}}}",
        "job environment": "hydra: {job: {env_set: {PYTHONPATH: /tmp, LD_PRELOAD: evil.so}}}",
        "binary": "seed: !!binary gASVJgAAAAAAAACMBXBvc2l4",
        "null bytes": 'seed: "\\0"',
    }
    for name, text in yaml_attacks.items():
        yield f"YAML: {name}", Attack(["experiment=evil"], {"experiment/evil.yaml": _experiment(text)})
    yield (
        "data file leaves",
        Attack(["dataset=mnist", "dataset.storage.files=[{path: ../../../../etc/passwd}]"], source="real"),
    )
    yield "data folder of a device", Attack(["dataset=mnist", "paths.data_dir=/dev/null"], source="real")
    yield "group leaves", Attack(["model=../../../../etc/passwd"])
    yield "own package without consent", Attack(["++model={_target_: evil.Model}"])
    yield "consent inside the config", Attack(["++allow=[evil]", "++model={_target_: evil.Model}"])
    yield "config folder of a device", Attack(["--config-dir=/dev/stdin"])


def _experiment(text: str) -> str:
    return f"# @package _global_\n# Does this run?\n{text}\n"


def _billion_laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


def names() -> list[str]:
    """List the names of the attacks."""
    return [name for name, _ in attacks("")]


def attack(work: Path, rng: random.Random, name: str) -> None:
    """Type one hostile command and see that nothing of it was executed."""
    folder = work / "hostile"
    canary = work / "canary"
    shutil.rmtree(folder / "own", ignore_errors=True)
    (folder / "own").mkdir(parents=True)
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\ntouch = Model = print\n")
    found = dict(attacks(str(canary)))[name]
    for path, text in found.files.items():
        (folder / "own" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "own" / path).write_text(text)
    words = [*found.words, "profile=smoke", f"dataset.source={found.source}", "threads=1"]
    if found.files:
        words.append("--config-dir=own")
    answer = Shell.at(folder).run(words)
    if canary.exists():
        canary.unlink()
        raise Problem("the attack was executed")
    if answer["error"]:
        raise Problem(f"a traceback: {answer['error'].strip().splitlines()[-1]}")
    if answer["events"]:
        raise Problem(f"the command did what it must not: {answer['events'][:2]}")
    harmless = answer["code"] == 0 and name in HARMLESS
    if answer["code"] == 0 and not harmless:
        raise Problem("it was not refused")


# What dl-lab accepts because nothing of it is executed: text as a value that the check of types allows.
HARMLESS: tuple[str, ...] = ()
