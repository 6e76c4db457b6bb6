#!/usr/bin/env bash
# Builds the image for real, without an engine, and shows that its commands run as nobody on a read-only root.
# Needs root and, from Debian: buildah, debootstrap. Where no image registry is reached, the base is a stand-in made
# of Debian's own packages; BASE=python:3.11-slim-bookworm takes the usual one. About five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
trap 'echo "check-image: failed at line $LINENO: $BASH_COMMAND" >&2' ERR
work=${WORK:-$(mktemp -d)}
storage=(--storage-driver vfs --root "$work/storage" --runroot "$work/run")
base=${BASE:-}

for tool in buildah ${base:+} $([ -n "$base" ] || echo debootstrap); do
  command -v "$tool" >/dev/null || { echo "check-image: please install $tool (Debian: apt-get install buildah debootstrap)" >&2; exit 3; }
done
[ "$(id -u)" -eq 0 ] || { echo "check-image: building without an engine needs root" >&2; exit 3; }

if [ -z "$base" ]; then
  base=localhost/stand-in
  echo "check-image: a stand-in for the base image, of Debian's packages"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" >"$work/debootstrap.log"
  rm -rf "$work/root/var/cache/apt/archives" "$work/root/dev"
  tar -C "$work/root" -cf "$work/base.tar" .
  printf 'FROM scratch\nADD base.tar /\n' >"$work/base.Dockerfile"
  buildah "${storage[@]}" bud --isolation chroot -q -f "$work/base.Dockerfile" -t "$base" "$work" >/dev/null
  rm -rf "$work/root" "$work/base.tar"
fi

# The machine's own certificates and package index, for the build alone.
mounts=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
[ ! -e /etc/pip.conf ] || mounts+=(--volume /etc/pip.conf:/etc/pip.conf:ro)
echo "check-image: building"
buildah "${storage[@]}" bud --isolation chroot --pull-never "${mounts[@]}" --build-arg "BASE=$base" \
  -f deploy/Dockerfile -t venue-mirror . >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }

container=$(buildah "${storage[@]}" from --pull-never venue-mirror)
root=$(buildah "${storage[@]}" mount "$container")
trap 'buildah "${storage[@]}" umount "$container" >/dev/null; buildah "${storage[@]}" rm "$container" >/dev/null' EXIT
mkdir -p "$work/mirror" "$root/dev" "$root/proc"

# A mount namespace of its own: the image's root read-only, /tmp writable and empty, the user of the image.
inside() {
  unshare --mount --fork bash -c '
    set -e
    mount --bind "$0" "$1"; mount -o remount,bind,ro "$1"; mount -t tmpfs tmpfs "$1/tmp"
    mount --bind /dev "$1/dev"; mount --bind /proc "$1/proc"
    shift_root=$1; shift
    exec chroot --userspec=10001:10001 "$shift_root" /usr/bin/env -i PATH=/opt/venue-mirror/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp "$@"
  ' "$root" "$work/mirror" "$@"
}

echo "check-image: running its commands"
[ "$(buildah "${storage[@]}" inspect --type image --format '{{.OCIv1.Config.User}}' venue-mirror)" = 10001:10001 ]
[ "$(inside id -u)" = 10001 ]
if inside touch /opt/venue-mirror/x 2>/dev/null; then echo "check-image: the root can be written" >&2; exit 1; fi
for tool in gcc cc make pip; do
  if inside sh -c "command -v $tool" >/dev/null; then echo "check-image: $tool was left inside" >&2; exit 1; fi
done
inside venue-mirror --help >/dev/null
# Not through a pipe to grep -q: it closes the pipe at the first match, and the program ends with an error.
[[ "$(inside venue-mirror venues)" == *binance-spot* ]]
for room in collect process console simulate topics query; do inside venue-mirror "$room" --help >/dev/null; done
inside python3 -m deploy.probe
if inside env HEALTH_URL=http://127.0.0.1:1/ python3 -m deploy.probe; then echo "check-image: the probe says yes to nobody" >&2; exit 1; fi
# A venue that listens, asked by the image's own health check.
inside sh -c 'venue-mirror simulate synthetic --port 18099 & venue=$!
  for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 2; HEALTH_URL=http://127.0.0.1:18099/stats python3 -m deploy.probe && break; done
  code=$?; kill $venue; exit $code'
if inside venue-mirror topics check 2>"$work/refused"; then echo "check-image: no broker was named, and none was missed" >&2; exit 1; fi
grep -q "^error: no Kafka" "$work/refused"

inside python3 -m deploy.supply licences --quiet
inside python3 -m deploy.supply sbom >"$work/sbom.json"
[ -z "${SBOM:-}" ] || cp "$work/sbom.json" "$SBOM"
echo "check-image: ok"
