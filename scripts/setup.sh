# Sourced by run.sh and test.sh: makes .venv once, and again when pyproject.toml or constraints.txt change.
# Sets `python`. Usage: . scripts/setup.sh EXTRA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=$1
python=.venv/bin/python
stamp=.venv/.ready-$extra
wanted=$(cat pyproject.toml constraints.txt | cksum)

if [[ ! -f $stamp || $(cat "$stamp") != "$wanted" ]]; then
    base=
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            base=$candidate
            break
        fi
    done
    [[ -n $base ]] || {
        echo "dl-lab needs Python 3.11 or newer; none was found." >&2
        exit 1
    }
    [[ -x $python ]] || "$base" -m venv .venv
    echo "Setting up .venv (once; about two minutes) ..." >&2
    "$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".$extra" || {
        echo "Setting up .venv failed; see pip's message above. Run the same command again to go on." >&2
        exit 1
    }
    echo "$wanted" >"$stamp"
fi
