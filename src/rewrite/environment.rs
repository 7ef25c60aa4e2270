/*!
The image's ENV in the main container's `env`.

A plain container gets the image's variables from the runtime; the wrapper image has none, so they
go behind the template's own. Two things must not change by that:

- `$(PATH)` in a template stays literal in a plain pod when only the image defines PATH. Values in
  `env` see only what stands before them; in command, args and the commands of probes such
  references are escaped.
- `envFrom` wins over the image, but `env` wins over `envFrom`. So behind each variable of the image
  stands one optional reference per source of `envFrom` to the key of that name: where the key
  exists it replaces the image's value, where it does not the kubelet passes over it.
*/

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvFromSource, EnvVar, EnvVarSource, SecretKeySelector,
};
use stoppablecontainer_api::ImageFacts;

use super::{Denial, expansion};

/// Which names a reference in command, args and probe commands could resolve to only because of us.
pub(super) struct Names {
    /// Names that the image alone defines.
    image_only: BTreeSet<String>,
    /// Whether HOME is defined by template or image.
    pub(super) home: bool,
}

/// Puts the image's variables behind the container's where the container does not define them, and
/// escapes references to them in values that other webhooks have put behind them.
pub(super) fn fill(
    container: &mut Container,
    template: Option<&Container>,
    image: &ImageFacts,
    warnings: &mut Vec<String>,
) -> Result<Names, Denial> {
    let defaults = image_variables(image, warnings)?;
    let env = container.env.clone().unwrap_or_default();
    let defined: BTreeSet<&str> = env.iter().map(|e| e.name.as_str()).collect();
    let missing: Vec<EnvVar> = defaults
        .iter()
        .filter(|d| !defined.contains(d.name.as_str()))
        .cloned()
        .collect();
    let mut env: Vec<EnvVar> = env.into_iter().chain(missing).collect();

    // Recognised by content, so that the entries of an earlier rewrite count as well.
    let template_env = template.and_then(|t| t.env.as_deref()).unwrap_or_default();
    let ours: BTreeSet<&str> = defaults
        .iter()
        .filter(|d| !template_env.iter().any(|e| e.name == d.name))
        .filter(|d| env.iter().find(|e| e.name == d.name) == Some(d))
        .map(|d| d.name.as_str())
        .collect();
    let env_from = container.env_from.as_deref().unwrap_or_default();
    for name in &ours {
        put_sources(name, env_from, &mut env);
    }

    // A name of the image that is defined a second time resolves from there on, as it does in a
    // plain pod. `envFrom` may define any name; which ones it does is not known here, so with it a
    // reference stays.
    let mut image_only = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for variable in &mut env {
        if env_from.is_empty() && ours.contains(variable.name.as_str()) && seen.insert(variable.name.clone())
        {
            image_only.insert(variable.name.clone());
            continue;
        }
        if let Some(value) = &mut variable.value {
            *value = expansion::escape_references(value, |name| image_only.contains(name));
        }
        image_only.remove(&variable.name);
    }

    let home = env.iter().any(|e| e.name == "HOME");
    if !env.is_empty() {
        container.env = Some(env);
    }
    Ok(Names { image_only, home })
}

/// The image's ENV as entries of a container: the last of equal names, values escaped. What
/// Kubernetes cannot carry is left out with a warning.
fn image_variables(image: &ImageFacts, warnings: &mut Vec<String>) -> Result<Vec<EnvVar>, Denial> {
    let mut variables: Vec<EnvVar> = Vec::new();
    for entry in &image.env {
        let Some((name, value)) = entry.split_once('=') else {
            continue;
        };
        if value.contains('\0') {
            return Err(Denial::ImageEnvironment {
                image: image.reference.clone(),
                name: name.to_owned(),
            });
        }
        if !is_valid_name(name) {
            warnings.push(format!(
                "ENV of image {}: {name:?} cannot be the name of an environment variable in Kubernetes and is left out",
                image.reference
            ));
            continue;
        }
        // As the API server writes it back: an empty value is none.
        let value = Some(expansion::escape(value)).filter(|v| !v.is_empty());
        match variables.iter_mut().find(|v| v.name == name) {
            Some(earlier) => earlier.value = value,
            None => variables.push(EnvVar {
                name: name.to_owned(),
                value,
                value_from: None,
            }),
        }
    }
    Ok(variables)
}

/// Puts references to the sources of `envFrom` behind the image's variable, unless they are there.
fn put_sources(name: &str, env_from: &[EnvFromSource], env: &mut Vec<EnvVar>) {
    let wanted: Vec<EnvVar> = env_from
        .iter()
        .filter_map(|source| reference(name, source))
        .collect();
    let Some(default) = env.iter().position(|e| e.name == name) else {
        return;
    };
    let present = env[default + 1..]
        .iter()
        .take_while(|e| wanted.contains(e))
        .count();
    let at = default + 1 + present;
    let missing: Vec<EnvVar> = wanted.into_iter().filter(|w| !env.contains(w)).collect();
    env.splice(at..at, missing);
}

/// The entry that takes `name` from a source of `envFrom`, if that can have it.
fn reference(name: &str, source: &EnvFromSource) -> Option<EnvVar> {
    let key = name
        .strip_prefix(source.prefix.as_deref().unwrap_or_default())?
        .to_owned();
    if !is_key(&key) {
        return None;
    }
    let optional = Some(true);
    let value_from = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), _) => EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: map.name.clone(),
                key,
                optional,
            }),
            ..EnvVarSource::default()
        },
        (None, Some(secret)) => EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.name.clone(),
                key,
                optional,
            }),
            ..EnvVarSource::default()
        },
        (None, None) => return None,
    };
    Some(EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(value_from),
    })
}

/// Whether a ConfigMap or Secret can have this key (`IsConfigMapKey` in Kubernetes).
fn is_key(key: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(is_allowed) && key != "." && !key.starts_with("..")
}

/// The rule of Kubernetes since 1.34: printable ASCII other than `=`. Clusters before that refuse
/// some of these names with a message of their own.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

// === impl Names ===

impl Names {
    /// `text` of the template with the references kept literal that are literal in a plain pod.
    pub(super) fn keep_literal(&self, text: &str) -> String {
        expansion::escape_references(text, |name| self.image_only.contains(name))
    }
}
