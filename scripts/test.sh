#!/usr/bin/env bash
# Sets up .venv (once) and runs every check: bash scripts/test.sh [--quick | --oldest | --clusters] [pytest arguments]
#
# --quick     for the inner loop: all but the long tests, which tests/long_tests.txt lists.
# --oldest    the tests in .venv-oldest, with the oldest allowed version of every dependency.
# --clusters  only the tests that start a SLURM or a Ray cluster on this machine. They need root and its software, which
#             .ci/run installs; without it they are skipped with a reason.
select="not slurm and not ray"
oldest=
checks=yes
workers=3 # on two cores: some tests wait for a process or a page, and each worker collects all tests
while true; do
    case ${1:-} in
    --quick) select="$select and not long" ;;
    --oldest) oldest=--oldest checks= ;;
    --clusters) select="slurm or ray" checks= workers=3 ;; # .ci/run runs them beside the others
    *) break ;;
    esac
    shift
done
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh" "[dev]" "$oldest"

if [[ -n $checks ]]; then
    "$venv/bin/ruff" check --quiet .
    "$venv/bin/ruff" format --quiet --check .
    # Checking the types takes half a minute of one core, so the tests run meanwhile. Its answer comes after theirs.
    types=$(mktemp)
    "$venv/bin/basedpyright" --warnings >"$types" 2>&1 &
    checker=$!
    trap 'kill "$checker" 2>/dev/null || true; rm -f "$types"' EXIT
fi
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE # without compiled files, each process would compile dl_lab and the tests anew
status=0
"$python" -m pytest --numprocesses "$workers" --dist loadgroup -m "$select" "$@" || status=$?
if [[ -n $checks ]]; then
    wait "$checker" || status=1
    cat "$types"
fi
exit "$status"
