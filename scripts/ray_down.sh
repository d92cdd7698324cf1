#!/usr/bin/env bash
# Ends what ray_up.sh started, by its process group (`ray stop` would end every Ray of this machine):
#   bash scripts/ray_down.sh [FOLDER]
folder=${1:-/tmp/dl-lab-ray}
[[ -s $folder/head.pid ]] || exit 0
pid=$(<"$folder/head.pid")
kill -- -"$pid" 2>/dev/null
for _ in $(seq 40); do kill -0 -- -"$pid" 2>/dev/null || break; sleep 0.25; done
kill -KILL -- -"$pid" 2>/dev/null
rm -f "$folder/head.pid"
exit 0
