#!/usr/bin/env bash
# The schemas of the cluster's own resources that the chart makes, out of their makers' packages: Strimzi's are generated
# by its own generator (Maven), KEDA's are files of its Go module. Kept in the cache; prints the folder.
set -euo pipefail
strimzi=0.45.0
keda=v2.17.2
cache=${VENUE_MIRROR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/venue-mirror}
folder=$cache/crds-strimzi-$strimzi-keda-$keda
if [ -d "$folder" ]; then echo "$folder"; exit 0; fi
for tool in mvn java go; do
  command -v "$tool" >/dev/null || { echo "fetch-crds: please install $tool" >&2; exit 3; }
done

mkdir -p "$cache"
work=$(mktemp -d "$cache/crds.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>venue-mirror</groupId><artifactId>crds</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>io.strimzi</groupId><artifactId>api</artifactId><version>$strimzi</version></dependency>
    <dependency><groupId>io.strimzi</groupId><artifactId>crd-generator</artifactId><version>$strimzi</version></dependency>
  </dependencies>
</project>
XML
echo "fetch-crds: Strimzi's and KEDA's schemas, once" >&2
mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/lib" >&2
mkdir "$work/out"
java -cp "$work/lib/*" io.strimzi.crdgenerator.CrdGenerator --yaml --target-kube 1.16+ --crd-api-version v1 \
  io.strimzi.api.kafka.model.topic.KafkaTopic="$work/out/topic.yaml" \
  io.strimzi.api.kafka.model.user.KafkaUser="$work/out/user.yaml" 2>/dev/null
module=$(cd "$work" && go mod download -json "github.com/kedacore/keda/v2@$keda" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp "$module/config/crd/bases/keda.sh_scaledobjects.yaml" "$work/out/scaledobject.yaml"
chmod -R u+w "$work/out"
mv -T "$work/out" "$folder" 2>/dev/null || [ -d "$folder" ] # another run may have been faster
echo "$folder"
