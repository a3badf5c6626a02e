{{- define "modelswarm.labels" -}}
app.kubernetes.io/part-of: modelswarm
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "modelswarm.operatorLabels" -}}
app.kubernetes.io/name: modelswarm-operator
app.kubernetes.io/component: operator
{{ include "modelswarm.labels" . }}
{{- end }}

{{/* The agents' names are those of OME's agent, whatever the release is called. */}}
{{- define "modelswarm.agentLabels" -}}
app.kubernetes.io/name: ome-model-agent
app.kubernetes.io/component: model-agent
{{ include "modelswarm.labels" . }}
{{- end }}

{{- define "modelswarm.agentNamespace" -}}
{{ .Values.agent.namespace | default .Release.Namespace }}
{{- end }}

{{/* Arguments: the context, and the repository. */}}
{{- define "modelswarm.image" -}}
{{- $root := index . 0 -}}
{{- $hint := "image.registry: say which registry holds your images (no image is published): --set image.registry=registry.example.com" -}}
{{- $tag := $root.Values.image.tag | default (printf "v%s" $root.Chart.AppVersion) -}}
{{ required $hint $root.Values.image.registry | trimSuffix "/" }}/{{ index . 1 }}{{ ternary "@" ":" (hasPrefix "sha256:" $tag) }}{{ $tag }}
{{- end }}

{{- define "modelswarm.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Arguments: the context, and the variables that a template sets itself, as YAML. Each name is there once, because the API
server refuses to apply a list with two; the last one counts, and the user's (env) are behind all of ours.
*/}}
{{- define "modelswarm.env" -}}
{{- $user := (index . 0).Values.env -}}
{{- $ours := fromYamlArray (index . 1) -}}
{{- range $index, $each := $ours }}
{{- $again := false }}
{{- range $later, $other := $ours }}{{ if and (gt $later $index) (eq $other.name $each.name) }}{{ $again = true }}{{ end }}{{ end }}
{{- if not (or $again (hasKey $user $each.name)) }}
{{ toYaml (list $each) }}
{{- end }}
{{- end }}
{{- range $name, $value := $user }}
- name: {{ $name }}
  value: {{ include "modelswarm.plain" $value | quote }}
{{- end }}
{{- end }}

{{/* A value as it was written: helm reads a file's numbers as floats, and would print 104857600 as 1.048576e+08. */}}
{{- define "modelswarm.plain" -}}
{{ if not (kindIs "invalid" .) }}{{ kindIs "float64" . | ternary (toJson .) (toString .) }}{{ end }}
{{- end }}

{{/* Where the certificates are, in operator and agents. */}}
{{- define "modelswarm.caFile" -}}
/etc/modelswarm/ca/{{ .Values.caBundle.key }}
{{- end }}

{{- define "modelswarm.caVolume" -}}
- name: ca-bundle
  configMap:
    name: {{ .Values.caBundle.configMap }}
    items:
    - {key: {{ .Values.caBundle.key }}, path: {{ .Values.caBundle.key }}}
{{- end }}

{{- define "modelswarm.caMount" -}}
- name: ca-bundle
  mountPath: /etc/modelswarm/ca
  readOnly: true
{{- end }}

{{/* Names of the Secrets that model tasks use. */}}
{{- define "modelswarm.modelSecrets" -}}
modelhub-secret, oss-access-secret, aws-access-secret
{{- end }}

{{/* Arguments: ServiceAccount, its namespace. */}}
{{- define "modelswarm.subject" -}}
subjects:
- kind: ServiceAccount
  name: {{ index . 0 }}
  namespace: {{ index . 1 }}
{{- end }}

{{- define "modelswarm.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
