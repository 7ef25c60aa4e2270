//! What the flags resolve to: the options of each part, checked.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use webhook_certs::{Lifetimes, Source};

use crate::args::{Args, CertificateSource};
use crate::lease::LeaseOptions;
use crate::reconcile::{self, pods::OptOuts};
use crate::rewrite::Wrapper;
use crate::webhook::Settings;

/// The options of each part.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the webhook listens.
    pub webhook_address: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_address: SocketAddr,
    /// From SIGTERM to the end of the last connection.
    pub drain: Duration,
    /// Of the webhook.
    pub settings: Settings,
    /// Of the certificates.
    pub certificates: webhook_certs::Options,
    /// Of the controllers.
    pub reconcile: reconcile::Options,
}

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A prefix that no object could name.
    #[error(
        "--allowed-prefix {0:?}: must be an absolute path without \".\", \"..\", empty parts and trailing slash"
    )]
    Prefix(String),
    /// Certificates that cannot be rotated.
    #[error(
        "--certificate-...: the lifetime of the authority may be 20 years at most, that of a certificate a third of it; the \
         renewal is due after 10 to 80 percent, leaves a certificate 20 seconds at least, and an authority twice the overlap"
    )]
    Lifetimes,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let lifetimes = Lifetimes {
            authority: args.certificate_authority_lifetime,
            leaf: args.certificate_lifetime,
            overlap: args.certificate_overlap,
            renew_after_percent: args.certificate_renew_after_percent,
        };
        let source = match args.certificate_source {
            CertificateSource::SelfManaged => Source::SelfManaged(lifetimes),
            CertificateSource::Supplied => Source::Supplied,
        };
        if !lifetimes.is_sound() {
            return Err(ConfigError::Lifetimes);
        }
        let allowed_prefixes: Vec<String> = args
            .allowed_prefixes
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect();
        if let Some(bad) = allowed_prefixes
            .iter()
            .find(|prefix| !crate::webhook::is_clean_path(prefix))
        {
            return Err(ConfigError::Prefix(bad.clone()));
        }
        let mut opt_outs = OptOuts::default();
        opt_outs.labels.extend(args.provider_labels);
        opt_outs.annotations.extend(args.provider_annotations);
        opt_outs.keep_node.extend(args.keep_node_annotations);
        Ok(Self {
            webhook_address: args.webhook_address,
            admin_address: args.admin_address,
            drain: Duration::from_secs(args.drain_seconds),
            settings: Settings {
                wrapper: Wrapper {
                    image: args.wrapper_image,
                    pull_secret: args.wrapper_pull_secret.filter(|name| !name.is_empty()),
                },
                allowed_prefixes,
                excluded_namespaces: args.excluded_namespaces,
                controller: format!(
                    "system:serviceaccount:{}:{}",
                    args.namespace, args.service_account
                ),
            },
            certificates: webhook_certs::Options {
                namespace: args.namespace.clone(),
                secret: args.certificate_secret,
                service: args.service,
                mutating: args.mutating_webhook_configuration,
                validating: args.validating_webhook_configuration,
                source,
                clock: SystemTime::now,
            },
            reconcile: reconcile::Options {
                lease: LeaseOptions::new(args.namespace, args.leader_election_lease, args.pod_name),
                opt_outs,
            },
        })
    }
}
