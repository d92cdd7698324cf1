#!/usr/bin/env bash
# What only a GPU can tell: the tests marked gpu, throughput and sweeps on it, and the experiments whose results
# need one. Usage, from the project's root: bash scripts/benchmarks/gpu.sh [FOLDER FOR THE RESULTS]
# Uses the Python that runs dl-lab (PYTHON=python3 where there is no .venv); each part's failure is reported, not fatal.
set -u
cd "$(dirname "$0")/../.."
out=${1:-outputs/gpu}
mkdir -p "$out"
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "gpu.sh: torch finds no CUDA device on this machine." >&2
    exit 1
}
part() {
    local name=$1
    shift
    echo "== $name" | tee -a "$out/summary.txt"
    if timeout "${LIMIT:-240}" "$@" >"$out/$name.txt" 2>&1; then
        tail -n 20 "$out/$name.txt"
    else
        echo "   failed or out of time (status $?): $out/$name.txt" | tee -a "$out/summary.txt"
        tail -n 5 "$out/$name.txt"
    fi
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/summary.txt"
date -u +%Y-%m-%d | tee -a "$out/summary.txt"
part tests "$python" -m pytest -m gpu -p no:cacheprovider
for precision in fp32 bf16; do
    part "cnn_mnist_$precision" "$python" -m dl_lab experiment=octmnist_cnn dataset=mnist "learner.precision=$precision" \
        trainer.device=cuda trainer.batch_size=64 trainer.max_epochs=3 "hydra.run.dir=$out/cnn_mnist_$precision"
done
part sweep_gpu "$python" -m dl_lab -m experiment=octmnist_cnn dataset.source=generated trainer.batch_size=64 trainer.max_epochs=3 \
    "optimizer.lr=0.1,0.05,0.02,0.01" "seed=range(4)" "paths.output_dir=$out/sweep"
cp "$out"/sweep/sweeps/*/*/results.csv "$out/sweep_results.csv" 2>/dev/null || true
for causal in false true; do
    part "attention_cost_$causal" "$python" -m dl_lab experiment=attention_cost "procedure.causal=$causal" procedure.device=cuda \
        "procedure.lengths=[1024,2048,4096,8192,16384,32768,65536,131072]" "hydra.run.dir=$out/attention_cost_$causal"
done
# With data in DL_LAB_DATA: the goals that only a GPU reaches in minutes.
if [[ -n ${DL_LAB_DATA:-} ]]; then
    export LIMIT=900
    part cifar_resnet9 "$python" -m dl_lab experiment=cifar_resnet9 profile=gpu "hydra.run.dir=$out/cifar_resnet9"
    part image_models "$python" -m dl_lab experiment=image_models profile=gpu "hydra.run.dir=$out/image_models"
    part glove_transformer "$python" -m dl_lab experiment=glove_transformer profile=gpu "hydra.run.dir=$out/glove_transformer"
    part imdb_bilstm_glove "$python" -m dl_lab experiment=imdb_bilstm_glove profile=gpu "hydra.run.dir=$out/imdb_bilstm_glove"
    part lj_speech_lstm "$python" -m dl_lab experiment=lj_speech_lstm profile=gpu "hydra.run.dir=$out/lj_speech_lstm"
fi
