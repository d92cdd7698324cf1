#!/usr/bin/env bash
# Sets up .venv (once) and runs dl-lab with the arguments: bash scripts/run.sh experiment=octmnist_cnn
# `--oldest` as the first argument uses .venv-oldest, with the oldest allowed version of every dependency.
oldest=
if [[ ${1:-} == --oldest ]]; then
    oldest=--oldest
    shift
fi
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "" "$oldest"
exec "$venv/bin/dl-lab" "$@"
