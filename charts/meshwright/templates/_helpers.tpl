{{- define "meshwright.labels" -}}
app.kubernetes.io/name: meshwright-operator
app.kubernetes.io/part-of: meshwright
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "meshwright.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Definitions of a file. Kept when the release is deleted, unless somebody asks for it: with them would go everything users made. */}}
{{- define "meshwright.crds" -}}
{{- $keep := .keep }}
{{- range splitList "---\n" .file }}
{{- if . | trim }}
{{- $crd := fromYaml . }}
{{- $annotations := ($crd.metadata).annotations | default dict }}
{{- if $keep }}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" }}
{{- end }}
{{- $_ := set $crd.metadata "annotations" $annotations }}
---
{{ toYaml $crd }}
{{- end }}
{{- end }}
{{- end }}
