/*!
What other admission webhooks do to a pod, as pure functions from a pod to a JSON patch, in the
shape in which the originals do it at their current releases; each module names the upstream files
that it follows. Stand-ins for tests: they claim nothing about the originals beyond that shape.

The images are the exception: every injected container runs [`IMAGE`], whose one program knows by
its arguments what it stands in for.
*/

#![forbid(unsafe_code)]

mod istio;
mod kueue;
mod linkerd;
mod pod;
mod policies;
mod vault;
mod vault_env;

use std::fmt;
use std::str::FromStr;

use json_patch::Patch;
use serde_json::Value;

pub use vault::SECRET;

/// The image of every injected container.
pub const IMAGE: &str = "docker.io/test/injectors:1";

/// A stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injector {
    /// Istio with the proxy as native sidecar, its default.
    Istio,
    /// Istio with `holdApplicationUntilProxyStarts` and without native sidecars: the proxy is the
    /// first container.
    IstioFirst,
    /// Istio without native sidecars, and with the pod `fsGroup` of older releases: the proxy is
    /// the last container.
    IstioLast,
    /// Linkerd with the proxy as native sidecar, its default.
    Linkerd,
    /// Linkerd without native sidecars: the proxy is the first container and has a hook that waits.
    LinkerdFirst,
    /// The Vault agent injector.
    Vault,
    /// Kueue's pod integration; it takes pods that name a queue.
    Kueue,
    /// The same in a namespace whose LocalQueue `default` takes all others.
    KueueDefault,
    /// Another registry in front of every image.
    Registry,
    /// A Kyverno policy that adds a `securityContext` to every container.
    Kyverno,
    /// The vertical pod autoscaler's admission controller.
    Vpa,
    /// Variables added to every container, one of them a second time.
    Env,
    /// Bank-Vaults: a program in front of the command that puts secrets into its environment.
    VaultEnv,
    /// Removes what StoppableContainer's webhook set. No known product does; it is the worst that
    /// one could.
    Remover,
    /// Takes the label away by which StoppableContainer's webhooks find their pods, as a policy
    /// that allows only known labels may.
    Unlabeller,
    /// An annotation and nothing else: tells that a configuration is in use.
    Marker,
}

// === impl Injector ===

impl Injector {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Istio,
        Self::IstioFirst,
        Self::IstioLast,
        Self::Linkerd,
        Self::LinkerdFirst,
        Self::Vault,
        Self::Kueue,
        Self::KueueDefault,
        Self::Registry,
        Self::Kyverno,
        Self::Vpa,
        Self::Env,
        Self::VaultEnv,
        Self::Remover,
        Self::Unlabeller,
        Self::Marker,
    ];

    /// Its name, which is the path of its webhook too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::IstioFirst => "istio-first",
            Self::IstioLast => "istio-last",
            Self::Linkerd => "linkerd",
            Self::LinkerdFirst => "linkerd-first",
            Self::Vault => "vault",
            Self::Kueue => "kueue",
            Self::KueueDefault => "kueue-default",
            Self::Registry => "registry",
            Self::Kyverno => "kyverno",
            Self::Vpa => "vpa",
            Self::Env => "env",
            Self::VaultEnv => "vault-env",
            Self::Remover => "remover",
            Self::Unlabeller => "unlabeller",
            Self::Marker => "marker",
        }
    }

    /// What it does to a pod.
    ///
    /// # Errors
    /// Why it refuses the pod, as the original words it.
    pub fn patch(self, pod: &Value) -> Result<Patch, String> {
        Ok(match self {
            Self::Istio => istio::patch(pod, istio::Proxy::Native),
            Self::IstioFirst => istio::patch(pod, istio::Proxy::First),
            Self::IstioLast => istio::patch(pod, istio::Proxy::Last),
            Self::Linkerd => linkerd::patch(pod, true),
            Self::LinkerdFirst => linkerd::patch(pod, false),
            Self::Vault => vault::patch(pod)?,
            Self::Kueue => kueue::patch(pod, false),
            Self::KueueDefault => kueue::patch(pod, true),
            Self::Registry => policies::registry(pod),
            Self::Kyverno => policies::kyverno(pod),
            Self::Vpa => policies::vpa(pod),
            Self::Env => policies::env(pod),
            Self::VaultEnv => vault_env::patch(pod),
            Self::Remover => policies::remover(pod),
            Self::Unlabeller => policies::unlabeller(pod),
            Self::Marker => policies::marker(pod),
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// As [`Injector::patch`], or because the pod does not have the lists that the patch names.
    pub fn apply(self, pod: &mut Value) -> Result<(), String> {
        let patch = self.patch(pod)?;
        json_patch::patch(pod, &patch).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Injector {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|injector| injector.name() == name);
        found.ok_or_else(|| format!("no injector {name:?}"))
    }
}

#[cfg(test)]
mod tests;
