{{- define "vm.labels" -}}
app.kubernetes.io/name: venue-mirror
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Selects one room, or one part of it: dict "root" $ "room" "collector" "part" "binance-spot" */}}
{{- define "vm.selector" -}}
app.kubernetes.io/name: venue-mirror
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .room }}
{{- with .part }}
venue-mirror/part: {{ . }}
{{- end }}
{{- end }}

{{- define "vm.name" -}}
{{ printf "%s-%s" .root.Release.Name .name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "vm.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What every pod has: nobody's user, nothing writable but /tmp, no token of the cluster. */}}
{{- define "vm.pod" -}}
automountServiceAccountToken: false
serviceAccountName: {{ .root.Release.Name }}
terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "vm.selector" . | nindent 8 }}
{{- end }}

{{- define "vm.container" -}}
image: {{ include "vm.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Kafka's address and this room's own user (or `user`'s), as environment: passwords are files. */}}
{{- define "vm.kafkaEnv" -}}
- {name: VENUE_MIRROR_CONFIG, value: /etc/venue-mirror/settings.toml}
- {name: VENUE_MIRROR_LOG, value: {{ .root.Values.logLevel | quote }}}
{{- $user := .user | default .room }}
{{- $secret := get .root.Values.kafka.userSecrets $user }}
{{- if and $secret (hasPrefix "SASL" .root.Values.kafka.securityProtocol) }}
- {name: VENUE_MIRROR_KAFKA__SASL_USERNAME, value: venue-mirror-{{ $user }}}
- {name: VENUE_MIRROR_KAFKA__SASL_PASSWORD_FILE, value: /etc/venue-mirror/kafka/password}
{{- else if $secret }}
- {name: VENUE_MIRROR_KAFKA__SSL_CERTIFICATE_FILE, value: /etc/venue-mirror/kafka/tls.crt}
- {name: VENUE_MIRROR_KAFKA__SSL_KEY_FILE, value: /etc/venue-mirror/kafka/tls.key}
{{- end }}
{{- end }}

{{/* What a tracing collector asks of who sends to it. Not in the settings: those are no secret. */}}
{{- define "vm.tracingEnv" -}}
{{- if and .root.Values.tracing.endpoint .root.Values.tracing.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .root.Values.tracing.headersSecret }}, key: headers}}
{{- end }}
{{- end }}

{{- define "vm.podIp" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}

{{- define "vm.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: settings, mountPath: /etc/venue-mirror/settings.toml, subPath: settings.toml, readOnly: true}
{{- if get .root.Values.kafka.userSecrets (.user | default .room) }}
- {name: kafka-user, mountPath: /etc/venue-mirror/kafka, readOnly: true}
{{- end }}
{{- if .root.Values.kafka.caSecret }}
- {name: kafka-ca, mountPath: /etc/venue-mirror/kafka-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "vm.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 512Mi}}
- {name: settings, configMap: {name: {{ .root.Release.Name }}-settings}}
{{- with get .root.Values.kafka.userSecrets (.user | default .room) }}
- {name: kafka-user, secret: {secretName: {{ . }}, defaultMode: 288}}
{{- end }}
{{- with .root.Values.kafka.caSecret }}
- {name: kafka-ca, secret: {secretName: {{ . }}}}
{{- end }}
{{- end }}

{{/* The views' token, for those who ask for it and those who send it. */}}
{{- define "vm.viewsMount" -}}
{{- if .root.Values.processor.tokenSecret }}
- {name: views-token, mountPath: /etc/venue-mirror/views, readOnly: true}
{{- end }}
{{- end }}

{{- define "vm.viewsVolume" -}}
{{- with .root.Values.processor.tokenSecret }}
- {name: views-token, secret: {secretName: {{ . }}, defaultMode: 288}}
{{- end }}
{{- end }}
