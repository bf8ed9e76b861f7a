#!/usr/bin/env bash
# Wheel and sdist in dist/, the same bytes whenever and wherever they are built: two builds are compared.
# Needs: pip install build twine
set -euo pipefail
cd "$(dirname "$0")/.."
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
python="${PYTHON:-python3}"
second=$(mktemp -d)
trap 'rm -rf "$second" build' EXIT
umask 022
rm -rf dist build src/*.egg-info
"$python" -m build --outdir dist .
"$python" scripts/repack_sdist.py dist/*.tar.gz
rm -rf build src/*.egg-info
"$python" -m build --outdir "$second" .
"$python" scripts/repack_sdist.py "$second"/*.tar.gz
for file in dist/*; do cmp "$file" "$second/$(basename "$file")"; done
"$python" -m twine check --strict dist/*
sha256sum dist/*
