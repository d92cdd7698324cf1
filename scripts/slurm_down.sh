#!/usr/bin/env bash
# Ends what slurm_up.sh started, by its pid files: bash scripts/slurm_down.sh [FOLDER]   (munged stays: others may use it)
folder=${1:-/tmp/dl-lab-slurm}
for file in "$folder/slurmd.pid" "$folder/slurmctld.pid"; do
    [[ -s $file ]] || continue
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 40); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
done
exit 0
