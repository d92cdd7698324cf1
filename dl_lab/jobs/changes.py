"""Whether the code and the data of a recorded run are still those that it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import configs
from dl_lab.configs import sources, start
from dl_lab.configs.identity import code_fingerprint, data_files, describe_sources
from dl_lab.configs.parts import dataset_of
from dl_lab.datasets.contents import MISSING
from dl_lab.runs.files import as_mapping, read_json
from dl_lab.types import UserError

MOST_NAMED = 3  # files in a message


def refuse_changes(folder: Path, config: Mapping[str, Any], action: str, mixed_code: bool, shipped: bool) -> None:
    """Refuse to continue or compare a run whose code or data changed since it began.

    Args:
        folder: The run's folder. A run without a record of its code and data is not refused.
        config: Its resolved config.
        action: What the command would do with the run, in the words of its message ("resumed").
        mixed_code: Accept other code. Other data are always refused.
        shipped: Also look at dl-lab's own code.

    Raises:
        UserError: The code or the data changed.
    """
    recorded = read_json(folder / "env.json") or {}
    if "code" not in recorded:
        return
    now = describe_sources(config)
    hint = _hint_at_folder(recorded)
    changed = _find_changes(recorded, now, "data_files")
    for key in [key for key in start.KEYS if key in changed]:
        changed.remove(key)
        # A checkpoint holds all weights: a run that has one no longer needs those that it began with.
        needs_start = action != "resumed" or not any((folder / "checkpoints").glob("*.pt"))
        if key in as_mapping(recorded.get("data_files")) and needs_start:
            raise UserError(
                f"{folder} cannot be {action}: the weights that it began with ({key}) changed since, or are gone."
            )
    missing = [name for name in changed if now.get("data_files", {}).get(name, MISSING) == MISSING]
    if missing:
        raise UserError(
            f"{folder} cannot be {action}: data that it began with are missing here ({_name(missing)}). Put them into "
            f"the data folder, or set DL_LAB_DATA to the folder that holds them.{hint}"
        )
    if changed:
        raise UserError(
            f"{folder} cannot be {action}: its data changed since it began ({_name(changed)}). "
            f"A new run uses the present data.{hint}"
        )
    if _gives_other_data(folder, config):
        raise UserError(
            f"{folder} cannot be {action}: its data set gives other data than when it began. A new run uses the "
            f"present data.{hint}"
        )
    if mixed_code:
        return
    changed = _find_changes(recorded, now, "own_code")
    if changed:
        raise UserError(
            f"{folder} cannot be {action}: your own code changed since it began ({_name(changed)}). "
            f"--mixed-code accepts the present code.{hint}"
        )
    if shipped and recorded["code"] != code_fingerprint():
        raise UserError(
            f"{folder} cannot be {action}: dl-lab's code changed since it began ({recorded['code']} is now "
            f"{code_fingerprint()}). --mixed-code accepts the present code."
        )


def _gives_other_data(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a data set of the user's own gives other data than the run began with.

    Neither its config nor its source names its files, so the data set is built and its content compared.
    """
    dataset = dataset_of(config)
    status = read_json(folder / "status.json") or {}
    before = as_mapping(status.get("dataset")).get("fingerprint")
    if before is None or not sources.own_targets(dataset) or set(data_files(config)) - set(start.KEYS):
        return False
    from dl_lab.runs.random_state import random_state, set_random_state
    from dl_lab.training.seeding import seed_everything

    state = random_state()
    seed_everything(config["seed"], config["deterministic"])
    found = configs.build({"dataset": dataset}, "dataset").fingerprint
    set_random_state(state)
    return found != before


def _find_changes(recorded: Mapping[str, object], now: Mapping[str, Mapping[str, str]], part: str) -> list[str]:
    """Return the files of one part ("data_files", "own_code") whose digests differ."""
    before = as_mapping(recorded.get(part))
    after = now.get(part, {})
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _hint_at_folder(recorded: Mapping[str, object]) -> str:
    """Name the folder in which the run began, where it is not the present one: relative names start from it."""
    began = recorded.get("folder")
    return f" The run began in the folder {began}." if began and Path(str(began)) != Path.cwd() else ""


def _name(files: Sequence[str]) -> str:
    """Name the first files, and say how many more there are."""
    named = ", ".join(files[:MOST_NAMED])
    n_more = len(files) - MOST_NAMED
    return f"{named} and {n_more} more" if n_more > 0 else named
