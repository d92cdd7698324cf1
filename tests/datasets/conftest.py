"""Fixtures of the tests of data sets."""

from __future__ import annotations

from typing import Any

import pytest

from dl_lab import configs


@pytest.fixture(scope="session")
def settings():
    """The arguments that a data set's YAML gives to its function: `settings("mnist", "dataset.held_out.n_val=9")`."""
    composer = configs.Composer()

    def settings(name: str, *overrides: str) -> dict[str, Any]:
        config = composer.compose([f"dataset={name}", "profile=smoke", *overrides]).config["dataset"]
        arguments = {key: value for key, value in config.items() if key != "_target_"}
        return configs.build({"arguments": arguments}, "arguments")

    return settings
