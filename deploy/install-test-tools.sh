#!/usr/bin/env bash
# What only the tests need beside Java: a browser for the console, promtool for the alert rules. Installs them where
# that is allowed; where not, the tests that need them say so and are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

# helm is a Go program: built once, where Go and its module proxy are at hand, into the cache of this project.
cache=${VENUE_MIRROR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/venue-mirror}
if ! command -v helm >/dev/null && [ ! -x "$cache/bin/helm" ] && command -v go >/dev/null; then
  echo "setup: building helm (once, two minutes), for the tests of the chart"
  GOBIN="$cache/bin" go install helm.sh/helm/v3/cmd/helm@v3.19.0 >/dev/null 2>&1 ||
    echo "setup: helm could not be built; the tests that need it will be skipped" >&2
fi

deploy/fetch-crds.sh >/dev/null 2>&1 ||
  echo "setup: the schemas of Strimzi and KEDA are not to be had (Maven, Java, Go); the test of them will be skipped" >&2

missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v promtool >/dev/null || missing+=(prometheus)
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null && as_root="sudo -n"
fi
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || [ -n "$as_root" ]; }; then
  echo "setup: installing ${missing[*]} with apt-get, for the tests"
  $as_root apt-get update -qq || true
  $as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    echo "setup: ${missing[*]} could not be installed; the tests that need them will be skipped" >&2
else
  echo "setup: no ${missing[*]}; the tests that need them will be skipped (macOS: brew install chromium prometheus)" >&2
fi
