#!/bin/sh
# Make .venv at the root of the project: `setup.sh run|test [PYTHON]`, called by `make run` and `make test`.
# "test" adds what the tests need besides Python packages: Debian's chromium, redis-server, nginx, nodejs, jq and a C compiler.
# Without PYTHON it takes the first suitable Python of this machine. TORCH=cpu or TORCH=cuda chooses the build of torch.
set -eu
what=$1
python=${2:-}
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The embedded Triton runs its models on CPython 3.11 or 3.12.
is_supported() { case $1 in 3.11 | 3.12) true ;; *) false ;; esac }

can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Triton's Python stub links libpython<version>.so; a Python that was built by hand has it in its own LIBDIR.
has_libpython() {
    "$1" -c '
import pathlib, sys, sysconfig
folder = pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
name = "libpython%d.%d.so*" % sys.version_info[:2]
sys.exit(not any(found for pattern in (name, "*/" + name) for found in folder.glob(pattern)))' >/dev/null 2>&1
}

# Pythons of this machine, best first: on PATH, then those that pyenv and uv manage.
candidates() {
    for name in python3 python3.12 python3.11; do
        if command -v "$name"; then :; fi
    done
    pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
    uv=${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/uv/python}
    for path in "$pyenv"/3.12.*/bin/python3.12 "$pyenv"/3.11.*/bin/python3.11 \
        "$uv"/cpython-3.12.*/bin/python3.12 "$uv"/cpython-3.11.*/bin/python3.11; do
        if [ -x "$path" ]; then printf '%s\n' "$path"; fi
    done
}

# Prints the first candidate that lacks nothing, else the first of a supported version.
find_python() {
    incomplete=
    while read -r path; do
        version=$(version_of "$path") && is_supported "$version" || continue
        if can_make_venv "$path" && has_libpython "$path"; then
            printf '%s\n' "$path"
            return
        fi
        incomplete=${incomplete:-$path}
    done <<PATHS
$(candidates)
PATHS
    printf '%s\n' "$incomplete"
}

hint="Install one with \`uv python install 3.12\` (uv itself: \`pip install uv\`) or with your distribution's packages, then run \`make $what\` again. A Python elsewhere: \`make $what PYTHON=/path/to/python3.12\`."
if [ -z "$python" ]; then
    python=$(find_python)
    if [ -z "$python" ]; then
        found=$(version_of python3) && found="python3 is $found" || found="there is no python3"
        fail "The embedded Triton needs Python 3.11 or 3.12. Neither was found ($found). $hint"
    fi
fi
version=$(version_of "$python") || fail "Cannot run the Python '$python'. $hint"
is_supported "$version" || fail "'$python' is Python $version, and the embedded Triton needs 3.11 or 3.12. $hint"
if [ -x .venv/bin/python ]; then
    made=$(version_of .venv/bin/python) && is_supported "$made" ||
        fail ".venv has Python ${made:-that does not run}, and the embedded Triton needs 3.11 or 3.12. Remove the folder (rm -r .venv) and run \`make $what\` again."
    version=$made
else
    say "using $python (Python $version)"
fi

# Debian packages: root installs them, anybody else reads which.
packages=
need() { packages="$packages $*"; }
if ! [ -x .venv/bin/python ]; then
    can_make_venv "$python" || need "python$version-venv"
    if ! has_libpython "$python"; then
        case $(command -v "$python") in
        /usr/bin/*) need "libpython$version" ;;
        *) fail "'$python' was built without its shared library libpython$version.so, which Triton needs. $hint" ;;
        esac
    fi
fi
if [ "$what" = test ]; then
    command -v chromium >/dev/null || need chromium
    command -v redis-server >/dev/null || need redis-server
    command -v systemd-analyze >/dev/null || need systemd # checks the unit in how-to/systemd
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || need nginx-light
    command -v jq >/dev/null || need jq # how-to/operate's commands for the log
    command -v node >/dev/null || need nodejs
    if ! { command -v cc && printf '#include <math.h>' | cc -E -; } >/dev/null 2>&1; then need gcc libc6-dev; fi
fi
if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "Missing Debian packages:$packages. Install them as root: apt-get install --no-install-recommends$packages"
    fi
    say "installing Debian packages:$packages"
    apt-get update -qq >/dev/null 2>&1 || true # an old package list may be good enough
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null ||
        fail "apt-get could not install:$packages"
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
chosen=$(mktemp)
trap 'rm -f "$chosen"' EXIT
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
locked() { # locked TARGET [PIP OPTION...]: install the entries of requirements.lock for a target, checked by hash
    target=$1
    shift
    .venv/bin/python scripts/lock.py select "$target" >"$chosen"
    pip install --require-hashes --no-deps --requirement "$chosen" "$@"
}

locked tools --quiet
torch=$(.venv/bin/python scripts/lock.py torch) || exit 1
# The figures are those of docs/how-to/install.md.
quiet=
if [ "$torch" = locked ]; then
    say "downloading Python packages: 2.9 GB, 6 GB on disk with the CUDA build of torch. Without a GPU, TORCH=cpu is smaller: docs/how-to/install.md"
elif [ "$torch" != installed ]; then
    say "downloading Python packages: 0.3 GB, 1.3 GB on disk with a build of torch from your own package index"
elif [ "$what" = test ] && ! .venv/bin/python -c 'import pytest' 2>/dev/null; then
    say "downloading Python packages that the tests need: 0.4 GB, 1.4 GB on disk"
else
    say "updating the Python packages in .venv"
    quiet=--quiet
fi
# $quiet is an option or nothing.
# shellcheck disable=SC2086
locked "$what" $quiet
# --force-reinstall: to pip, 2.13.0+cpu already satisfies torch==2.13.0.
# shellcheck disable=SC2086
case $torch in
installed) ;;
locked) locked cuda --force-reinstall $quiet ;;
*) pip install --no-deps --force-reinstall $quiet "$torch" ;; # the version is pinned; the hash of this build is unknown
esac
# setuptools warns about editable installs in general.
PYTHONWARNINGS=ignore .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
pip check --quiet >/dev/null || {
    pip check >&2
    fail "The packages in .venv do not fit together. Remove the folder (rm -r .venv) and run \`make $what\` again."
}

# The fused block is twice as fast on a CPU. Without a C compiler the engine runs in PyTorch, and this says so.
.venv/bin/python -m swinir.network.fused >&2
# The kernels of a GPU's blocks, with a CUDA build of torch; nothing with a CPU build.
.venv/bin/python -m swinir.network.cuda.compile >&2
