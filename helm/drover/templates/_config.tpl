{{/* The configuration file of each process: the keys of each service's config.rs and of crates/host/src/config. */}}

{{/* A TOML value. Numbers of values files are floats here; whole ones are written as integers. */}}
{{- define "drover.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $name := ternary $key (toJson $key) (regexMatch "^[A-Za-z0-9_-]+$" $key) -}}
{{- $pairs = append $pairs (printf "%s = %s" $name (include "drover.toml.value" $value)) -}}
{{- end -}}
{{- end -}}
{{- printf "{%s}" (join ", " $pairs) -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (include "drover.toml.value" .) }}{{ end -}}
{{- printf "[%s]" (join ", " $items) -}}
{{- else if kindIs "string" . -}}
{{- toJson . -}}
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{/* A file of sections. */}}
{{- define "drover.toml" -}}
{{- range $section, $keys := . }}
{{- if $keys }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "drover.toml.value" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}

{{/* Addresses of a listener that others reach: a socket on [::] takes IPv4 as well. Takes root and port. */}}
{{- define "drover.listen" -}}
{{- list (printf "%s:%v" (ternary "[::]" "0.0.0.0" .root.Values.dualStack) .port) | toJson -}}
{{- end }}

{{/* Where the pods of a component are, one URI each. Takes root and component. With an autoscaler: those that are always
there, which answer for all; but rules, whose status is the sum of all that there may be. Of the ingress: those that are named,
whether they are there yet or not. */}}
{{- define "drover.uris" -}}
{{- $root := .root -}}{{- $of := get $root.Values .component -}}
{{- $count := int $of.replicas -}}
{{- if eq .component "rules" }}{{ $count = ternary (int $of.autoscaling.maxReplicas) $count $of.autoscaling.enabled }}{{ end -}}
{{- if eq .component "ingress" }}{{ $count = int (default $count (int $of.nodes)) }}{{ end -}}
{{- $scheme := ternary "https" "http" (ne $root.Values.networkTls.existingSecret "") -}}
{{- $name := include "drover.objectName" . -}}
{{- $domain := printf "%s.%s.svc" (include "drover.headlessName" .) $root.Release.Namespace -}}
{{- $uris := list -}}
{{- range until $count -}}
{{- $uris = append $uris (printf "%s://%s-%d.%s:%s" $scheme $name . $domain (include "drover.grpcPort" $.component)) -}}
{{- end -}}
{{- toJson $uris -}}
{{- end }}

{{/* host:port told to devices. Takes root, name (of the endpoint) and port. 8080 is not by the names of the outside where it
is for the cluster alone. */}}
{{- define "drover.endpoint" -}}
{{- $own := and (eq .name "http") (not .root.Values.service.http) -}}
{{- $service := include (ternary "drover.httpName" "drover.fullname" $own) .root -}}
{{- $host := first (append (ternary list .root.Values.hostnames $own) (printf "%s.%s.svc" $service .root.Release.Namespace)) -}}
{{- $host = ternary (printf "[%s]" $host) $host (contains ":" $host) -}}
{{- default (printf "%s:%v" $host .port) (get .root.Values.endpoints .name) -}}
{{- end }}

{{- define "drover.config.security" -}}
{{- $security := dict "admin_token_file" "/etc/drover/admin/token" "hostnames" .root.Values.hostnames -}}
{{- $_ := set $security "anonymous" (ternary "everywhere" "off" .root.Values.anonymous) -}}
{{- if has .component (list "registry" "ingress") }}{{ $_ := set $security "pki" "/etc/drover/pki" }}{{ end -}}
{{- toJson $security -}}
{{- end }}

{{- define "drover.config.bus" -}}
{{- $v := .Values -}}
{{- if eq $v.mode "standalone" -}}
{{- dict "kind" "embedded" | toJson -}}
{{- else -}}
{{- $kafka := dict "brokers" $v.kafka.brokers "replication_factor" $v.kafka.replicationFactor "min_insync_replicas" $v.kafka.minInsyncReplicas -}}
{{- with $v.kafka.securityProtocol }}{{ $_ := set $kafka "security_protocol" . }}{{ end -}}
{{- with $v.kafka.saslMechanism }}{{ $_ := set $kafka "sasl_mechanism" . }}{{ end -}}
{{- with $v.kafka.options }}{{ $_ := set $kafka "options" . }}{{ end -}}
{{- dict "kind" "kafka" "partitions" $v.kafka.partitions "kafka" $kafka | toJson -}}
{{- end -}}
{{- end }}

{{- define "drover.config.cassandra" -}}
{{- $v := .Values.cassandra -}}
{{- $cassandra := dict "hosts" $v.hosts "keyspace" $v.keyspace "replication" (default $v.replication $v.replicationByDatacenter) -}}
{{- with $v.localDatacenter }}{{ $_ := set $cassandra "local_datacenter" . }}{{ end -}}
{{- toJson $cassandra -}}
{{- end }}

{{/* Who calls whom. */}}
{{- define "drover.config.network" -}}
{{- $calls := dict "gateway" (list "registry" "shadow" "rules" "storage") "operator" (list "registry" "shadow" "rules") "ingress" (list "ingress" "registry") "registry" (list "ingress") "rules" (list "ingress" "shadow" "storage") "shadow" (list "ingress") "storage" (list "registry") -}}
{{- $network := dict -}}
{{- range get $calls .component -}}
{{- $_ := set $network . (include "drover.uris" (dict "root" $.root "component" .) | fromJsonArray) -}}
{{- end -}}
{{- if .root.Values.networkTls.existingSecret -}}
{{- $_ := set $network "tls" (dict "certificate" "/etc/drover/network/service.pem" "key" "/etc/drover/network/service.key" "ca" "/etc/drover/network/ca.pem") -}}
{{- end -}}
{{- toJson $network -}}
{{- end }}

{{/* The listeners of devices. */}}
{{- define "drover.config.ingress" -}}
{{- $root := .root -}}
{{- $listen := dict -}}
{{- range $name, $port := dict "mqtt" 1883 "mqtts" 8883 "http" 8080 -}}
{{- $_ := set $listen $name (include "drover.listen" (dict "root" $root "port" $port) | fromJsonArray) -}}
{{- end -}}
{{- $mqtt := ternary $listen.mqtt (list "127.0.0.1:1883") $root.Values.service.mqtt -}}
{{- $ingress := dict "mqtt" (dict "listen" $mqtt) "mqtts" (dict "listen" $listen.mqtts) "http" (dict "listen" $listen.http) -}}
{{- range $name, $port := dict "https" 8443 "coap" 5683 "coaps" 5684 -}}
{{- $on := default false (get $root.Values.service $name) -}}
{{- $_ := set $ingress $name (dict "listen" (ternary (include "drover.listen" (dict "root" $root "port" $port) | fromJsonArray) list $on)) -}}
{{- end -}}
{{- $_ := set $ingress "timeouts" (dict "drain" (printf "%vs" $root.Values.drain.seconds)) -}}
{{- if include "drover.tlsSecret" $root -}}
{{- $_ := set $ingress "tls" (dict "certificate" "/etc/drover/tls/tls.crt" "key" "/etc/drover/tls/tls.key") -}}
{{- end -}}
{{- if $root.Values.tls.ticketKeysSecret -}}
{{- $_ := set $ingress "tls" (merge (dict "ticket_keys" "/etc/drover/tickets") (default (dict) $ingress.tls)) -}}
{{- end -}}
{{- toJson $ingress -}}
{{- end }}

{{- define "drover.config.gateway" -}}
{{- $gateway := dict "listen" (include "drover.listen" (dict "root" .root "port" 8080) | fromJsonArray) -}}
{{- range $name, $port := dict "mqtt" 1883 "mqtts" 8883 "http" 8080 -}}
{{- $_ := set $gateway (printf "%s_endpoint" $name) (include "drover.endpoint" (dict "root" $.root "name" $name "port" $port)) -}}
{{- end -}}
{{- toJson $gateway -}}
{{- end }}

{{- define "drover.config.operator" -}}
{{- $lease := dict "name" (include "drover.operatorAccount" .root) "namespace" .root.Release.Namespace -}}
{{- $operator := dict "namespaces" (include "drover.operatorNamespaces" .root | fromJsonArray) "owner" .root.Values.operator.owner "lease" $lease -}}
{{- if include "drover.admits" . -}}
{{- $webhook := include "drover.webhookName" .root -}}
{{- $listen := include "drover.listen" (dict "root" .root "port" 9443) | fromJsonArray -}}
{{- $host := printf "%s.%s.svc" $webhook .root.Release.Namespace -}}
{{- $_ := set $operator "webhook" (dict "listen" $listen "host" $host "secret" $webhook "configuration" (include "drover.operatorName" .root)) -}}
{{- end -}}
{{- toJson $operator -}}
{{- end }}

{{/* The section of one service in mode ha. */}}
{{- define "drover.config.service" -}}
{{- $section := dict -}}
{{- if eq .component "gateway" -}}
{{- $section = include "drover.config.gateway" . | fromJson -}}
{{- else -}}
{{- if eq .component "operator" }}{{ $section = include "drover.config.operator" . | fromJson }}{{ end -}}
{{- if eq .component "ingress" -}}
{{- $section = include "drover.config.ingress" . | fromJson -}}
{{- $_ := set $section "owners" (dict "kind" "cassandra") -}}
{{- end -}}
{{- $port := include "drover.grpcPort" .component -}}
{{- $_ := set $section "listen" (include "drover.listen" (dict "root" .root "port" $port) | fromJsonArray) -}}
{{- if has .component (list "registry" "shadow" "storage" "ingress") }}{{ $_ := set $section "store" (dict "kind" "cassandra") }}{{ end -}}
{{- if and (eq .component "registry") .root.Values.pki.masterKeysSecret }}{{ $_ := set $section "master_keys" "/etc/drover/master-keys" }}{{ end -}}
{{- if has .component (list "registry" "shadow" "rules") }}{{ $_ := set $section "partitions" .root.Values.kafka.partitions }}{{ end -}}
{{- end -}}
{{- toJson $section -}}
{{- end }}

{{/* The file of one process. Takes root and component. */}}
{{- define "drover.config" -}}
{{- $root := .root -}}{{- $component := .component -}}
{{- $sections := dict "bus" (include "drover.config.bus" $root | fromJson) "security" (include "drover.config.security" . | fromJson) -}}
{{- $admin := include "drover.listen" (dict "root" $root "port" (include "drover.adminPort" $component)) | fromJsonArray -}}
{{- $_ := set $sections "admin" (dict "listen" $admin) -}}
{{- $_ := set $sections "process" (dict "drain" (printf "%ds" (add $root.Values.drain.seconds 5))) -}}
{{- $own := list $component -}}
{{- if eq $component "standalone" -}}
{{- $own = list "ingress" "registry" "shadow" "rules" "storage" "gateway" "operator" "kafka" -}}
{{- if include "drover.operates" . }}{{ $_ := set $sections "operator" (include "drover.config.operator" . | fromJson) }}{{ end -}}
{{- $_ := set $sections "ingress" (include "drover.config.ingress" . | fromJson) -}}
{{- $_ := set $sections "gateway" (include "drover.config.gateway" . | fromJson) -}}
{{- if $root.Values.pki.masterKeysSecret }}{{ $_ := set $sections "registry" (dict "master_keys" "/etc/drover/master-keys") }}{{ end -}}
{{- else -}}
{{- $_ := set $sections "network" (include "drover.config.network" . | fromJson) -}}
{{- $_ := set $sections $component (include "drover.config.service" . | fromJson) -}}
{{- if has $component (list "registry" "ingress" "shadow" "storage") -}}
{{- $_ := set $sections "cassandra" (include "drover.config.cassandra" $root | fromJson) -}}
{{- end -}}
{{- end -}}
{{- range $section, $keys := $root.Values.config -}}
{{- if and $keys (has $section (concat $own (list "bus" "log" "otlp" "admin" "network" "process" "security" "cassandra"))) -}}
{{- $_ := set $sections $section (mergeOverwrite (default dict (get $sections $section)) (deepCopy $keys)) -}}
{{- end -}}
{{- end -}}
{{- include "drover.toml" $sections | trim -}}
{{- end }}
