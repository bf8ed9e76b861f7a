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
# what git tracks and nothing else, but for setuptools' own files
git ls-files | LC_ALL=C sort > "$second/tracked"
tar tzf dist/*.tar.gz | sed 's#^[^/]*/##' | grep -vE '/$|^$|^PKG-INFO$|^setup\.cfg$|\.egg-info/' | LC_ALL=C sort > "$second/members"
diff "$second/tracked" "$second/members" || { echo "the sdist is not what git tracks (<: missing, >: too much); mend MANIFEST.in" >&2; exit 1; }
for file in dist/*; do cmp "$file" "$second/$(basename "$file")"; done
"$python" -m twine check --strict dist/*
sha256sum dist/*
