#!/usr/bin/env bash
# Is the product right on this GPU, and how fast is it? Two parts; each ends within --seconds and keeps what it found.
#
#     benchmarks/gpu.sh correctness              compares with the processor, runs the command line, kills and resumes
#     benchmarks/gpu.sh throughput               pre-training, detection, probe; the whole chest X-ray paper by its estimate
#     benchmarks/gpu.sh correctness --device cpu --toy      the same code in small, on any machine
#
# Nothing needs to be installed but the dependencies: the sources beside this file are used.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root/src:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m gpu "$@"
