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

{{/* Definitions of a file, kept when the release is deleted: with them would go everything users made. */}}
{{- define "meshwright.crds" -}}
{{- range splitList "---\n" . }}
{{- if . | trim }}
{{- $crd := fromYaml . }}
{{- $annotations := merge (dict "helm.sh/resource-policy" "keep") (($crd.metadata).annotations | default dict) }}
{{- $_ := set $crd.metadata "annotations" $annotations }}
---
{{ toYaml $crd }}
{{- end }}
{{- end }}
{{- end }}
