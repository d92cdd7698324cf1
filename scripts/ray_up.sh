#!/usr/bin/env bash
# A Ray cluster of this one machine, for the tests and for trying things out: bash scripts/ray_up.sh [FOLDER] [CPUS]
# (FOLDER: /tmp/dl-lab-ray, short: its sockets lie below it). RAY_PORT: the port of its head. End it with ray_down.sh.
set -euo pipefail
unset OMP_NUM_THREADS  # nproc would count it
folder=${1:-/tmp/dl-lab-ray} cpus=${2:-$(nproc)} port=${RAY_PORT:-6379}
python=$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python
[[ -x $python ]] || python=python3
"$python" -c 'import ray' 2>/dev/null || { echo "Ray is not installed: pip install 'dl-lab[ray]'" >&2; exit 3; }
mkdir -p "$folder"
RAY_DISABLE_IMPORT_WARNING=1 RAY_USAGE_STATS_ENABLED=0 setsid "$python" -m ray.scripts.scripts start --head --block --port "$port" \
    --num-cpus "$cpus" --include-dashboard=false --disable-usage-stats --temp-dir "$folder" \
    >"$folder/ray.log" 2>&1 </dev/null &
echo $! >"$folder/head.pid"
for _ in $(seq 120); do
    if grep -q "Ray runtime started" "$folder/ray.log"; then
        echo "Ray is up: export RAY_ADDRESS=127.0.0.1:$port"
        exit 0
    fi
    kill -0 "$(<"$folder/head.pid")" 2>/dev/null || break
    sleep 0.5
done
echo "Ray did not come up: see $folder/ray.log" >&2
exit 1
