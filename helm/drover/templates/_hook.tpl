{{/* What hooks run: `drover crd` in a Job, by an account of its own. Both are gone with the hook. */}}

{{/* Annotations of an object of a hook. Takes hook (when it runs) and weight (in which order objects are made). */}}
{{- define "drover.hookAnnotations" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-weight: {{ .weight | quote }}
{{- end }}

{{/* The Job and its account. Takes root, hook, component (by which both are called), and args. */}}
{{- define "drover.hookJob" -}}
{{- $root := .root -}}{{- $v := .root.Values -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "drover.objectName" . }}
  labels: {{- include "drover.labels" $root | nindent 4 }}
  annotations: {{- include "drover.hookAnnotations" (dict "hook" .hook "weight" "-2") | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "drover.objectName" . }}
  labels: {{- include "drover.componentLabels" . | nindent 4 }}
  annotations: {{- include "drover.hookAnnotations" (dict "hook" .hook "weight" "-1") | nindent 4 }}
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 300
  template:
    metadata:
      labels:
        {{- include "drover.componentLabels" . | nindent 8 }}
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $v.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ include "drover.objectName" . }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
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
      containers:
        - name: crd
          image: {{ include "drover.image" $root }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          args: {{ toJson .args }}
          resources:
            requests: {cpu: 50m, memory: 32Mi}
            limits: {memory: 128Mi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
{{- end }}
