{{/* The pods: all alike but for their configuration, their ports and what they are given of the Secrets. */}}

{{/* The template of a pod. Takes root and component. */}}
{{- define "drover.pod" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}
metadata:
  labels:
    {{- include "drover.componentSelector" . | nindent 4 }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed configuration is a new pod.
    checksum/config: {{ include "drover.config" . | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include (ternary "drover.operatorAccount" "drover.serviceAccount" (ne (include "drover.operates" .) "")) $root }}
  automountServiceAccountToken: {{ ne (include "drover.operates" .) "" }}
  enableServiceLinks: false
  # Waiting for traffic to end, draining, and ten seconds for closing files and connections.
  terminationGracePeriodSeconds: {{ add $v.drain.endpointSeconds $v.drain.seconds 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets: {{ toJson . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector: {{ toJson . }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations: {{ toJson . }}
  {{- end }}
  {{- with $v.affinity }}
  affinity: {{ toJson . }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if and $v.topologySpread.enabled (ne .component "standalone") }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $v.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "drover.componentSelector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: drover
      image: {{ include "drover.image" $root }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - {{ ternary "up" .component (eq .component "standalone") }}
        - --config=/etc/drover/config/drover.toml
        - --data=/var/lib/drover
        {{- if and (eq .component "standalone") (include "drover.operates" .) }}
        - --operator
        {{- end }}
      {{- with include "drover.environment" . | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        {{- include "drover.containerPorts" . | nindent 8 }}
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 3
        timeoutSeconds: 5
        failureThreshold: 2
      lifecycle:
        preStop:
          sleep: {seconds: {{ $v.drain.endpointSeconds }}}
      resources: {{ toJson (get $v .component).resources }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: config, mountPath: /etc/drover/config, readOnly: true}
        - {name: admin, mountPath: /etc/drover/admin, readOnly: true}
        - {name: data, mountPath: /var/lib/drover}
        {{- range include "drover.secretVolumes" . | fromJsonArray }}
        - {name: {{ .name }}, mountPath: /etc/drover/{{ .name }}, readOnly: true}
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "drover.objectName" . }}}
    - name: admin
      secret:
        secretName: {{ include "drover.adminSecret" $root }}
        defaultMode: 288 # 0440
        items: [{key: token, path: token}]
    {{- if not (include "drover.claim" . | fromJson) }}
    - name: data
      emptyDir: {}
    {{- end }}
    {{- range include "drover.secretVolumes" . | fromJsonArray }}
    - name: {{ .name }}
      secret:
        secretName: {{ .secret }}
        defaultMode: 288 # 0440
        {{- with .keys }}
        items:
          {{- range . }}
          - {key: {{ . }}, path: {{ . }}}
          {{- end }}
        {{- end }}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The volume that a component keeps; {}: none. */}}
{{- define "drover.claim" -}}
{{- $v := .root.Values -}}
{{- if eq .component "ingress" -}}
{{- toJson $v.ingress.persistence -}}
{{- else if and (eq .component "standalone") $v.standalone.persistence.enabled -}}
{{- toJson $v.standalone.persistence -}}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{/* Which keys of which Secrets a component is given: the authority's key to the registry only. */}}
{{- define "drover.secretVolumes" -}}
{{- $v := .root.Values -}}
{{- $volumes := list -}}
{{- $tls := include "drover.tlsSecret" .root -}}
{{- if eq $v.mode "ha" -}}
{{- if eq .component "registry" -}}
{{- $volumes = append $volumes (dict "name" "pki" "secret" $v.pki.existingSecret "keys" (list "ca.pem" "ca.key")) -}}
{{- else if eq .component "ingress" -}}
{{- $keys := ternary (list "ca.pem") (list "ca.pem" "server.pem" "server.key") (ne $tls "") -}}
{{- $volumes = append $volumes (dict "name" "pki" "secret" $v.pki.existingSecret "keys" $keys) -}}
{{- end -}}
{{- with $v.networkTls.existingSecret -}}
{{- $volumes = append $volumes (dict "name" "network" "secret" . "keys" (list "ca.pem" "service.pem" "service.key")) -}}
{{- end -}}
{{- end -}}
{{- if and $v.pki.masterKeysSecret (has .component (list "registry" "standalone")) -}}
{{- $volumes = append $volumes (dict "name" "master-keys" "secret" $v.pki.masterKeysSecret "keys" (list)) -}}
{{- end -}}
{{- if and $tls (eq .component (include "drover.edge" .root)) -}}
{{- $volumes = append $volumes (dict "name" "tls" "secret" $tls "keys" (list "tls.crt" "tls.key")) -}}
{{- end -}}
{{- if and $v.tls.ticketKeysSecret (eq .component (include "drover.edge" .root)) -}}
{{- $volumes = append $volumes (dict "name" "tickets" "secret" $v.tls.ticketKeysSecret "keys" (list)) -}}
{{- end -}}
{{- toJson $volumes -}}
{{- end }}

{{/* The name of the pod is that of the member, and secrets of others' systems come by Secrets. */}}
{{- define "drover.environment" -}}
{{- $v := .root.Values -}}
{{- $member := get (dict "ingress" "DROVER_INGRESS__NODE" "registry" "DROVER_REGISTRY__MEMBER" "shadow" "DROVER_SHADOW__MEMBER" "rules" "DROVER_RULES__MEMBER" "storage" "DROVER_STORAGE__MEMBER") .component -}}
{{- with $member }}
- name: {{ . }}
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- if include "drover.operates" . }}
- name: DROVER_OPERATOR__MEMBER
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- if eq $v.mode "ha" }}
{{- with $v.kafka.existingSecret }}
- name: DROVER_BUS__KAFKA__SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
- name: DROVER_BUS__KAFKA__SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
{{- end }}
{{- if and $v.cassandra.existingSecret (has .component (list "registry" "ingress" "shadow" "storage")) }}
- name: DROVER_CASSANDRA__USERNAME
  valueFrom: {secretKeyRef: {name: {{ $v.cassandra.existingSecret }}, key: username}}
- name: DROVER_CASSANDRA__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $v.cassandra.existingSecret }}, key: password}}
{{- end }}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "drover.containerPorts" -}}
- {name: admin, containerPort: {{ include "drover.adminPort" .component }}}
{{- if include "drover.admits" . }}
- {name: webhook, containerPort: 9443}
{{- end }}
{{- with include "drover.grpcPort" .component }}
- {name: grpc, containerPort: {{ . }}}
{{- end }}
{{- if eq .component (include "drover.edge" .root) }}
{{- if .root.Values.service.mqtt }}
- {name: mqtt, containerPort: 1883}
{{- end }}
- {name: mqtts, containerPort: 8883}
- {name: http, containerPort: 8080}
{{- if .root.Values.service.https }}
- {name: https, containerPort: 8443}
{{- end }}
{{- if .root.Values.service.coap }}
- {name: coap, containerPort: 5683, protocol: UDP}
{{- end }}
{{- if .root.Values.service.coaps }}
- {name: coaps, containerPort: 5684, protocol: UDP}
{{- end }}
{{- else if eq .component "gateway" }}
- {name: http, containerPort: 8080}
{{- end }}
{{- end }}
