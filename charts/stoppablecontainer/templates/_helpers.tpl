{{/* Prefix of all names, short enough for all suffixes within the 63 characters of a label. */}}
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

{{/*
Selector labels of the pods of one component; call with (list . "component"). They never change.
*/}}
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

{{/*
Name of the Secret with the certificate authority or, if supplied, the serving certificate.
*/}}
{{- define "stoppablecontainer.certificateSecret" -}}
{{- .Values.certificates.secretName | default (printf "%s-webhook-certs" (include "stoppablecontainer.fullname" .)) -}}
{{- end -}}

{{/* Annotation for cert-manager's injector, which sets the caBundle. */}}
{{- define "stoppablecontainer.injectorAnnotations" -}}
{{- if eq .Values.certificates.source "cert-manager" -}}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ .Values.certificates.certificateName | default (include "stoppablecontainer.certificateSecret" .) }}
{{- end -}}
{{- end -}}

{{/* Rules for publishing the caBundle, limited to the chart's webhook configurations by name. */}}
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

{{/* Namespaces that are excluded from the webhook, as a YAML list. */}}
{{- define "stoppablecontainer.excludedNamespaces" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toYaml -}}
{{- end -}}

{{/*
Selectors of the webhooks for consumer pods: pods with the product's labels, without the excluded
namespaces (invariant I10).
*/}}
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

{{/*
The webhook's clientConfig; call with (list . "/path"). The operator publishes the caBundle.
*/}}
{{- define "stoppablecontainer.clientConfig" -}}
{{- $root := index . 0 -}}
service:
  name: {{ include "stoppablecontainer.fullname" $root }}-webhook
  namespace: {{ $root.Release.Namespace }}
  path: {{ index . 1 }}
  port: 443
{{- end -}}

{{/*
CEL list of the users that may change owner references and finalizers of the product's objects: the
product's controller and Kubernetes' own controllers. The latter share one user name with
`--use-service-account-credentials=false`.
*/}}
{{- define "stoppablecontainer.ownUsers" -}}
["system:serviceaccount:{{ .Release.Namespace }}:{{ include "stoppablecontainer.fullname" . }}-controller",
"system:serviceaccount:kube-system:generic-garbage-collector",
"system:serviceaccount:kube-system:namespace-controller",
"system:kube-controller-manager"]
{{- end -}}

{{/* Fields of an endpoint of a ServiceMonitor or PodMonitor, from its values. */}}
{{- define "stoppablecontainer.scrape" -}}
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
