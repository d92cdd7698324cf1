"""dl-lab [overrides]: compose, check, run, and show the result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab import preload, reporting, tables
from dl_lab.commands import HYDRA_FLAGS, MULTIRUN, is_several
from dl_lab.records import flatten, overrides
from dl_lab.run import NoBoard, Run, describe_devices, describe_environment
from dl_lab.sweeps.identity import code_fingerprint, cost_key
from dl_lab.types import Interrupted, Metrics, UserError


def main(argv: Sequence[str]) -> int:
    if any(word.split("=")[0] in HYDRA_FLAGS for word in argv):
        return _hydra(argv)
    options = parse(argv)
    composer = None if options.multirun else configs.Composer(options.config_dir, options.config_name)
    if composer is None or composer.is_multirun(options.overrides):
        from dl_lab.commands import sweep

        return sweep.main([word for word in argv if word not in ("-m", "--multirun")])
    preload.begin()
    composed = composer.compose(options.overrides)
    if is_several():
        from dl_lab.commands import _together

        _together.execute(composed, ["dl-lab", *argv])
    else:
        execute(composed, ["dl-lab", *argv])
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags that choose what is run; everything else is an override."""
    parser = argparse.ArgumentParser(prog="dl-lab", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn", default="config")
    if any(word in MULTIRUN for word in argv):
        return argparse.Namespace(multirun=True, config_dir=None, config_name="config", overrides=[])
    options, unknown = parser.parse_known_intermixed_args(list(argv))
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        raise configs.ConfigError(f"There is no flag {flags[0]}. See dl-lab --help.")
    options.overrides += unknown
    return options


def _hydra(argv: Sequence[str]) -> int:
    """Hydra's own views of a config: --cfg, --info, --hydra-help, tab completion."""
    import hydra
    from hydra._internal.utils import get_args_parser
    from omegaconf.errors import OmegaConfBaseException

    options = get_args_parser().parse_args(list(argv))
    composer = configs.Composer(options.config_dir, options.config_name or "config")
    if options.cfg or options.info:  # our words for what is wrong, before Hydra's
        config = composer.load(options.overrides, options.multirun)
        if options.resolve:
            configs.resolve(config, options.overrides)
        if options.resolve and options.cfg == "hydra":
            raise configs.ConfigError(
                "Hydra's own settings have their values only while a job runs: no --resolve here."
            )
    sys.argv = ["dl-lab", *composer.in_hydras_words(argv)]
    main = hydra.main(version_base="1.3", config_path=f"pkg://{configs.CONFIG_MODULE}", config_name="config")
    try:
        main(lambda _: None)()
    except (OmegaConfBaseException, ValueError) as error:
        raise configs.ConfigError(str(error).partition("\n")[0]) from error
    return 0


# -- one run ------------------------------------------------------------------------------------------------------


def execute(composed: configs.Composed, command: Sequence[str], quiet: bool = False) -> Metrics:
    """Check, make the run folder, run, report. The objective goes back to a sweep."""
    return perform(prepare(composed, command), composed.choices, quiet=quiet)


def prepare(
    composed: configs.Composed,
    command: Sequence[str],
    facts: Mapping[str, Any] | None = None,
    instead: Path | None = None,
) -> Run:
    """Check the config and make the run's folder; nothing is written where something is wrong.

    facts: more for env.json. instead: a folder that goes away, of a process of torchrun that is not to leave anything.
    """
    config = composed.config
    configs.check(config)
    set_threads(config)
    rehearsed = configs.rehearse(config)
    if hasattr(rehearsed, "describe"):
        rehearsed.describe()  # names the device: one that is not there is found before anything is written
    if instead is not None:
        return Run(instead, config, NoBoard())
    board = configs.build(config, "logger")
    files = {**run_files(config, composed.overrides), ".hydra/hydra.yaml": composed.hydra_yaml}
    known = {
        **describe_environment(command),
        "code": code_fingerprint(),
        "devices": describe_devices(),
        **(facts or {}),
    }
    return Run.create(Path(composed.run_dir), files, config, board, {**known, "choices": composed.choices})


def set_threads(config: Mapping[str, Any]) -> None:
    """`threads:` of a config, where it names a number."""
    import torch

    if config["threads"]:
        torch.set_num_threads(config["threads"])


def run_files(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """What a run folder holds before any work: the frozen config, in dl-lab's place and in Hydra's."""
    text = to_yaml(config)
    return {
        "config.yaml": text,
        ".hydra/config.yaml": text,
        ".hydra/overrides.yaml": to_yaml(list(overrides)),
    }


def perform(run: Run, choices: Mapping[str, str], quiet: bool = False, beside_others: bool = False) -> Metrics:
    """Build and run what the run's config describes; used for new and for resumed runs, alone and in sweeps.

    beside_others: other jobs share the GPU, so a full memory is not answered by smaller micro-batches yet.
    """
    from dl_lab.training.checkpoints import seed_everything

    try:
        with run.recording():
            run.board.start(run.folder, hparams(run.config, choices, overrides(run.folder)), _config_text(run))
            seed_everything(run.config["seed"], run.config["deterministic"])
            experiment = configs.build(_on_shared_device(run.config) if beside_others else run.config, "procedure")
            facts = experiment.describe() if hasattr(experiment, "describe") else {}
            run.note(**facts)
            run.board.text("about", "\n".join(f"    {line}" for line in reporting.header(run, choices, facts, 200)))
            if not quiet:
                print("\n".join(reporting.header(run, choices, facts, tables.terminal_width())), file=sys.stderr)
            started = time.perf_counter()
            metrics = experiment(run)
            seconds = time.perf_counter() - started
            cost = {"key": cost_key(run.config), "seconds": seconds, "epochs": run.summary.get("epochs", 1)}
            run.finish(metrics, **({"cost": cost} if not run.resuming else {}))
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(f"{str(stop) or 'Interrupted.'} Go on with:  dl-lab resume {run.folder}") from None
    except UserError:
        raise
    except Exception as error:  # a bug in somebody's model: the traceback is kept, the screen stays readable
        raise UserError(
            f"{type(error).__name__}: {error}\n  The traceback is in {run.folder / 'status.json'}"
        ) from error
    if not quiet:
        print("\n".join(["", *reporting.report(run, choices, metrics, tables.terminal_width())]))
    return metrics


def _config_text(run: Run) -> str:
    path = run.folder / "config.yaml"  # made already, but for torchrun's other processes; making it takes milliseconds
    return path.read_text(encoding="utf-8") if path.exists() else to_yaml(run.config)


def _on_shared_device(config: Mapping[str, Any]) -> dict[str, Any]:
    procedure = config["procedure"]
    learner = procedure.get("learner")
    if not isinstance(learner, Mapping) or "out_of_memory" not in learner:
        return dict(config)
    return {**config, "procedure": {**procedure, "learner": {**learner, "out_of_memory": "raise"}}}


def hparams(config: Mapping[str, Any], choices: Mapping[str, str], words: Sequence[str] = ()) -> dict[str, Any]:
    """What the HParams table shows: the chosen parts, their numbers, and what else the command line's words set.

    TensorBoard opens with the first five columns: what a model takes over from its data set (n_classes), and
    whether an optimizer is fused, is left out.
    """
    shown: dict[str, Any] = {group: choice for group, choice in choices.items() if group in SHOWN_CHOICES}
    asked = {word.lstrip("+").partition("=")[0] for word in words}
    data = config.get("dataset") or {}
    for key, value in flatten(config).items():
        group, name = key.partition(".")[0], key.rpartition(".")[2]
        if key in asked and group not in HIDDEN_GROUPS:
            shown[key] = value if isinstance(value, bool | int | float | str) else str(value)
        elif key in SHOWN_KEYS or (group in SHOWN_GROUPS and name not in data and name != "fused"):
            shown |= {key: value} if isinstance(value, bool | int | float | str) and not name.startswith("_") else {}
    return shown


SHOWN_CHOICES = ("experiment", "dataset", "model", "optimizer", "scheduler")
SHOWN_GROUPS = ("model", "optimizer", "scheduler")
SHOWN_KEYS = ("seed", "trainer.batch_size", "trainer.max_epochs")
HIDDEN_GROUPS = ("hydra", "paths", "threads", "logger", "callbacks")


def to_yaml(value: Any) -> str:
    """YAML of plain values. A part that another config of this process had too (jobs of a sweep) is not made again."""
    if not isinstance(value, Mapping) or not value:
        return _dumped(value)
    return "".join(_remembered(key, item) for key, item in value.items())


def _remembered(key: str, item: Any) -> str:
    if not isinstance(item, Mapping) or not item:
        return _part({key: item})
    head = f"{key}:\n"
    return head + "".join(_part({key: {name: part}}).removeprefix(head) for name, part in item.items())


def _part(part: Mapping[str, Any]) -> str:
    known_as = repr(part)
    if known_as not in _YAML:
        _YAML[known_as] = _dumped(part)
    return _YAML[known_as]


_YAML: dict[str, str] = {}


def _dumped(value: Any) -> str:
    import yaml

    return yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, allow_unicode=True)
