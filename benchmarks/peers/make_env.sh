#!/bin/sh
# Makes the environment of one peer: benchmarks/peers/make_env.sh pyg|dgl|graphbolt [FOLDER]
#
# It lies in FOLDER/env-NAME, by default beside this script; `graphsys bench --envs FOLDER` finds it there. Needs
# Python 3.11 ($PYTHON) and, for pyg, a C++ compiler: its extensions are built from source.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=${1:-}
folder=${2:-$here}
pins=$here/$name.txt
if [ -z "$name" ] || [ ! -f "$pins" ]; then
    echo "usage: $0 pyg|dgl|graphbolt [FOLDER]" >&2
    exit 2
fi
env=$folder/env-$name
partial=$env.partial
rm -rf "$partial"
"${PYTHON:-python3.11}" -m venv "$partial"
pip() { "$partial/bin/python" -m pip --disable-pip-version-check "$@"; }

# torch goes first and alone: the extensions below are built against it, and their own wish might be another build.
pip install --quiet "$(grep '^torch==' "$pins")"
pip install --quiet --constraint "$pins" $(grep '^\(setuptools\|numpy\)==' "$pins") wheel
built='^torch-\(scatter\|sparse\)=='
pip install --quiet --constraint "$pins" $(grep '^[a-z]' "$pins" | grep -v "$built")
for extension in $(grep "$built" "$pins"); do
    FORCE_CUDA=0 MAX_JOBS="${MAX_JOBS:-2}" pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$partial/wheels" "$extension"
done
if [ -d "$partial/wheels" ]; then
    pip install --quiet --no-deps "$partial"/wheels/*.whl
fi
# The scripts in bin name the folder they were made in, so only the interpreter itself is used afterwards.
rm -rf "$env"
mv "$partial" "$env"
echo "$env/bin/python"
