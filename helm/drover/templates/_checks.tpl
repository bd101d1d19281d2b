{{/* What a schema cannot say in words: each refusal names the value and what to do. */}}
{{- define "drover.checks" -}}
{{- $v := .Values -}}
{{- if eq $v.mode "ha" -}}
{{- if not $v.kafka.brokers }}{{ fail "kafka.brokers: mode ha needs a Kafka; set host:port of some brokers" }}{{ end -}}
{{- if not $v.cassandra.hosts }}{{ fail "cassandra.hosts: mode ha needs a Cassandra or Scylla; set host:port of some nodes" }}{{ end -}}
{{- if not $v.pki.existingSecret }}{{ fail "pki.existingSecret: mode ha needs the certificates of `drover init`; make a Secret of them: drover init --data drover-init; kubectl create secret generic drover-pki --from-file=drover-init/pki" }}{{ end -}}
{{- if gt (int $v.kafka.minInsyncReplicas) (int $v.kafka.replicationFactor) }}{{ fail (printf "kafka.minInsyncReplicas: is %v, at most kafka.replicationFactor (%v)" $v.kafka.minInsyncReplicas $v.kafka.replicationFactor) }}{{ end -}}
{{- if and (int $v.ingress.nodes) (lt (int $v.ingress.nodes) (int $v.ingress.replicas)) }}{{ fail (printf "ingress.nodes: is %v, at least ingress.replicas (%v), or 0 for as many" $v.ingress.nodes $v.ingress.replicas) }}{{ end -}}
{{- if and (dig "autoscaling" "enabled" false $v.ingress) (le (int $v.ingress.nodes) (int $v.ingress.replicas)) }}{{ fail (printf "ingress.nodes: is %v, with ingress.autoscaling more than ingress.replicas (%v): it is the most pods that there may be" $v.ingress.nodes $v.ingress.replicas) }}{{ end -}}
{{- range list "registry" "shadow" "rules" "storage" "gateway" -}}
{{- $of := get $v . -}}
{{- if and $of.autoscaling.enabled (lt (int $of.autoscaling.maxReplicas) (int $of.replicas)) }}{{ fail (printf "%s.autoscaling.maxReplicas: is %v, at least %s.replicas (%v)" . $of.autoscaling.maxReplicas . $of.replicas) }}{{ end -}}
{{- end -}}
{{- else if $v.pki.existingSecret -}}
{{- fail "pki.existingSecret: mode standalone makes its own authority on its volume; for another certificate on 8883 use tls.existingSecret" -}}
{{- end -}}
{{- if and $v.tls.existingSecret $v.tls.certManager.enabled }}{{ fail "tls.existingSecret: is of no use with tls.certManager.enabled; set one of them" }}{{ end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) }}{{ fail "tls.certManager.issuerRef.name: says who issues the certificate; set the name of an Issuer" }}{{ end -}}
{{- if and $v.tls.certManager.enabled (not $v.hostnames) }}{{ fail "hostnames: tls.certManager.enabled needs at least one" }}{{ end -}}
{{- if and $v.web.enabled (not $v.web.host) (not $v.hostnames) }}{{ fail "web.host: web.enabled needs a name; set it, or hostnames" }}{{ end -}}
{{- range $key, $_ := $v.kafka.options -}}
{{- if regexMatch "password|secret|key\\.pem|oauthbearer\\.config" $key }}{{ fail (printf "kafka.options: %s is a secret, and configuration is a ConfigMap; use kafka.existingSecret, or extraEnv with a secretKeyRef" $key) }}{{ end -}}
{{- end -}}
{{- range list "security.admin_token" "cassandra.password" "bus.kafka.sasl_password" "otlp.authorization" -}}
{{- $at := $v.config -}}
{{- range splitList "." . }}{{ $at = ternary (get (ternary $at dict (kindIs "map" $at)) .) nil (kindIs "map" $at) }}{{ end -}}
{{- if $at }}{{ fail (printf "config.%s: is a secret, and configuration is a ConfigMap; use adminToken, cassandra.existingSecret, kafka.existingSecret, or extraEnv with a secretKeyRef" .) }}{{ end -}}
{{- end -}}
{{- end }}
