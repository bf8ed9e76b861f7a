#!/usr/bin/env bash
# The wheel alone in fresh environments: twinray demo at toy size, with each extra that is named.
#
#   scripts/matrix.sh PYTHON newest|minimum [EXTRA ...]     ("" is no extra; "dicom,timm" is two)
#
# Needs uv and build. An environment is deleted when its demo has run. CI providers call it once for each cell.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 dependencies=$2
shift 2
case $dependencies in newest) resolution=highest ;; minimum) resolution=lowest-direct ;; *) echo "expected newest or minimum, got $dependencies" >&2; exit 2 ;; esac
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
uv build --quiet --wheel --out-dir "$place" .
wheel=$(ls "$place"/*.whl)
for extra in "${@:-}"; do
    rm -rf "$place/venv" "$place/demo"
    uv venv --quiet --python "$python" "$place/venv"
    uv pip install --quiet --python "$place/venv/bin/python" --resolution "$resolution" "$wheel${extra:+[$extra]}"
    (cd "$place" && OMP_NUM_THREADS=1 venv/bin/twinray demo --out demo --unlabelled 16 --labelled 24 --size 64 --pretrain-size 32 \
        --pretrain-batch 8 --pretrain-epochs 1 --detect-epochs 1 --bootstrap 20 --examples 1 > demo.log 2>&1) || { tail -20 "$place/demo.log"; exit 1; }
    echo "$("$place/venv/bin/python" -V), $dependencies, extra '${extra}': demo ran; environment $(du -sh "$place/venv" | cut -f1)"
done
