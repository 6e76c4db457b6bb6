#!/usr/bin/env bash
# What `make setup` does. `python`: the locked packages into .venv. `java`: what the embedded broker needs.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }
may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install() {
    say "installing $* (apt-get)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# A name on the path may be a shim without a Python behind it, and Debian ships Python without venv: ask, don't look.
works() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
        if works "$name"; then
            echo "$name"
            return
        fi
    done
    return 1
}

setup_python() {
    if command -v uv >/dev/null; then
        [ -x .venv/bin/python ] || { say "making .venv with uv"; uv venv -q --python '>=3.11,<3.14' .venv; }
        say "installing the locked packages with uv"
        VIRTUAL_ENV=$PWD/.venv uv pip install -q --require-hashes -r requirements.lock
        VIRTUAL_ENV=$PWD/.venv uv pip install -q --no-deps -e .
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        local python
        if ! python=$(find_python) && may_install; then
            install python3 python3-venv
        fi
        if ! python=$(find_python); then
            say "Python 3.11, 3.12 or 3.13 with venv is needed (Debian: apt-get install python3 python3-venv;"
            say "macOS: brew install python@3.13), or uv. PYTHON=/path/to/python names one."
            exit 1
        fi
        say "making .venv with $("$python" --version)"
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    say "installing the locked packages with pip (a minute or two the first time)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
}

java_major() {
    local java=java
    if ! command -v java >/dev/null && [ -n "${JAVA_HOME:-}" ]; then java=$JAVA_HOME/bin/java; fi
    "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1
}

setup_java() {
    if [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ]; then
        return # a broker is there: ours is not needed
    fi
    local missing=() major
    major=$(java_major || true)
    if [ "${major:-0}" -lt 17 ]; then missing+=(java); fi
    if ! command -v mvn >/dev/null; then missing+=(maven); fi
    if [ ${#missing[@]} = 0 ]; then
        return
    fi
    if ! may_install; then
        say "the embedded Kafka needs Java 17 or newer and Maven; missing: ${missing[*]}."
        say "Debian, Ubuntu: sudo apt-get install openjdk-17-jre-headless maven. macOS: brew install openjdk maven."
        say "Or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs."
        exit 1
    fi
    local item
    for item in "${missing[@]}"; do
        if [ "$item" = java ]; then
            install openjdk-17-jre-headless || install openjdk-21-jre-headless
        else
            install maven
        fi
    done
}

case "${1:-}" in
    python) setup_python ;;
    java) setup_java ;;
    *) echo "usage: tools/setup.sh python|java" >&2; exit 64 ;;
esac
