#!/usr/bin/env bash
# Sets everything up in .venv (once) and trains: bash scripts/run.sh experiment=octmnist_cnn
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" ""
exec .venv/bin/dl-lab "$@"
