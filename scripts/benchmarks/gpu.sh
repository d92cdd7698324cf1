#!/usr/bin/env bash
# What only a GPU can tell, in under twelve minutes, in the order of its worth: what comes last may be cut off.
#
#   bash scripts/benchmarks/gpu.sh [--cpu-check] [FOLDER FOR THE RESULTS]
#
# --cpu-check runs every part at a tiny size on the CPU: does the script itself work? It needs no GPU.
# MINUTES=12 is the time of everything; PYTHON=python3 the Python that runs dl-lab where there is no .venv. A part that
# fails or runs out of time is said, and the others go on. With data in DL_LAB_DATA the last part trains on CIFAR-10.
set -u
cd "$(dirname "$0")/../.."
check=0
if [[ ${1:-} == --cpu-check ]]; then
    check=1
    shift
fi
out=${1:-outputs/gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
device=cuda
if ((check)); then
    device=cpu
elif ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch finds no CUDA device on this machine. Try the script itself with --cpu-check." >&2
    exit 1
fi
end=$((SECONDS + 60 * ${MINUTES:-12}))
failed=0

# part NAME SECONDS COMMAND...: runs a command, for at most so many seconds and no longer than the time that is left.
part() {
    local name=$1 limit=$2 left=$((end - SECONDS)) began=$SECONDS status
    shift 2
    if ((left < 5)); then
        echo "== $name: no time left" | tee -a "$out/summary.txt"
        failed=1
        return 1
    fi
    timeout $((limit < left ? limit : left)) "$@" >"$out/$name.txt" 2>&1
    status=$?
    echo "== $name: status $status, $((SECONDS - began)) s" | tee -a "$out/summary.txt"
    if ((status)); then
        failed=1
        tail -n 5 "$out/$name.txt"
    else
        tail -n 20 "$out/$name.txt"
    fi
    return $status
}

# lab NAME SECONDS OVERRIDES...: one dl-lab command. Each has a folder of its own: a sweep would take finished jobs from
# another one.
lab() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$python" -m dl_lab "$@" "paths.output_dir=$out/runs/$name"
}

: >"$out/summary.txt"
if ((check)); then
    echo "a check on the CPU, at tiny sizes: no figure here counts" | tee -a "$out/summary.txt"
else
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee -a "$out/summary.txt"
fi
date -u +%Y-%m-%d | tee -a "$out/summary.txt"

# 1. The tests that need a GPU (all of them are skipped without one).
mapfile -t files < <(grep -rl --include='test_*.py' 'mark.gpu' tests)
part tests 150 "$python" -m pytest -q -m gpu -p no:cacheprovider "${files[@]}"

# 2. Families at small and large batches, beside the hand-tuned loop and torch.compile of it; is the GPU starved?
sizes=(--batch 64 512)
((check)) && sizes=(--device cpu --batch 16 --samples 64 --steps 2 --family MLP --backend eager)
part steps 240 "$python" scripts/benchmarks/gpu_steps.py "${sizes[@]}" --seconds 200 --json "$out/steps.json"

# 3. Many small jobs on one GPU: time(16) and time(32) against time(1), by lanes, one after the other, and with MPS.
job=(experiment=octmnist_cnn dataset.source=generated "trainer.device=$device" trainer.batch_size=64 callbacks.curves=null
    callbacks.confusion_matrix=null)
if ((check)); then
    job+=(dataset.n_generated=64 trainer.max_epochs=1)
    counts=(2 3)
    lanes=2
else
    job+=(dataset.n_generated=8192 trainer.max_epochs=3)
    counts=(16 32)
    lanes=8
fi
sweep() { # NAME JOBS LANES
    local began
    began=$(date +%s.%N)
    lab "$1" 120 -m "${job[@]}" "seed=range($2)" "lanes=$3" && "$python" - "$1" "$2" "$3" "$began" <<'PY' | tee -a "$out/sweeps.txt"
import sys, time

name, jobs, lanes, began = sys.argv[1:]
print(f"{name}: {jobs} jobs in {lanes} lanes, {time.time() - float(began):.1f} s")
PY
}
: >"$out/sweeps.txt"
sweep sweep_one 1 1
for n in "${counts[@]}"; do sweep "sweep_${n}_lanes" "$n" "$lanes"; done
sweep sweep_in_turn "${counts[0]}" 1
if ((!check)) && command -v nvidia-cuda-mps-control >/dev/null; then
    if nvidia-cuda-mps-control -d; then
        for n in "${counts[@]}"; do sweep "sweep_${n}_mps" "$n" "$lanes"; done
        echo quit | nvidia-cuda-mps-control
    fi
else
    echo "MPS: not tried (no nvidia-cuda-mps-control here)" | tee -a "$out/summary.txt"
fi

# 4. Exact resume: a training that is cut after half of its updates and resumed has the bits of one that was not.
part resume 60 "$python" scripts/benchmarks/gpu_resume.py --device "$device" $( ((check)) && echo --samples 64)

# 5. Attention at long lengths.
cost=('procedure.lengths=[1024,2048,4096,8192,16384,32768,65536,131072]')
((check)) && cost=('procedure.lengths=[64,128]' procedure.seconds=0.01)
for causal in false true; do
    lab "attention_cost_$causal" 60 experiment=attention_cost "procedure.causal=$causal" "procedure.device=$device" \
        "${cost[@]}"
done

# 6. CIFAR-10 to 94 %.
if ((check)); then
    lab cifar_resnet9 60 experiment=cifar_resnet9 profile=smoke
elif [[ -n ${DL_LAB_DATA:-} ]]; then
    lab cifar_resnet9 300 experiment=cifar_resnet9 profile=gpu
else
    echo "CIFAR-10: not tried (DL_LAB_DATA names no folder)" | tee -a "$out/summary.txt"
fi
echo "== everything: $SECONDS s, results in $out" | tee -a "$out/summary.txt"
((check)) && exit $failed
exit 0
