{{/* What the schema cannot say. Each message begins with the path of the value. */}}

{{- define "authservice.validate" -}}
{{- $values := .Values -}}
{{- $config := $values.config | default dict -}}
{{- $server := $config.server | default dict -}}
{{- $postgres := $values.database.postgres -}}

{{- if not $values.issuer -}}
{{- fail "issuer: must be set, the public base URL of the server, as https://auth.example.com" -}}
{{- end -}}
{{- $host := include "authservice.host" . -}}
{{- $isLoopback := or (eq $host "localhost") (hasSuffix ".localhost" $host) (hasPrefix "127." $host) (eq $host "::1") -}}
{{- if and (hasPrefix "http://" $values.issuer) (not $isLoopback) (not $server.allow_http_issuer) -}}
{{- fail "issuer: must be https; plain http is for loopback hosts, or where config.server.allow_http_issuer says that something else encrypts" -}}
{{- end -}}

{{- range $path, $instead := dict
  "server.issuer" "issuer"
  "server.port" "service.port"
  "traces.headers" "AUTHSERVICE__TRACES__HEADERS_FILE in extraEnv, a file of a Secret in extraVolumes"
  "admin.port" "the chart, as 9999"
  "database.url" "database.postgres.existingSecret"
  "keys.directory" "keys.import.existingSecret"
  "keys.encryption_key" "keys.masterKey.existingSecret"
  "keys.previous_encryption_key" "keys.previousMasterKey.existingSecret"
  "keys.private_key_path" "keys.import.existingSecret"
  "keys.public_key_path" "keys.import.existingSecret" -}}
{{- $parts := splitList "." $path -}}
{{- if hasKey (index $config (first $parts) | default dict) (last $parts) -}}
{{- fail (printf "config.%s: is not set here but by %s" $path $instead) -}}
{{- end -}}
{{- end -}}

{{- if eq (include "authservice.database" .) "sqlite" -}}
{{- if kindIs "invalid" $values.replicaCount -}}
{{- fail "replicaCount: must be 1 with SQLite, which has one writer; use database.postgres for more" -}}
{{- else if ne (int $values.replicaCount) 1 -}}
{{- fail "replicaCount: must be 1 with SQLite, which has one writer; use database.postgres for more" -}}
{{- end -}}
{{- range $path, $isSet := dict
  "autoscaling.enabled" $values.autoscaling.enabled
  "keys.rotation.enabled" $values.keys.rotation.enabled
  "cleanup.enabled" $values.cleanup.enabled
  "strategy.type=RollingUpdate" (eq $values.strategy.type "RollingUpdate")
  "migrations.mode=hook" (eq $values.migrations.mode "hook") -}}
{{- if $isSet -}}
{{- fail (printf "%s: is impossible with SQLite: only one pod at a time may use its file" $path) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if and $postgres.password $postgres.existingSecret -}}
{{- fail "database.postgres.password: belongs into existingSecret when there is one" -}}
{{- end -}}
{{- if and $postgres.password (include "authservice.databaseUrlKey" .) -}}
{{- fail "database.postgres.password: needs database.postgres.host, and no urlKey" -}}
{{- end -}}
{{- if not (or $postgres.password $postgres.existingSecret) -}}
{{- fail "database.postgres.existingSecret: must be set, the Secret with the password or the URL of the database" -}}
{{- end -}}
{{- end -}}

{{- if not (or $values.keys.masterKey.existingSecret $values.keys.masterKey.generate) -}}
{{- fail "keys.masterKey.existingSecret: must be set when keys.masterKey.generate is false" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: must not be more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: must name the gateway" -}}
{{- end -}}
{{- if not (include "authservice.hasAdmin" .) -}}
{{- range $path, $isSet := dict
  "admin.service.enabled" $values.admin.service.enabled
  "metrics.serviceMonitor.enabled" $values.metrics.serviceMonitor.enabled -}}
{{- if $isSet -}}
{{- fail (printf "%s: needs the admin port, which config.admin.enabled switches off" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $lifecycle := include "authservice.lifecycle" . | fromYaml -}}
{{- $sleep := (($lifecycle.preStop).sleep).seconds | default 0 | int -}}
{{- $ownDrain := ternary 0 5 (eq (include "authservice.database" .) "sqlite") -}}
{{- $drain := ternary $ownDrain $server.drain_seconds (kindIs "invalid" $server.drain_seconds) | int -}}
{{- $shutdown := ternary 10 $server.shutdown_seconds (kindIs "invalid" $server.shutdown_seconds) | int -}}
{{- $needed := add $sleep $drain $shutdown 2 -}}
{{- if lt (int $values.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: must be at least %d: preStop %d, draining %d, requests in flight %d, closing 2" $needed $sleep $drain $shutdown) -}}
{{- end -}}

{{- $instead := dict
  "AUTHSERVICE_CONFIG" "config"
  "AUTHSERVICE__SERVER__HOST" "config.server.host"
  "AUTHSERVICE__ADMIN__HOST" "config.admin.host"
  "AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE" "keys.masterKey.existingSecret"
  "AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY_FILE" "keys.previousMasterKey.existingSecret"
  "AUTHSERVICE__DATABASE__URL_FILE" "database.postgres.existingSecret"
  "AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS" "config.database.connect_timeout_seconds"
  "POSTGRES_HOST" "database.postgres.host"
  "POSTGRES_PORT" "database.postgres.port"
  "POSTGRES_DB" "database.postgres.name"
  "POSTGRES_USER" "database.postgres.user"
  "POSTGRES_PASSWORD_FILE" "database.postgres.existingSecret"
  "PGSSLMODE" "database.postgres.sslMode"
  "PGSSLROOTCERT" "database.postgres.caSecret" -}}
{{- $seen := dict -}}
{{- $container := dict "root" . "name" "any" "args" list "keys" true "waits" (eq $values.migrations.mode "init") -}}
{{- range (include "authservice.container" $container | fromYaml).env -}}
{{- if hasKey $seen .name -}}
{{- $by := get $instead .name -}}
{{- fail (printf "extraEnv: %s is %s" .name (ternary (printf "set by the chart; use %s" $by) "there twice" (not (not $by)))) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end }}
