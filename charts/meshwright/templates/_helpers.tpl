{{/* Labels of an object: call it with (dict "root" $ "name" NAME "labels" MORE). */}}
{{- define "meshwright.labelsOf" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: meshwright
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with merge (dict) (.labels | default dict) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The same of the operator's objects. */}}
{{- define "meshwright.labels" -}}
{{ include "meshwright.labelsOf" (dict "root" . "name" "meshwright-operator") }}
{{- end }}

{{- define "meshwright.cniLabels" -}}
{{ include "meshwright.labelsOf" (dict "root" . "name" "meshwright-cni") }}
{{- end }}

{{- define "meshwright.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* An image of this chart: call it with (dict "root" $ "name" NAME "digest" DIGEST). */}}
{{- define "meshwright.image" -}}
{{- $tagged := printf "%s/%s:%s" .root.Values.image.registry .name (include "meshwright.tag" .root) }}
{{- if .digest }}{{ printf "%s@%s" $tagged .digest | quote }}{{ else }}{{ quote $tagged }}{{ end }}
{{- end }}

{{- define "meshwright.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "meshwright.serviceAccount" -}}
{{ .Values.serviceAccount.name | default "meshwright-operator" }}
{{- end }}

{{/* Users and groups that the cluster is to choose are left out. */}}
{{- define "meshwright.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.operator.runAsUser }}
runAsUser: {{ . }}
{{- end }}
{{- with .Values.operator.runAsGroup }}
runAsGroup: {{ . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "meshwright.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Definitions of a file: call it with (dict "root" $ "file" FILE). */}}
{{- define "meshwright.crds" -}}
{{- $root := .root }}
{{- range splitList "---\n" (.root.Files.Get .file) }}
{{- if . | trim }}
{{- $crd := fromYaml . }}
{{- with $root.Values.commonLabels }}
{{- $_ := set $crd.metadata "labels" (merge (dict) . (($crd.metadata).labels | default dict)) }}
{{- end }}
{{- if $root.Values.crds.keep }}
{{- /* With a definition would go everything that users made of it. */}}
{{- $annotations := merge (dict "helm.sh/resource-policy" "keep") (($crd.metadata).annotations | default dict) }}
{{- $_ := set $crd.metadata "annotations" $annotations }}
{{- end }}
---
{{ toYaml $crd }}
{{- end }}
{{- end }}
{{- end }}
