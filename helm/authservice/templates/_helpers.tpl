{{/* Names, labels, and what several templates must agree on. */}}

{{- define "authservice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "authservice.fullname" -}}
{{- $name := include "authservice.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The full name with a suffix: (list . "cleanup"). At most 52 characters, which is what a CronJob may have. */}}
{{- define "authservice.named" -}}
{{- $suffix := index . 1 -}}
{{- $most := int (sub 51 (len $suffix)) -}}
{{- printf "%s-%s" (include "authservice.fullname" (index . 0) | trunc $most | trimSuffix "-") $suffix -}}
{{- end }}

{{/* What selects the pods of a component: (list . "server"). Never changes: a Deployment's selector is immutable. */}}
{{- define "authservice.selectorLabels" -}}
{{ include "authservice.releaseLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What selects the pods of every component. */}}
{{- define "authservice.releaseLabels" -}}
app.kubernetes.io/name: {{ include "authservice.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of an object of a component: (list . "server"). Common labels never replace one of them. */}}
{{- define "authservice.labels" -}}
{{- $root := index . 0 -}}
{{- $own := include "authservice.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- toYaml (merge $own $root.Values.commonLabels) -}}
{{- end }}

{{/* Metadata of an object: (dict "root" . "name" "x" "component" "server" "annotations" (dict) "labels" (dict)). */}}
{{- define "authservice.metadata" -}}
name: {{ quote .name }}
namespace: {{ quote .root.Release.Namespace }}
labels:
  {{- $labels := include "authservice.labels" (list .root (default "server" .component)) | fromYaml }}
  {{- toYaml (merge $labels (default (dict) .labels)) | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "authservice.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "authservice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "authservice.image" -}}
{{- $registry := default .Values.image.registry (.Values.global).imageRegistry -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end -}}
{{- end }}

{{/* The host of the issuer, without its port. */}}
{{- define "authservice.host" -}}
{{- (urlParse .Values.issuer).hostname -}}
{{- end }}

{{/* `postgres` or `sqlite`. */}}
{{- define "authservice.database" -}}
{{- $postgres := .Values.database.postgres -}}
{{- default (ternary "postgres" "sqlite" (not (not (or $postgres.host $postgres.existingSecret)))) .Values.database.type -}}
{{- end }}

{{/* Not empty when the Secret of the database holds a URL. */}}
{{- define "authservice.databaseUrlKey" -}}
{{- $postgres := .Values.database.postgres -}}
{{- if $postgres.urlKey }}{{ $postgres.urlKey }}{{ else if not $postgres.host }}uri{{ end -}}
{{- end }}

{{- define "authservice.databaseSecret" -}}
{{- default (include "authservice.named" (list . "database")) .Values.database.postgres.existingSecret -}}
{{- end }}

{{- define "authservice.masterKeySecret" -}}
{{- default (include "authservice.named" (list . "encryption-key")) .Values.keys.masterKey.existingSecret -}}
{{- end }}

{{- define "authservice.sqliteClaim" -}}
{{- default (include "authservice.named" (list . "data")) .Values.database.sqlite.existingClaim -}}
{{- end }}

{{/* What the server's container does before SIGTERM, as a map. On SQLite nobody else could answer meanwhile. */}}
{{- define "authservice.lifecycle" -}}
{{- if .Values.lifecycle -}}
{{- toYaml .Values.lifecycle -}}
{{- else if and (kindIs "map" .Values.lifecycle) (eq (include "authservice.database" .) "postgres") -}}
preStop: {sleep: {seconds: 5}}
{{- end -}}
{{- end }}

{{/* Not empty unless the admin port is switched off. */}}
{{- define "authservice.hasAdmin" -}}
{{- $enabled := ((.Values.config).admin).enabled -}}
{{- if or (kindIs "invalid" $enabled) $enabled }}true{{ end -}}
{{- end }}

{{/* Not empty when there is, or may be, more than one replica. */}}
{{- define "authservice.hasReplicas" -}}
{{- if eq (include "authservice.database" .) "postgres" -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) 1 }}true{{ end -}}
{{- else if kindIs "invalid" .Values.replicaCount }}true
{{- else if gt (int .Values.replicaCount) 1 }}true{{ end -}}
{{- end -}}
{{- end }}

{{/*
The server's configuration file. Written here, because toToml writes whole numbers of a values file as 900.0, which is no integer.
*/}}
{{- define "authservice.toml" -}}
{{- $config := dict
  "server" (dict "issuer" .Values.issuer "port" 9998)
  "admin" (dict "port" 9999)
  "keys" (dict "directory" "/etc/authservice/keys")
-}}
{{- if eq (include "authservice.database" .) "sqlite" -}}
{{- $_ := set $config "database" (dict "url" "sqlite:///var/lib/authservice/authservice.db?mode=rwc") -}}
{{- $_ := set $config.server "drain_seconds" 0 -}}
{{- end -}}
{{- range $section, $settings := mergeOverwrite $config (deepCopy (.Values.config | default dict)) }}
{{- if $settings }}
[{{ $section }}]
{{- range $key, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "authservice.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "authservice.tomlValue" -}}
{{- if kindIs "string" . -}}
{{- toRawJson . -}}
{{- else if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "authservice.tomlValue" $item }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}
