//! What can be typed: flags, each with an environment variable to fall back on.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use stoppablecontainer_api::DEFAULT_HOST_PATH_PREFIX;
use telemetry::LogOptions;
use webhook_certs::parse_duration;

/// Which program makes the webhook's certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CertificateSource {
    /// The operator: the Secret holds its authority.
    #[default]
    SelfManaged,
    /// Another program, such as cert-manager: the Secret (kubernetes.io/tls) holds the serving
    /// certificate. With `ca.crt` in it the operator publishes that as caBundle; without it, the
    /// other program must publish it.
    Supplied,
}

/// The StoppableContainer operator: admission webhook and, on the leader, controllers.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Args {
    /// Where the webhook listens (TLS).
    #[arg(long, env = "WEBHOOK_ADDRESS", default_value = "0.0.0.0:8443")]
    pub webhook_address: SocketAddr,
    /// Where /livez, /readyz and /metrics are served (plain HTTP).
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// Image of the wrapper in consumer pods, by tag.
    #[arg(long, env = "WRAPPER_IMAGE")]
    pub wrapper_image: String,
    /// Name of the Secret, in the users' namespaces, that pulls the wrapper image.
    #[arg(long, env = "WRAPPER_PULL_SECRET")]
    pub wrapper_pull_secret: Option<String>,
    /// Directory that spec.hostPathPrefix may name; more than one with commas or by repetition.
    #[arg(long = "allowed-prefix", env = "ALLOWED_PREFIXES", value_delimiter = ',', default_value = DEFAULT_HOST_PATH_PREFIX)]
    pub allowed_prefixes: Vec<String>,
    /// Namespace whose pods the API server does not send to the webhook, so StoppableContainers do
    /// not work there; repeated, or with commas.
    #[arg(
        long = "excluded-namespace",
        env = "EXCLUDED_NAMESPACES",
        value_delimiter = ','
    )]
    pub excluded_namespaces: Vec<String>,
    /// Namespace of this pod.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod, which is the holder identity of the lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Name of this pod's service account, the only one that may create consumer pods.
    #[arg(long, env = "SERVICE_ACCOUNT")]
    pub service_account: String,
    /// Which program makes the webhook's certificates.
    #[arg(long, env = "CERTIFICATE_SOURCE", value_enum, default_value_t)]
    pub certificate_source: CertificateSource,
    /// Name of the Secret with the webhook's certificate authority or, if supplied, its serving
    /// certificate.
    #[arg(
        long,
        env = "CERTIFICATE_SECRET",
        default_value = "stoppablecontainer-webhook-certs"
    )]
    pub certificate_secret: String,
    /// Lifetime of the certificate authority, such as 365d.
    #[arg(long, env = "CERTIFICATE_AUTHORITY_LIFETIME", default_value = "365d", value_parser = parse_duration)]
    pub certificate_authority_lifetime: Duration,
    /// Lifetime of a serving certificate, such as 24h.
    #[arg(long, env = "CERTIFICATE_LIFETIME", default_value = "24h", value_parser = parse_duration)]
    pub certificate_lifetime: Duration,
    /// How long the old and the new certificate authority are published together, before and after
    /// the change.
    #[arg(long, env = "CERTIFICATE_OVERLAP", default_value = "1h", value_parser = parse_duration)]
    pub certificate_overlap: Duration,
    /// When a certificate or authority is renewed, in percent of its lifetime.
    #[arg(long, env = "CERTIFICATE_RENEW_AFTER_PERCENT", default_value_t = 66)]
    pub certificate_renew_after_percent: u32,
    /// Name of the Service in front of the webhook.
    #[arg(long, env = "WEBHOOK_SERVICE", default_value = "stoppablecontainer-webhook")]
    pub service: String,
    /// Name of the MutatingWebhookConfiguration.
    #[arg(
        long,
        env = "MUTATING_WEBHOOK_CONFIGURATION",
        default_value = "stoppablecontainer"
    )]
    pub mutating_webhook_configuration: String,
    /// Name of the ValidatingWebhookConfiguration.
    #[arg(
        long,
        env = "VALIDATING_WEBHOOK_CONFIGURATION",
        default_value = "stoppablecontainer"
    )]
    pub validating_webhook_configuration: String,
    /// Name of the Lease for leadership.
    #[arg(
        long,
        env = "LEADER_ELECTION_LEASE",
        default_value = "stoppablecontainer-controller"
    )]
    pub leader_election_lease: String,
    /// Label of provider pods, as KEY=VALUE, that keeps an injector away; repeated, or with commas.
    #[arg(long = "provider-label", env = "PROVIDER_LABELS", value_delimiter = ',', value_parser = key_value)]
    pub provider_labels: Vec<(String, String)>,
    /// Annotation of provider pods, as KEY=VALUE, that keeps an injector away; repeated, or with
    /// commas.
    #[arg(long = "provider-annotation", env = "PROVIDER_ANNOTATIONS", value_delimiter = ',', value_parser = key_value)]
    pub provider_annotations: Vec<(String, String)>,
    /// Annotation of provider pods on nodes that hold files, as KEY=VALUE, that keeps an autoscaler
    /// from removing the node; repeated, or with commas.
    #[arg(long = "keep-node-annotation", env = "KEEP_NODE_ANNOTATIONS", value_delimiter = ',', value_parser = key_value)]
    pub keep_node_annotations: Vec<(String, String)>,
    /// Seconds from SIGTERM to the end of the last connection.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 25)]
    pub drain_seconds: u64,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogOptions,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "must be KEY=VALUE".to_owned())
}
