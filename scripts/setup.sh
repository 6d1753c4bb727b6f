#!/bin/sh
# Make .venv at the root of the project with pinned packages: `setup.sh PYTHON run|test`.
# "test" adds what tests need beside Python: Debian's chromium, redis and the library of this Python.
set -eu
python=$1
what=$2
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*" >&2; }

# The embedded Triton runs its models on CPython 3.11 or 3.12.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
    say "there is no '$python' here. Install Python 3.11 or 3.12, or name one: make $what PYTHON=/path/to/python3.11"
    exit 1
}
case $version in
3.11 | 3.12) ;;
*)
    say "'$python' is Python $version; the embedded Triton needs 3.11 or 3.12. Name one: make $what PYTHON=/path/to/python3.11"
    exit 1
    ;;
esac

# Debian packages: installed when root, else named.
packages=""
need() { # need COMMAND-OR-TEST PACKAGE
    eval "$1" >/dev/null 2>&1 || packages="$packages $2"
}
need "$python -c 'import ensurepip, venv'" "python$version-venv"
# The server's Python stub links libpython; a Python built by hand has it in its own LIBDIR.
need "$python -c 'import sysconfig, pathlib, sys; v = sysconfig.get_config_vars(); sys.exit(not (list(pathlib.Path(v[\"LIBDIR\"]).glob(f\"libpython$version.so*\")) or list(pathlib.Path(v[\"LIBDIR\"]).glob(f\"*/libpython$version.so*\"))))'" "libpython$version"
if [ "$what" = test ]; then
    need "command -v chromium" chromium
    need "command -v redis-server" redis-server
    need "command -v node" nodejs
    need "command -v cc && printf '#include <math.h>' | cc -E -" "gcc libc6-dev"
fi
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing Debian packages:$packages"
        apt-get update -qq >/dev/null 2>&1 || true # a stale list still installs
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null || {
            say "apt-get could not install:$packages"
            exit 1
        }
    else
        say "these Debian packages are missing:$packages. As root: apt-get install --no-install-recommends$packages"
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
extras=embedded
[ "$what" = test ] && extras=embedded,dev
say "installing pinned Python packages into .venv (about 2 minutes and 1.5 GB the first time)"
# torch alone and first: asked for exactly, pip takes a CPU build where one lies on this machine.
.venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"

# Twice the speed on a CPU where there is a C compiler; without one the engine runs in PyTorch and says so.
.venv/bin/python -m swinir.network.fused >&2
