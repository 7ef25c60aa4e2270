{{/* Prefix of all names, short enough for all suffixes within the 63 characters of a label. */}}
{{- define "stoppablecontainer.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride | trunc 19 | trimSuffix "-" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 20 | trimSuffix "-") $name -}}
{{- end -}}
{{- end -}}

{{/* Namespace of all namespaced objects. */}}
{{- define "stoppablecontainer.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* Labels of every object of the release. */}}
{{- define "stoppablecontainer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels of the pods of one component; call with (list . "component" $podLabels).
*/}}
{{- define "stoppablecontainer.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "stoppablecontainer.labels" $root | fromYaml -}}
{{- merge $own (dict "app.kubernetes.io/component" (index . 1)) (index . 2) | toYaml -}}
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

{{/*
Image of one component; call with (list . "operator" $image). The registry is, in this order, that
of the image, the global one, and that of all images. `image.registry` is the old name of registry
and namespace together.
*/}}
{{- define "stoppablecontainer.image" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $image := index . 2 -}}
{{- $program := printf "stoppablecontainer-%s" (index . 1) -}}
{{- $registry := coalesce $image.registry $values.global.imageRegistry $values.image.registry $values.imageRegistry -}}
{{- $repository := $image.repository -}}
{{- if not $repository -}}
{{- $namespace := eq $registry ($values.image.registry | default "") | ternary "" $values.imageNamespace -}}
{{- $repository = list $namespace $program | compact | join "/" -}}
{{- end -}}
{{- printf "%s/%s:%s" $registry $repository (coalesce $image.tag $values.image.tag $root.Chart.AppVersion) -}}
{{- with $image.digest -}}
{{- printf "@%s" . -}}
{{- end -}}
{{- end -}}

{{/* Pull policy of an image; call with (list . $image). */}}
{{- define "stoppablecontainer.pullPolicy" -}}
{{- (index . 1).pullPolicy | default (index . 0).Values.image.pullPolicy -}}
{{- end -}}

{{/*
The field imagePullSecrets of a pod, if there are any. The global value has names or objects with a
name, because charts differ in that.
*/}}
{{- define "stoppablecontainer.imagePullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
{{- if kindIs "string" . -}}
{{- $names = append $names . -}}
{{- else -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- with $names | uniq -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/*
Name of the service account of a program; call with (list . $serviceAccount "suffix" "values"). The
policies and the webhook know the programs by it.
*/}}
{{- define "stoppablecontainer.serviceAccountName" -}}
{{- $account := index . 1 -}}
{{- if and (not $account.create) (not $account.name) -}}
{{- fail (printf "%s.serviceAccount.name: name the existing service account, or set create to true" (index . 3)) -}}
{{- end -}}
{{- $account.name | default (printf "%s-%s" (include "stoppablecontainer.fullname" (index . 0)) (index . 2)) -}}
{{- end -}}

{{- define "stoppablecontainer.controllerAccount" -}}
{{- include "stoppablecontainer.serviceAccountName" (list . .Values.controller.serviceAccount "controller" "controller") -}}
{{- end -}}

{{- define "stoppablecontainer.agentAccount" -}}
{{- include "stoppablecontainer.serviceAccountName" (list . .Values.agent.serviceAccount "node-agent" "agent") -}}
{{- end -}}

{{/* A service account; call with (list . $serviceAccount "name"). */}}
{{- define "stoppablecontainer.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := index . 1 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 2 }}
  namespace: {{ include "stoppablecontainer.namespace" $root }}
  labels:
    {{- include "stoppablecontainer.labels" $root | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
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
  cert-manager.io/inject-ca-from: {{ include "stoppablecontainer.namespace" . }}/{{ .Values.certificates.certificateName | default (include "stoppablecontainer.certificateSecret" .) }}
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
  verbs: [get, list, watch, update]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end -}}

{{/* Namespaces that are excluded from the webhook, as a YAML list. */}}
{{- define "stoppablecontainer.excludedNamespaces" -}}
{{- concat (list "kube-system" (include "stoppablecontainer.namespace" .)) .Values.webhook.excludedNamespaces | uniq | toYaml -}}
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
  namespace: {{ include "stoppablecontainer.namespace" $root }}
  path: {{ index . 1 }}
  port: 443
{{- end -}}

{{/*
CEL list of the users that may change owner references and finalizers of the product's objects: the
product's controller and Kubernetes' own controllers. The latter share one user name with
`--use-service-account-credentials=false`.
*/}}
{{- define "stoppablecontainer.ownUsers" -}}
["system:serviceaccount:{{ include "stoppablecontainer.namespace" . }}:{{ include "stoppablecontainer.controllerAccount" . }}",
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

{{/* A duration of the values (365d) as Go's time package reads it, which does not have days. */}}
{{- define "stoppablecontainer.goDuration" -}}
{{- if hasSuffix "d" . -}}
{{- printf "%dh" (mul 24 (trimSuffix "d" .)) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Annotations of an object of a hook; call with (list "events" "weight"). */}}
{{- define "stoppablecontainer.hookAnnotations" -}}
annotations:
  helm.sh/hook: {{ index . 0 }}
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/*
A job that is a hook, with its service account and its only permissions. Keys of the argument: root,
name, args, events, rules, and the namespace of the permissions, which is empty for all.
*/}}
{{- define "stoppablecontainer.hook" -}}
{{- $root := .root }}
{{- $name := printf "%s-%s" (include "stoppablecontainer.fullname" $root) .name }}
{{- $image := $root.Values.certificates.job.image }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ include "stoppablecontainer.namespace" $root }}
  labels:
    {{- include "stoppablecontainer.labels" $root | nindent 4 }}
  {{- include "stoppablecontainer.hookAnnotations" (list .events "-2") | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty .namespace | ternary "ClusterRole" "Role" }}
metadata:
  name: {{ $name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "stoppablecontainer.labels" $root | nindent 4 }}
  {{- include "stoppablecontainer.hookAnnotations" (list .events "-2") | nindent 2 }}
rules:
  {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty .namespace | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  name: {{ $name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "stoppablecontainer.labels" $root | nindent 4 }}
  {{- include "stoppablecontainer.hookAnnotations" (list .events "-1") | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ empty .namespace | ternary "ClusterRole" "Role" }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ include "stoppablecontainer.namespace" $root }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ include "stoppablecontainer.namespace" $root }}
  labels:
    {{- include "stoppablecontainer.podLabels" (list $root .name dict) | nindent 4 }}
  {{- include "stoppablecontainer.hookAnnotations" (list .events "0") | nindent 2 }}
spec:
  # One more attempt, for an API server that was away.
  backoffLimit: 1
  template:
    metadata:
      labels:
        {{- include "stoppablecontainer.podLabels" (list $root .name dict) | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "stoppablecontainer.jobPod" $root | nindent 6 }}
      # A failed pod remains, for its log.
      restartPolicy: Never
      containers:
        - name: {{ .name }}
          image: {{ include "stoppablecontainer.image" (list $root "certs" $image) }}
          imagePullPolicy: {{ include "stoppablecontainer.pullPolicy" (list $root $image) }}
          args:
            {{- toYaml .args | nindent 12 }}
          {{- include "stoppablecontainer.jobContainer" $root | nindent 10 }}
{{- end -}}

{{/* Fields of the pods of all jobs. */}}
{{- define "stoppablecontainer.jobPod" -}}
{{- with include "stoppablecontainer.imagePullSecrets" . }}
{{- . }}
{{ end -}}
enableServiceLinks: false
{{- with .Values.controller.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.controller.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* Fields of the containers of all jobs. */}}
{{- define "stoppablecontainer.jobContainer" -}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- .Values.certificates.resources | default .Values.certificates.job.resources | toYaml | nindent 2 }}
{{- end -}}

{{/* Warnings about old names of values, which the next version does not accept any more. */}}
{{- define "stoppablecontainer.oldValues" -}}
{{- $values := .Values -}}
{{- with $values.image.registry }}
WARNING: image.registry has been replaced by imageRegistry and imageNamespace.
{{- end }}
{{- with $values.certificates.resources }}
WARNING: certificates.resources has been replaced by certificates.job.resources.
{{- end }}
{{- with $values.certificates.timeoutSeconds }}
WARNING: certificates.timeoutSeconds has been replaced by certificates.job.timeoutSeconds.
{{- end }}
{{- if eq $values.agent.logFormat "compact" }}
WARNING: agent.logFormat=compact has been replaced by agent.logFormat=text.
{{- end }}
{{- end -}}

{{/* Whether the release has a quota, or empty; call with (list $enabled $version). */}}
{{- define "stoppablecontainer.quota" -}}
{{- $enabled := index . 0 | toString -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") (contains "-gke." (index . 1))) -}}
true
{{- end -}}
{{- end -}}

{{/*
Environment variables of a program that sends traces. Their names are those of the OpenTelemetry
specification.
*/}}
{{- define "stoppablecontainer.tracingEnv" -}}
{{- $tracing := .Values.tracing -}}
{{- if $tracing.enabled -}}
{{- if not $tracing.endpoint -}}
{{- fail "tracing.endpoint: name the collector, such as http://otel-collector.observability:4318" -}}
{{- end -}}
{{- if and (hasPrefix "https:" $tracing.endpoint) (not $tracing.caSecret) -}}
{{- fail "tracing.caSecret: name the Secret with the certificate authority (ca.crt) of the collector, because tracing.endpoint has https" -}}
{{- end -}}
- name: OTEL_TRACES_EXPORTER
  value: otlp
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $tracing.endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $tracing.samplingRatio | quote }}
- name: OTEL_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ include "stoppablecontainer.namespace" . }},k8s.pod.name=$(OTEL_POD_NAME),k8s.node.name=$(OTEL_NODE_NAME)
{{- if $tracing.caSecret }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: /etc/tracing/ca.crt
{{- end }}
{{- end -}}
{{- end -}}

{{/* The volume mount of the collector's certificate authority, if there is one. */}}
{{- define "stoppablecontainer.tracingMounts" -}}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret -}}
volumeMounts:
  - name: tracing-ca
    mountPath: /etc/tracing
    readOnly: true
{{- end -}}
{{- end -}}

{{/* The volume for it. */}}
{{- define "stoppablecontainer.tracingVolumes" -}}
{{- if and .Values.tracing.enabled .Values.tracing.caSecret -}}
volumes:
  - name: tracing-ca
    secret:
      secretName: {{ .Values.tracing.caSecret }}
      items:
        - key: ca.crt
          path: ca.crt
{{- end -}}
{{- end -}}
