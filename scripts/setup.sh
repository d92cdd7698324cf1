# Sourced by run.sh and test.sh: `. scripts/setup.sh EXTRA [--oldest]`. It makes the virtual environment once, and
# again when pyproject.toml or the constraints change. It changes to the project's folder and sets `venv` and `python`.
#
# EXTRA     which optional dependencies to install, for example "[dev]"; may be empty.
# --oldest  uses .venv-oldest with the oldest allowed version of every dependency (constraints-oldest.txt).
#
# DL_LAB_WHEELS=DIR       installs from the wheels in DIR and uses no network.
# DL_LAB_SYSTEM_TORCH=1   keeps the torch that the machine's Python already has, if its version is allowed.
#
# Uses uv where it is installed, and pip otherwise. docs/setup.md says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extra=$1
venv=.venv
constraints=constraints.txt
if [[ ${2:-} == --oldest ]]; then
    venv=.venv-oldest
    constraints=constraints-oldest.txt
fi
python=$venv/bin/python

say() { echo "dl-lab setup: $*" >&2; }

# Prints the first Python on the path that is new enough, or nothing.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# Prints the version of torch that a Python has, or nothing. Reads only the metadata: importing torch takes seconds.
torch_version() {
    "$1" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true
}

# True if this version of torch lies in the range that pyproject.toml names.
allows_torch() {
    local lowest above
    read -r lowest above < <(sed -nE 's/.*"torch>=2\.([0-9]+),<2\.([0-9]+)".*/\1 \2/p' pyproject.toml)
    [[ $1 =~ ^2\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= lowest && BASH_REMATCH[1] < above))
}

make_environment() {
    local base options=()
    base=$(find_python)
    if [[ -z $base ]]; then
        command -v uv >/dev/null || {
            say "dl-lab needs Python 3.11 or newer; none was found."
            return 1
        }
        say "no Python 3.11 or newer was found; uv fetches one."
        uv venv --seed --python '>=3.11' "$venv"
        return
    fi
    local torch
    torch=$(torch_version "$base")
    if allows_torch "$torch"; then
        if [[ -n ${DL_LAB_SYSTEM_TORCH:-} ]]; then
            options=(--system-site-packages)
        else
            say "$base has torch $torch already. To use it and download none: DL_LAB_SYSTEM_TORCH=1, before the first setup."
        fi
    fi
    say "making $venv with $("$base" --version)."
    "$base" -m venv "${options[@]}" "$venv" || {
        rm -rf "$venv"
        say "'$base -m venv' failed; on Debian and Ubuntu, install python3-venv."
        return 1
    }
}

# Prints the constraints file to use. Where the environment keeps the machine's torch, its pins are left out.
choose_constraints() {
    if [[ -n ${DL_LAB_SYSTEM_TORCH:-} ]] && grep -qs 'include-system-site-packages = true' "$venv/pyvenv.cfg"; then
        grep -vE '^torch(vision|audio)?==' "$constraints" >"$venv/constraints.txt"
        echo "torch==$(torch_version "$python")" >>"$venv/constraints.txt"
        echo "$venv/constraints.txt"
    else
        echo "$constraints"
    fi
}

install_packages() {
    local chosen source=()
    chosen=$(choose_constraints)
    if [[ -n ${DL_LAB_WHEELS:-} ]]; then
        [[ -d $DL_LAB_WHEELS ]] || {
            say "DL_LAB_WHEELS names no folder: $DL_LAB_WHEELS"
            return 1
        }
        source=(--no-index --find-links "$DL_LAB_WHEELS")
    fi
    if [[ -n $(torch_version "$python") ]]; then
        say "installing what is missing; torch $(torch_version "$python") is there."
    elif [[ -n ${DL_LAB_WHEELS:-} ]]; then
        say "installing from $DL_LAB_WHEELS."
    else
        say "downloading torch and the other packages, once: about 3 GB with CUDA on Linux."
    fi
    # Everything that pip and uv print goes to standard error, so that a run's own output stays apart.
    if command -v uv >/dev/null; then
        uv pip install --python "$python" "${source[@]}" --constraint "$chosen" --editable ".$extra" >&2
    else
        "$python" -m pip install --disable-pip-version-check "${source[@]}" --constraint "$chosen" --editable ".$extra" >&2
    fi
}

# The stamp says which requirements the environment fulfils. Only one setup works on an environment at a time.
prepare() {
    local stamp=$venv/.ready-$extra wanted
    wanted=$(cat pyproject.toml "$constraints" | cksum)
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
    if command -v flock >/dev/null; then
        exec {lock}>"$venv.lock"
        flock --nonblock "$lock" || {
            say "another setup is at work; waiting for it."
            flock "$lock"
        }
        [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
    fi
    [[ -x $python ]] || make_environment || return 1
    install_packages || {
        say "installing failed; see the message above. The same command tries again and keeps what is already there."
        return 1
    }
    echo "$wanted" >"$stamp"
    say "done."
}

prepare || exit 1
[[ -z ${lock:-} ]] || exec {lock}>&-
