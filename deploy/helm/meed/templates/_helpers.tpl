{{/* The name of everything: that of the release, with the part after it. */}}
{{- define "meed.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "meed" $name) }}{{ $name = printf "%s-meed" $name }}{{ end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* What a pod is chosen by; `component` is api, migrate or worker-NAME. */}}
{{- define "meed.selector" -}}
app.kubernetes.io/name: meed
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Which build it is: the tag, or the beginning of the digest. */}}
{{- define "meed.version" -}}
{{- .Values.image.tag | default (.Values.image.digest | trimPrefix "sha256:" | trunc 12) -}}
{{- end }}

{{- define "meed.labels" -}}
{{ include "meed.selector" . }}
app.kubernetes.io/version: {{ include "meed.version" .root | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "meed.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ required "image.tag or image.digest has to say which build is to run" $image.tag }}
{{- end -}}
{{- end }}

{{/* The configuration and the rules as objects: `name` is what they begin with, `labels` and `annotations` what they get. */}}
{{- define "meed.configMaps" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-config
  labels: {{- .labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  meed.toml: {{ include "meed.config" .root | quote }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-programme
  labels: {{- .labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  programme.toml: {{ required "programme.file: the rules, with --set-file programme.file=programme.toml" .root.Values.programme.file | quote }}
{{- end }}

{{- define "meed.config" -}}
{{ .Values.config | default (.Files.Get "files/meed.toml") }}
{{- end }}

{{/* Addresses, and where secrets are as files. */}}
{{- define "meed.env" -}}
- name: MEED_CONFIG
  value: /etc/meed/config/meed.toml
- name: MEED_API_LISTEN
  value: 0.0.0.0:{{ .Values.api.port }}
- name: MEED_WORKER_LISTEN
  value: 0.0.0.0:{{ .Values.workerPort }}
- name: MEED_API_DRAIN_PAUSE_SECONDS
  value: {{ .Values.api.drainPauseSeconds | quote }}
- name: MEED_API_DRAIN_SECONDS
  value: {{ .Values.api.drainSeconds | quote }}
- name: MEED_WORKER_DRAIN_SECONDS
  value: {{ .Values.workerDrainSeconds | quote }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $key := .Values.secrets.variables }}
- name: {{ $name }}_FILE
  value: /etc/meed/secrets/{{ $key }}
{{- end }}
{{- end }}

{{- define "meed.mounts" -}}
- {name: config, mountPath: /etc/meed/config, readOnly: true}
- {name: programme, mountPath: /etc/meed/programme, readOnly: true}
- {name: secrets, mountPath: /etc/meed/secrets, readOnly: true}
- {name: keys, mountPath: /etc/meed/keys, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Whole directories: files that are mounted alone would not follow their source. */}}
{{- define "meed.volumes" -}}
- name: config
  configMap: {name: {{ .config }}}
- name: programme
  configMap: {name: {{ .programme }}}
- name: secrets
  secret:
    secretName: {{ .root.Values.secrets.existingSecret }}
    defaultMode: 0440
    items:
    {{- range $name, $key := .root.Values.secrets.variables }}
      - {key: {{ $key }}, path: {{ $key }}}
    {{- end }}
    {{- range .root.Values.secrets.files }}
      - {key: {{ . }}, path: {{ . }}}
    {{- end }}
- name: keys
  secret:
    secretName: {{ .root.Values.secrets.signingKeysSecret }}
    defaultMode: 0440
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end }}

{{- define "meed.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "meed.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "meed.spread" -}}
{{- $selector := include "meed.selector" . -}}
{{- range .root.Values.topologySpread }}
- maxSkew: 1
  topologyKey: {{ .topologyKey }}
  whenUnsatisfiable: {{ .whenUnsatisfiable }}
  labelSelector:
    matchLabels: {{- $selector | nindent 6 }}
{{- end }}
{{- end }}

{{- define "meed.probes" -}}
{{- /* Whether all it needs answers is asked when it starts, so that a release stops at a pod that cannot work. After that an
outage of what all pods share must not take all of them away: they take redemptions while Temporal is away, and tell clients
what to do while PostgreSQL is. A pod that ends is taken from the service by its deletion. */ -}}
startupProbe:
  httpGet: {path: /health/ready, port: http}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
