"""One execution: check and prepare a run, perform it, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import configs
from dl_lab.configs.identity import code_fingerprint, cost_key, describe_sources
from dl_lab.configs.parts import procedure_of
from dl_lab.jobs.procedure import build_procedure, refuse_moving
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_devices, describe_environment
from dl_lab.runs.hparams import hparams
from dl_lab.runs.recorder import Run
from dl_lab.runs.records import overrides
from dl_lab.runs.yaml_text import to_yaml
from dl_lab.show import reporting, tables
from dl_lab.show.doctor.diagnose import apply_rules, describe_scope, to_markdown
from dl_lab.show.doctor.evidence import VITALS_FILE, find_fits, read_evidence
from dl_lab.types import Diverged, Interrupted, Metrics, OutOfMemory, UserError


def execute(composed: configs.Composed, command: Sequence[str], quiet: bool = False) -> Metrics:
    """Check the config, make the run's folder, train, and report.

    Args:
        composed: The config.
        command: What the user typed.
        quiet: Print nothing.

    Returns:
        The final metrics.

    Raises:
        UserError: The config is wrong, or the run fails.
        Interrupted: The user asked the run to stop.
    """
    try:
        return perform(prepare(composed, command), composed.choices, quiet=quiet)
    finally:
        configs.forget_datasets()  # another run of this process may find other files


def prepare(
    composed: configs.Composed,
    command: Sequence[str],
    facts: Mapping[str, object] | None = None,
    scratch_folder: Path | None = None,
) -> Run:
    """Check the config and make the run's folder. A wrong config leaves nothing behind.

    Args:
        composed: The config.
        command: What the user typed.
        facts: Further facts for env.json.
        scratch_folder: The run's folder for ranks of torchrun above 0: a temporary one.

    Raises:
        ConfigError: The config is wrong.
        UserError: The folder cannot be made.
    """
    config = composed.config
    configs.check(config)
    set_threads(config)
    rehearse(config).describe()  # it asks for the device: a missing one is found before anything is written
    if scratch_folder is not None:
        return make_scratch_run(scratch_folder, config)
    board = configs.build_logger(config)
    files = {**run_files(config, composed.overrides), ".hydra/hydra.yaml": composed.hydra_yaml()}
    known = {
        **describe_environment(command),
        "code": code_fingerprint(),
        **describe_sources(config),
        "devices": describe_devices(),
        **(facts or {}),
    }
    return Run.create(Path(composed.run_dir), files, config, board, {**known, "choices": composed.choices})


def make_scratch_run(folder: Path, config: dict[str, Any], resuming: bool = False) -> Run:
    """Make the run of a rank above 0. It gets a config.yaml because a run reads its own records at the end.

    Args:
        folder: A temporary folder.
        config: The run's resolved config.
        resuming: The run continues from a checkpoint.
    """
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    return Run(folder, config, NoBoard(), resuming=resuming)


def set_threads(config: Mapping[str, Any]) -> None:
    """Set the number of CPU threads, where the config names one (`threads`)."""
    import torch

    if config["threads"]:
        torch.set_num_threads(config["threads"])


def run_files(config: Mapping[str, object], overrides: Sequence[str]) -> dict[str, str]:
    """Return the files that a run folder holds before any work: the frozen config, in dl-lab's place and in Hydra's.

    Args:
        config: The resolved config.
        overrides: The words of the command line.

    Returns:
        The text of each file, by its path in the run folder.
    """
    text = to_yaml(config)
    return {
        "config.yaml": text,
        ".hydra/config.yaml": text,
        ".hydra/overrides.yaml": to_yaml(list(overrides)),
    }


def perform(run: Run, choices: Mapping[str, str], quiet: bool = False, beside_others: bool = False) -> Metrics:
    """Build the procedure that the run's config describes, and run it.

    New and resumed runs come here, alone and in sweeps.

    Args:
        run: The run and its folder.
        choices: The chosen option of each config group.
        quiet: Print nothing.
        beside_others: Other jobs share the GPU. Full memory then raises `OutOfMemory`: the sweep runs the job again
            alone, before the learner tries smaller micro-batches.

    Returns:
        The final metrics.

    Raises:
        Interrupted: The user asked the run to stop.
        Diverged: The training loss is not a finite number.
        OutOfMemory: The device has no memory left.
        UserError: Anything else failed; the traceback is in the run's status.json.
    """
    import torch

    from dl_lab.training.seeding import seed_everything

    try:
        with run.recording():
            run.board.start(
                run.folder,
                hparams(run.config, choices, overrides(run.folder)),
                (run.folder / "config.yaml").read_text("utf-8"),
            )
            seed_everything(run.config["seed"], run.config["deterministic"])
            procedure = build_procedure(_raise_out_of_memory(run.config) if beside_others else run.config)
            facts = procedure.describe()
            run.note(**facts)
            run.board.text("about", "\n".join(f"    {line}" for line in reporting.header(run, choices, facts, 200)))
            if not quiet:
                print("\n".join(reporting.header(run, choices, facts, tables.terminal_width())), file=sys.stderr)
            started = time.perf_counter()
            with refuse_moving():
                metrics = procedure(run)
            if not isinstance(metrics, Mapping):
                kind = "nothing" if metrics is None else f"a {type(metrics).__name__}"
                raise UserError(f"The procedure returned {kind}; it must return its metrics, a dictionary of numbers.")
            seconds = time.perf_counter() - started
            cost = {"key": cost_key(run.config), "seconds": seconds, "epochs": run.summary.get("epochs", 1)}
            if run.resuming:  # the seconds of this process are not those of all epochs
                run.finish(metrics)
            else:
                run.finish(metrics, cost=cost)
            metrics = run.summary["metrics"]  # plain numbers
            _show_findings(run)
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(f"{str(stop) or 'Interrupted.'} Continue with:  dl-lab resume {run.folder}") from None
    except Diverged as error:
        raise Diverged(f"{error}\n  What the records show:  dl-lab doctor {run.folder}") from error
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a bug in somebody's model: the screen stays readable
        # A resumed run that did not begin kept its old status.json, which has no traceback of this error.
        where = f"\n  The traceback is in {run.folder / 'status.json'}" if run.begun or not run.resuming else ""
        kind = OutOfMemory if isinstance(error, torch.OutOfMemoryError) else UserError
        said = "The code ended the program, sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        raise kind(f"{said}: {error}{configs.own_place(error)}{where}") from error
    if not quiet:
        print("\n".join(["", *reporting.report(run, choices, metrics, tables.terminal_width())]))
    return metrics


def _show_findings(run: Run) -> None:
    """Put the doctor's findings on the board, where the doctor watched the run."""
    texts = []
    for fit in find_fits(run.folder):
        if (fit / VITALS_FILE).exists():
            evidence = read_evidence(fit)
            heading = "" if fit == run.folder else f"### {fit.name}\n\n"
            texts.append(heading + to_markdown(apply_rules(evidence), describe_scope(evidence)))
    if texts:
        run.board.text("doctor", "\n\n".join(texts))


def _raise_out_of_memory(config: Mapping[str, object]) -> dict[str, object]:
    """Return the config with a learner that raises `OutOfMemory` instead of trying smaller micro-batches."""
    procedure = procedure_of(config)
    learner = procedure.get("learner")
    if not isinstance(learner, Mapping) or "out_of_memory" not in learner:
        return dict(config)
    return {**config, "procedure": {**procedure, "learner": {**learner, "out_of_memory": "raise"}}}
