//! `version`: the plugin, the controller and the agents.

use std::collections::BTreeMap;

use clap::Args;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Client};
use serde_json::json;

use crate::failure::{ApiFailureKind, Failure};
use crate::output::{self, Format};
use crate::session::Session;
use crate::table::{Row, render};

/// Label selector of the product's own objects.
pub(crate) const PRODUCT: &str = "app.kubernetes.io/name=stoppablecontainer";
const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Arguments of `version`.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Only the version of the plugin, without asking the cluster.
    #[arg(long)]
    pub client: bool,
    /// Format: json, yaml or jsonpath=TEMPLATE.
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// The version of a part of the product in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// `controller` or `node-agent`.
    pub part: &'static str,
    /// Its namespace and name.
    pub object: String,
    /// Its version; of several images, the chart's label.
    pub version: String,
    /// Its image.
    pub image: String,
}

/// Version of this program.
pub fn client() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// `version --client`
///
/// # Errors
/// If the format does not fit.
pub fn print_client(args: &VersionArgs, screen: &mut crate::screen::Screen) -> Result<(), Failure> {
    let text = rendered(args.output.as_ref(), None)?;
    screen.print_raw(&text);
    Ok(())
}

/// `version`
///
/// # Errors
/// If the cluster cannot be asked.
pub async fn run(session: &mut Session, args: &VersionArgs) -> Result<(), Failure> {
    let installed = match installed(&session.client).await {
        Ok(installed) => installed,
        Err(Failure::Api(failure)) => {
            let text = rendered(args.output.as_ref(), None)?;
            session.screen.print_raw(&text);
            // Users of containers need not be allowed to look at the installation.
            return match failure.kind {
                ApiFailureKind::NotAllowed => {
                    session
                        .screen
                        .note(&format!("The cluster's versions are not shown: {failure}"));
                    Ok(())
                }
                _ => Err(Failure::Api(failure)),
            };
        }
        Err(failure) => return Err(failure),
    };
    let text = rendered(args.output.as_ref(), Some(&installed))?;
    session.screen.print_raw(&text);
    if installed.is_empty() {
        session.screen.note(&format!(
            "The controller was not found: no Deployment has the label {PRODUCT}."
        ));
    }
    Ok(())
}

/// The parts in the cluster.
///
/// # Errors
/// If they cannot be listed.
pub async fn installed(client: &Client) -> Result<Vec<Installed>, Failure> {
    let params = ListParams::default().labels(PRODUCT);
    let what = "read the versions in the cluster";
    let deployments = Api::<Deployment>::all(client.clone()).list(&params).await;
    let deployments = deployments.map_err(|error| crate::explain::request(what, &error))?;
    let agents = Api::<DaemonSet>::all(client.clone()).list(&params).await;
    let agents = agents.map_err(|error| crate::explain::request(what, &error))?;
    let image = |spec: Option<k8s_openapi::api::core::v1::PodSpec>| {
        let first = spec.and_then(|spec| spec.containers.into_iter().next());
        first.and_then(|container| container.image).unwrap_or_default()
    };
    let deployments = deployments.items.into_iter().map(|object| {
        let spec = object.spec.and_then(|spec| spec.template.spec);
        part("controller", &object.metadata, image(spec))
    });
    let agents = agents.items.into_iter().map(|object| {
        let spec = object.spec.and_then(|spec| spec.template.spec);
        part("node-agent", &object.metadata, image(spec))
    });
    Ok(deployments.chain(agents).collect())
}

fn part(part: &'static str, metadata: &ObjectMeta, image: String) -> Installed {
    let none = BTreeMap::new();
    let labels = metadata.labels.as_ref().unwrap_or(&none);
    Installed {
        part,
        object: format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        ),
        version: labels
            .get(VERSION_LABEL)
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned()),
        image,
    }
}

fn rendered(format: Option<&Format>, installed: Option<&[Installed]>) -> Result<String, Failure> {
    let Some(format) = format.filter(|format| !format.is_table()) else {
        let client = Row::plain(["plugin", client(), "", ""].map(str::to_owned));
        let rows: Vec<_> = std::iter::once(client)
            .chain(installed.into_iter().flatten().map(|part| {
                Row::plain([
                    part.part.to_owned(),
                    part.version.clone(),
                    part.object.clone(),
                    part.image.clone(),
                ])
            }))
            .collect();
        return Ok(format!(
            "{}\n",
            render(&["PART", "VERSION", "OBJECT", "IMAGE"], &rows)
        ));
    };
    let mut value = json!({ "clientVersion": client() });
    if let Some(installed) = installed {
        let parts = installed.iter().map(|part| {
            json!({ "part": part.part, "object": part.object, "version": part.version, "image": part.image })
        });
        value["installed"] = parts.collect();
    }
    output::objects(format, vec![value], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_a_table_or_an_object() {
        let controller = Installed {
            part: "controller",
            object: "sys/ctl".to_owned(),
            version: "0.1.0".to_owned(),
            image: "r/operator:0.1.0".to_owned(),
        };
        assert_eq!(
            rendered(None, Some(std::slice::from_ref(&controller))).unwrap(),
            format!(
                "PART         VERSION   OBJECT    IMAGE\nplugin       {}\ncontroller   0.1.0     sys/ctl   \
                 r/operator:0.1.0\n",
                client()
            )
        );
        let format = "jsonpath={.installed[0].version}".parse().unwrap();
        assert_eq!(rendered(Some(&format), Some(&[controller])).unwrap(), "0.1.0");
        let format = "jsonpath={.clientVersion}".parse().unwrap();
        assert_eq!(rendered(Some(&format), None).unwrap(), client());
    }
}
