{{/* Names, labels, and which pods there are. */}}

{{- define "drover.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "drover.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "drover.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "drover.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "drover.selector" -}}
app.kubernetes.io/name: {{ include "drover.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "drover.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "drover.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of one component: takes root and component. */}}
{{- define "drover.componentSelector" -}}
{{ include "drover.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "drover.componentLabels" -}}
{{ include "drover.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The pods that devices speak to. */}}
{{- define "drover.edge" -}}
{{- ternary "standalone" "ingress" (eq .Values.mode "standalone") -}}
{{- end }}

{{/* The Service of 8080 of these pods that is for the cluster alone. */}}
{{- define "drover.httpName" -}}
{{ include "drover.fullname" . }}-http
{{- end }}

{{/* The Service that REST and the console are on: in mode standalone they share 8080 with devices. */}}
{{- define "drover.restName" -}}
{{- if eq .Values.mode "standalone" -}}{{ include "drover.httpName" . }}{{- else -}}{{ include "drover.fullname" . }}-gateway{{- end -}}
{{- end }}

{{/* The name of a component's objects: in mode standalone there is one, which needs no further name. */}}
{{- define "drover.objectName" -}}
{{- $full := include "drover.fullname" .root -}}
{{- if eq .component "standalone" -}}{{ $full }}{{- else -}}{{ printf "%s-%s" $full .component }}{{- end -}}
{{- end }}

{{/* How many pods a component has: takes root, component and kind. Where an autoscaler says so it is what there is; nothing where
nothing is yet. An upgrade that turned it on without a number would leave one pod, the API server's default. */}}
{{- define "drover.replicas" -}}
{{- $values := get .root.Values .component -}}
{{- if eq .component "standalone" -}}
1
{{- else if not (dig "autoscaling" "enabled" false $values) -}}
{{ $values.replicas }}
{{- else -}}
{{- with lookup "apps/v1" .kind .root.Release.Namespace (include "drover.objectName" .) -}}
{{ max (int $values.replicas) (int .spec.replicas) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The headless Service of a component: names of its pods, and their metrics. */}}
{{- define "drover.headlessName" -}}
{{- include "drover.objectName" . }}-pods
{{- end }}

{{/* The host name of the Service that REST is on. */}}
{{- define "drover.restHost" -}}
{{- printf "%s.%s.svc" (include "drover.restName" .) .Release.Namespace -}}
{{- end }}

{{/* Components of this mode, and those that are StatefulSets: their pods keep their names, which are those of the members of
consumer groups and of the nodes that others know. */}}
{{- define "drover.stateful" -}}
{{- if eq .Values.mode "standalone" -}}standalone{{- else -}}registry ingress shadow rules storage{{- end -}}
{{- end }}
{{- define "drover.components" -}}
{{- include "drover.stateful" . }}{{ if eq .Values.mode "ha" }} gateway{{ if .Values.operator.enabled }} operator{{ end }}{{ end }}
{{- end }}

{{- define "drover.adminPort" -}}
{{- get (dict "standalone" 9464 "registry" 9464 "shadow" 9465 "rules" 9466 "storage" 9467 "ingress" 9468 "gateway" 9469 "operator" 9470) . -}}
{{- end }}

{{/* Empty where a component has none, or none that others may reach. */}}
{{- define "drover.grpcPort" -}}
{{- with get (dict "registry" 7071 "shadow" 7072 "rules" 7073 "storage" 7074 "ingress" 7075 "operator" 7076) . }}{{ . }}{{ end -}}
{{- end }}

{{- define "drover.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "drover.adminSecret" -}}
{{ default (printf "%s-admin" (include "drover.fullname" .)) .Values.adminToken.existingSecret }}
{{- end }}

{{/* The Secret of the listeners' certificate; empty: it is that of the PKI. */}}
{{- define "drover.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{ include "drover.fullname" . }}-tls
{{- else -}}
{{ .Values.tls.existingSecret }}
{{- end -}}
{{- end }}

{{/* Whether the operator runs in a component's pods: "true" or empty. */}}
{{- define "drover.operates" -}}
{{- if and .root.Values.operator.enabled (has .component (list "standalone" "operator")) -}}true{{- end -}}
{{- end }}

{{/* The name of what belongs to the operator and to no namespace. */}}
{{- define "drover.operatorName" -}}
{{ .Release.Namespace }}-{{ include "drover.fullname" . }}-operator
{{- end }}

{{/* The Service that the API server asks the operator by, the Secret of its certificate, and who may write that. */}}
{{- define "drover.webhookName" -}}
{{ include "drover.fullname" . }}-webhook
{{- end }}

{{/* Whether a component's pods answer the API server: "true" or empty. Takes root and component. Values of an older chart
(`helm upgrade --reuse-values`) do not have it. */}}
{{- define "drover.admits" -}}
{{- if and (include "drover.operates" .) (dig "enabled" false (default dict .root.Values.operator.webhook)) -}}true{{- end -}}
{{- end }}

{{/* Namespaces the operator takes care of, as JSON; none: all. Standalone, its pod is the one that devices speak to: there it has
its rights in its own namespace alone unless told otherwise. */}}
{{- define "drover.operatorNamespaces" -}}
{{- $namespaces := .Values.operator.namespaces -}}
{{- if has "*" $namespaces -}}
{{- $namespaces = list -}}
{{- else if and (not $namespaces) (eq .Values.mode "standalone") -}}
{{- $namespaces = list .Release.Namespace -}}
{{- end -}}
{{- toJson $namespaces -}}
{{- end }}

{{/* The account with the operator's rights. */}}
{{- define "drover.operatorAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ include "drover.fullname" . }}-operator{{- else -}}{{ include "drover.serviceAccount" . }}{{- end -}}
{{- end }}

{{- define "drover.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "drover.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* Whether a component may have more than one pod: "true" or empty. */}}
{{- define "drover.isMany" -}}
{{- $values := get .root.Values .component -}}
{{- if and (ne .component "standalone") (gt (int $values.replicas) 1) -}}true{{- end -}}
{{- end }}

{{/* How the Services of devices are reached. */}}
{{- define "drover.exposure" -}}
{{- $v := .Values -}}
type: {{ $v.service.type }}
ipFamilyPolicy: {{ $v.service.ipFamilyPolicy }}
{{- if ne $v.service.type "ClusterIP" }}
externalTrafficPolicy: {{ $v.service.externalTrafficPolicy }}
{{- end }}
{{- if eq $v.service.type "LoadBalancer" }}
{{- with $v.service.loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with $v.service.loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
