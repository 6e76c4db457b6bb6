#!/usr/bin/env bash
# The embedded broker needs Java 17 or newer and, once, Maven. Installs them where that is allowed, else says how.
# Nothing is needed where KAFKA_BOOTSTRAP_SERVERS names a broker.
set -euo pipefail
[ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] || exit 0

java=$(command -v java || echo "${JAVA_HOME:-/none}/bin/java")
major=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1 || true)

missing=()
[ "${major:-0}" -ge 17 ] || missing+=(openjdk-17-jre-headless)
cache=${VENUE_MIRROR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/venue-mirror}
compgen -G "$cache/kafka-*/kafka_*.jar" >/dev/null || command -v mvn >/dev/null || missing+=(maven)
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null && as_root="sudo -n"
fi
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || [ -n "$as_root" ]; }; then
  echo "setup: installing ${missing[*]} with apt-get, for the embedded Kafka"
  $as_root apt-get update -qq
  # Newer Debian releases have a newer Java only.
  if ! $as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    $as_root apt-get install -y -qq --no-install-recommends "${missing[@]/openjdk-17-jre-headless/default-jre-headless}" >/dev/null
  fi
  exit 0
fi
echo "setup: please install ${missing[*]} (macOS: brew install openjdk maven), or set KAFKA_BOOTSTRAP_SERVERS" >&2
exit 1
