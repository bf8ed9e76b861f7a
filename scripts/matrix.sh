#!/usr/bin/env bash
# The wheel alone in fresh environments, one for each extra that is named: twinray demo at toy size, then what the extra is for.
#
#   scripts/matrix.sh PYTHON newest|minimum [EXTRA ...]     ("" is no extra; "dicom,timm" is two; each is one environment)
#
# Without an extra every verb and option that needs one must say which. MATRIX_DEMO=no leaves the demo out, MATRIX_WORK=FOLDER
# keeps the toy pack and runs. Needs uv. An environment is deleted when it was tried. CI providers call it once for each cell.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 dependencies=$2
shift 2
case $dependencies in newest) resolution=highest ;; minimum) resolution=lowest-direct ;; *) echo "expected newest or minimum, got $dependencies" >&2; exit 2 ;; esac
scripts="$PWD/scripts"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
work=${MATRIX_WORK:-$place/work}
# The environments stand in one place after another, and uv links the same files into each: torch is compiled once, not for each extra.
export PYTHONPYCACHEPREFIX="$place/compiled" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
uv build --quiet --wheel --out-dir "$place" .
wheel=$(ls "$place"/*.whl)
[ $# -gt 0 ] || set -- ""
failed=0
for extra in "$@"; do
    rm -rf "$place/venv" "$place/demo"
    uv venv --quiet --python "$python" "$place/venv"
    uv pip install --quiet --python "$place/venv/bin/python" --resolution "$resolution" "$wheel${extra:+[$extra]}" || { echo "$python, $dependencies: the wheel with '${extra}' cannot be installed"; failed=1; continue; }
    told="$("$place/venv/bin/python" -V), $dependencies, extra '${extra}', $(du -sh "$place/venv" | cut -f1)"
    if [ "${MATRIX_DEMO:-yes}" = yes ]; then
        (cd "$place" && venv/bin/twinray demo --out demo --unlabelled 40 --labelled 40 --size 64 --pretrain-size 32 \
            --pretrain-batch 16 --pretrain-epochs 1 --detect-epochs 1 --bootstrap 20 --examples 1 > demo.log 2>&1) || { tail -20 "$place/demo.log"; failed=1; continue; }
        echo "$told: demo ran"
    fi
    # from another folder: nothing of the source tree may be imported
    IFS=, read -ra names <<< "$extra"
    (cd "$place" && venv/bin/python "$scripts/try_extras.py" "$work" ${names[@]+"${names[@]}"}) | sed -u "s/^/$told: /" || failed=1
done
exit "$failed"
