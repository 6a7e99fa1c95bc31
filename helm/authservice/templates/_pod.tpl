{{/* The parts of every pod: server, migrations, CronJobs and test have the same image, security context and way to their secrets. */}}

{{/* Labels of the pods of a component: (list . "server"). Not the chart's version: a new chart alone restarts nothing. */}}
{{- define "authservice.podLabels" -}}
{{- $values := (index . 0).Values -}}
{{- toYaml (merge (include "authservice.selectorLabels" . | fromYaml) $values.podLabels $values.commonLabels) -}}
{{- end }}

{{/* What a pod is besides its containers and volumes: (dict "root" . "serviceAccount" "x"). */}}
{{- define "authservice.pod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ quote .serviceAccount }}
automountServiceAccountToken: false
# A Service named like a setting would otherwise set it, as POSTGRES_PORT=tcp://...
enableServiceLinks: false
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- tpl (toYaml .) $.root | nindent 2 }}
{{- end }}
{{- end }}

{{/* A container of our image that needs nothing: (dict "root" . "name" "x" "args" (list)). */}}
{{- define "authservice.bareContainer" -}}
name: {{ .name }}
image: {{ include "authservice.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
# Every path is absolute, and the image's folder belongs to its own user only.
workingDir: /
# What a command says before it fails is then in the pod's status.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
{{- with .root.Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
One that runs with the configuration and the database, and with "keys" true with the keys. Secrets are files. With "waits" true it
waits for a database that is late as long as the startup probe would.
*/}}
{{- define "authservice.container" -}}
{{- $values := .root.Values -}}
{{- $postgres := $values.database.postgres -}}
{{- $isPostgres := eq (include "authservice.database" .root) "postgres" -}}
{{- $urlKey := include "authservice.databaseUrlKey" .root -}}
{{ include "authservice.bareContainer" . }}
env:
  - {name: AUTHSERVICE_CONFIG, value: /etc/authservice/config/authservice.toml}
  # Not in the file, over which the image's own environment wins.
  {{- $host := (($values.config).server).host | default "0.0.0.0" }}
  - {name: AUTHSERVICE__SERVER__HOST, value: {{ quote $host }}}
  - {name: AUTHSERVICE__ADMIN__HOST, value: {{ (($values.config).admin).host | default $host | quote }}}
  {{- if .keys }}
  - {name: AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE, value: /etc/authservice/encryption/current}
  {{- if $values.keys.previousMasterKey.existingSecret }}
  - {name: AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY_FILE, value: /etc/authservice/encryption/previous}
  {{- end }}
  {{- end }}
  {{- if and $isPostgres $urlKey }}
  - {name: AUTHSERVICE__DATABASE__URL_FILE, value: /etc/authservice/database/secret}
  {{- else if $isPostgres }}
  - {name: POSTGRES_HOST, value: {{ quote $postgres.host }}}
  - {name: POSTGRES_PORT, value: {{ $postgres.port | int | quote }}}
  - {name: POSTGRES_DB, value: {{ quote $postgres.name }}}
  - {name: POSTGRES_USER, value: {{ quote $postgres.user }}}
  - {name: POSTGRES_PASSWORD_FILE, value: /etc/authservice/database/secret}
  {{- end }}
  {{- if $isPostgres }}
  - {name: PGSSLMODE, value: {{ default (ternary "verify-full" "prefer" (not (not $postgres.caSecret))) $postgres.sslMode }}}
  {{- if $postgres.caSecret }}
  - {name: PGSSLROOTCERT, value: /etc/authservice/database-ca/ca.crt}
  {{- end }}
  {{- end }}
  {{- if and .waits $isPostgres (kindIs "invalid" (($values.config).database).connect_timeout_seconds) }}
  - {name: AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS, value: "300"}
  {{- end }}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: config, mountPath: /etc/authservice/config, readOnly: true}
  {{- if .keys }}
  - {name: encryption, mountPath: /etc/authservice/encryption, readOnly: true}
  {{- if $values.keys.import.existingSecret }}
  - {name: import, mountPath: /etc/authservice/keys, readOnly: true}
  {{- end }}
  {{- end }}
  {{- if $isPostgres }}
  - {name: database, mountPath: /etc/authservice/database, readOnly: true}
  {{- if $postgres.caSecret }}
  - {name: database-ca, mountPath: /etc/authservice/database-ca, readOnly: true}
  {{- end }}
  {{- else }}
  - {name: data, mountPath: /var/lib/authservice}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The volumes of that: (dict "root" . "keys" true "configMap" "x" "databaseSecret" "x"). */}}
{{- define "authservice.volumes" -}}
{{- $values := .root.Values -}}
{{- $postgres := $values.database.postgres -}}
{{- $keys := $values.keys -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: config
  configMap: {name: {{ quote .configMap }}}
{{- if .keys }}
- name: encryption
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ include "authservice.masterKeySecret" .root | quote }}, items: [{key: {{ quote $keys.masterKey.key }}, path: current}]}
      {{- with $keys.previousMasterKey }}
      {{- if .existingSecret }}
      - secret: {name: {{ quote .existingSecret }}, items: [{key: {{ quote .key }}, path: previous}]}
      {{- end }}
      {{- end }}
{{- with $keys.import.existingSecret }}
- name: import
  secret: {secretName: {{ quote . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- if eq (include "authservice.database" .root) "postgres" }}
- name: database
  secret:
    secretName: {{ quote .databaseSecret }}
    defaultMode: 0440
    items: [{key: {{ include "authservice.databaseUrlKey" .root | default $postgres.passwordKey | quote }}, path: secret}]
{{- if $postgres.caSecret }}
- name: database-ca
  secret: {secretName: {{ quote $postgres.caSecret }}, defaultMode: 0444, items: [{key: {{ quote $postgres.caKey }}, path: ca.crt}]}
{{- end }}
{{- else if $values.database.sqlite.ephemeral }}
- name: data
  emptyDir: {}
{{- else }}
- name: data
  persistentVolumeClaim: {claimName: {{ include "authservice.sqliteClaim" .root | quote }}}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
