{{- define "sluicegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "sluicegate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: service
{{- end }}

{{- define "sluicegate.labels" -}}
{{ include "sluicegate.selector" . }}
{{ include "sluicegate.commonLabels" . }}
{{- end }}

{{- define "sluicegate.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluicegate.serviceAccountName" -}}
{{- $made := ternary (include "sluicegate.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $made -}}
{{- end }}

{{- define "sluicegate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sluicegate.redisUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "sluicegate.fullname" . }}-valkey:6379/0
{{- else -}}
{{- required "redis.url, redis.existingSecret or valkey.enabled must say where the store is" .Values.redis.url -}}
{{- end -}}
{{- end }}

{{- define "sluicegate.redisSecret" -}}
{{- if and .Values.redis.existingSecret (not .Values.valkey.enabled) -}}
{{ .Values.redis.existingSecret }}
{{- else -}}
{{ include "sluicegate.fullname" . }}
{{- end -}}
{{- end }}

{{- define "sluicegate.redisKey" -}}
{{ ternary .Values.redis.secretKey "redis-url" (and (not (empty .Values.redis.existingSecret)) (not .Values.valkey.enabled)) }}
{{- end }}

{{- /* How many pods there are at least: a budget for one pod would only stop a drain. */ -}}
{{- define "sluicegate.fewest" -}}
{{ ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled }}
{{- end }}

{{- /* Where admin keys are; empty where callers need none. */ -}}
{{- define "sluicegate.keySecret" -}}
{{- .Values.auth.existingSecret | default (ternary "" (include "sluicegate.fullname" .) .Values.auth.allowAnonymous) -}}
{{- end }}

{{- define "sluicegate.scheme" -}}
{{ ternary "https" "http" (not (empty .Values.tls.secret)) }}
{{- end }}

{{- define "sluicegate.probe" -}}
httpGet: {path: {{ .path }}, port: http, scheme: {{ include "sluicegate.scheme" .root | upper }}}
timeoutSeconds: 3
{{- end }}

{{- define "sluicegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "sluicegate.modelOf" -}}
{{- /* A resource to try: what the values name, else a model of the first pool. */ -}}
{{- if .Values.helmTest.resource -}}
{{ .Values.helmTest.resource }}
{{- else if .Values.existingConfigMap -}}
{{- else -}}
{{- $pools := dig "pools" dict .Values.config -}}
{{- if $pools -}}
{{- $pool := keys $pools | sortAlpha | first -}}
{{- $models := dig $pool "models" dict $pools -}}
{{- $model := without (keys $models | sortAlpha) "*" | first | default "helm-test" -}}
{{ printf "%s/%s" $pool $model }}
{{- else -}}
example/helm-test
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sluicegate.valkeySelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: valkey
{{- end }}

{{- define "sluicegate.valkeyLabels" -}}
{{ include "sluicegate.valkeySelector" . }}
{{ include "sluicegate.commonLabels" . }}
{{- end }}

{{- /* The environment is read once: pods restart when the Secret of this chart changes. */ -}}
{{- define "sluicegate.podAnnotations" -}}
{{- if or .Values.valkey.enabled (not .Values.redis.existingSecret) }}
checksum/secret: {{ include "sluicegate.redisUrl" . | sha256sum }}
{{- end }}
{{- if .Values.restartOnConfigChange }}
checksum/config: {{ .Values.config | toYaml | sha256sum }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}
