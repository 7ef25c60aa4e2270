{{/* Prefix of all names. Short enough for every suffix and for a label's 63 characters. */}}
{{- define "stoppablecontainer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 20 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object of the release. */}}
{{- define "stoppablecontainer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels by which pods of one component are selected; call with (list . "component"). They never change. */}}
{{- define "stoppablecontainer.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Image of one component; call with (list . "operator"). */}}
{{- define "stoppablecontainer.image" -}}
{{- $root := index . 0 -}}
{{- printf "%s/stoppablecontainer-%s:%s" $root.Values.image.registry (index . 1) (default $root.Chart.AppVersion $root.Values.image.tag) -}}
{{- end -}}

{{/* Name of the Secret with the certificate authority or, if supplied, the serving certificate. */}}
{{- define "stoppablecontainer.certificateSecret" -}}
{{- .Values.certificates.secretName | default (printf "%s-webhook-certs" (include "stoppablecontainer.fullname" .)) -}}
{{- end -}}

{{/* What makes cert-manager's injector fill in the caBundle. */}}
{{- define "stoppablecontainer.injectorAnnotations" -}}
{{- if eq .Values.certificates.source "cert-manager" -}}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ .Values.certificates.certificateName | default (include "stoppablecontainer.certificateSecret" .) }}
{{- end -}}
{{- end -}}

{{/* Rules that let a certificate keeper publish the caBundle: by name, and no other configuration. */}}
{{- define "stoppablecontainer.caBundleRules" -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  resourceNames: [{{ include "stoppablecontainer.fullname" . }}]
  verbs: [get, list, watch, patch]
{{- end -}}

{{/* Rules for the certificate Secret. Creation cannot be limited to a name. */}}
{{- define "stoppablecontainer.certificateRules" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "stoppablecontainer.certificateSecret" . }}]
  verbs: [get, list, watch, update, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end -}}

{{/* Namespaces that have nothing to do with the webhook, as a YAML list. */}}
{{- define "stoppablecontainer.excludedNamespaces" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toYaml -}}
{{- end -}}

{{/* Pod selectors of the webhooks for consumer pods: ours alone, and never the API server's own world (invariant I10). */}}
{{- define "stoppablecontainer.consumerSelectors" -}}
objectSelector:
  matchLabels:
    stoppablecontainer.xtlsoft.top/role: consumer
namespaceSelector:
  {{- include "stoppablecontainer.namespaceSelector" . | nindent 2 }}
{{- end -}}

{{- define "stoppablecontainer.namespaceSelector" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- include "stoppablecontainer.excludedNamespaces" . | nindent 6 }}
{{- end -}}

{{/* Where the API server finds the webhook; call with (list . "/path"). The caBundle is published by the operator. */}}
{{- define "stoppablecontainer.clientConfig" -}}
{{- $root := index . 0 -}}
service:
  name: {{ include "stoppablecontainer.fullname" $root }}-webhook
  namespace: {{ $root.Release.Namespace }}
  path: {{ index . 1 }}
  port: 443
{{- end -}}

{{/*
CEL list of the users that may make and unmake what ties our objects together: our controller, and Kubernetes' own, which
run under one name where they have no service accounts (`--use-service-account-credentials=false`).
*/}}
{{- define "stoppablecontainer.ownUsers" -}}
["system:serviceaccount:{{ .Release.Namespace }}:{{ include "stoppablecontainer.fullname" . }}-controller",
"system:serviceaccount:kube-system:generic-garbage-collector",
"system:serviceaccount:kube-system:namespace-controller",
"system:kube-controller-manager"]
{{- end -}}
