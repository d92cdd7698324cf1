#!/usr/bin/env bash
# Sets everything up in .venv (once) and runs every check: bash scripts/test.sh [pytest arguments]
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "[dev]"
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --quiet --check .
.venv/bin/basedpyright --warnings
export OMP_NUM_THREADS=1
exec "$python" -m pytest --numprocesses 2 --dist loadgroup "$@"
