//! The connection to the cluster that the flags name, and the screen.

use std::time::Duration;

use clap::Args;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use stoppablecontainer_api::StoppableContainer;

use crate::explain;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::units;

/// Field manager of the plugin's writes.
pub const FIELD_MANAGER: &str = "kubectl-stopc";

/// Flags that name the cluster and the user, as those of kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Connection {
    /// Namespace of the containers. [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig. [default: the current context]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Path of the kubeconfig. [default: KUBECONFIG, or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Cluster of the kubeconfig, instead of the context's.
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig, instead of the context's.
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// User to impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Group to impersonate, with --as. Can be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,
    /// Bearer token for the API server.
    #[arg(long, global = true, value_name = "TOKEN", hide = true)]
    pub token: Option<String>,
    /// Address of the API server, instead of the kubeconfig's.
    #[arg(short, long, global = true, value_name = "URL", hide = true)]
    pub server: Option<String>,
    /// Time limit of one request to the API server, as in 15s. Waits are not limited by it.
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = units::duration)]
    pub request_timeout: Duration,
}

/// What every command works with.
pub struct Session {
    /// Client of the cluster.
    pub client: Client,
    /// Namespace of objects that are named without one.
    pub namespace: String,
    /// Output, and the user's answers.
    pub screen: Screen,
    /// Flags that give kubectl the same cluster and user.
    pub kubectl_flags: Vec<String>,
}

// === impl Connection ===

impl Connection {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// If the kubeconfig does not name a usable cluster.
    pub async fn open(&self, screen: Screen) -> Result<Session, Failure> {
        let mut config = self.config().await?;
        self.adjust(&mut config)?;
        let namespace = config.default_namespace.clone();
        let limit = if self.request_timeout.is_zero() {
            apiserver::TIME_LIMIT
        } else {
            self.request_timeout
        };
        let client =
            apiserver::client_of(config, limit).map_err(|error| explain::request("connect", &error))?;
        Ok(Session {
            client,
            namespace,
            screen,
            kubectl_flags: self.kubectl_flags(),
        })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let server = self.server.as_deref();
        let named = self.context.is_some() || self.cluster.is_some() || self.user.is_some();
        let found = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| explain::configuration(&error))?;
                Config::from_custom_kubeconfig(file, &options).await
            }
            None if named => Config::from_kubeconfig(&options).await,
            None => {
                return match (Config::infer().await, server) {
                    (Ok(config), _) => Ok(config),
                    (Err(_), Some(server)) => Ok(Config::new(address(server)?)),
                    (Err(error), None) => Err(explain::no_cluster(&error)),
                };
            }
        };
        found.map_err(|error| explain::configuration(&error))
    }

    fn adjust(&self, config: &mut Config) -> Result<(), Failure> {
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        if let Some(server) = &self.server {
            config.cluster_url = address(server)?;
        }
        if let Some(token) = &self.token {
            config.auth_info = AuthInfo {
                token: Some(token.clone().into()),
                ..AuthInfo::default()
            };
        }
        if !self.impersonate_groups.is_empty() && self.impersonate.is_none() {
            return Err(Failure::usage("--as-group needs --as"));
        }
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
            let groups = self.impersonate_groups.clone();
            config.auth_info.impersonate_groups = (!groups.is_empty()).then_some(groups);
        }
        Ok(())
    }

    /// The flags for kubectl, without the namespace.
    pub fn kubectl_flags(&self) -> Vec<String> {
        let path = self.kubeconfig.as_ref().map(|path| path.display().to_string());
        let one = [
            ("--kubeconfig", &path),
            ("--context", &self.context),
            ("--cluster", &self.cluster),
            ("--user", &self.user),
            ("--as", &self.impersonate),
            ("--token", &self.token),
            ("--server", &self.server),
        ];
        let one = one
            .into_iter()
            .filter_map(|(flag, value)| Some(format!("{flag}={}", value.as_ref()?)));
        let groups = self
            .impersonate_groups
            .iter()
            .map(|group| format!("--as-group={group}"));
        one.chain(groups).collect()
    }
}

fn address(server: &str) -> Result<http::Uri, Failure> {
    server
        .parse()
        .map_err(|error| Failure::usage(format!("--server {server}: {error}")))
}

// === impl Session ===

impl Session {
    /// The StoppableContainers of a namespace.
    pub fn containers(&self, namespace: &str) -> Api<StoppableContainer> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The failure of a request about StoppableContainers. If the cluster does not know the kind,
    /// the failure says which versions of it there are.
    pub async fn failure(&self, what: &str, error: &kube::Error) -> Failure {
        let failure = explain::request(what, error);
        let missing =
            matches!(&failure, Failure::Api(api) if api.kind == crate::failure::ApiFailureKind::KindMissing);
        if !missing {
            return failure;
        }
        let Ok(groups) = self.client.list_api_groups().await else {
            return failure;
        };
        let group = groups
            .groups
            .into_iter()
            .find(|group| group.name == stoppablecontainer_api::names::GROUP);
        let served: Vec<_> = group
            .into_iter()
            .flat_map(|group| group.versions)
            .map(|version| version.version)
            .collect();
        let needed = <StoppableContainer as kube::Resource>::version(&());
        explain::kind_missing(what, &needed, &served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_the_same_cluster_and_user() {
        let connection = Connection {
            namespace: Some("team".to_owned()),
            context: Some("prod".to_owned()),
            impersonate: Some("jo".to_owned()),
            impersonate_groups: vec!["dev".to_owned(), "ops".to_owned()],
            ..Connection::default()
        };
        assert_eq!(
            connection.kubectl_flags(),
            ["--context=prod", "--as=jo", "--as-group=dev", "--as-group=ops"]
        );
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let connection = Connection {
            impersonate_groups: vec!["dev".to_owned()],
            ..Connection::default()
        };
        let mut config = Config::new("https://127.0.0.1".parse().unwrap());
        let failure = connection.adjust(&mut config).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
    }
}
