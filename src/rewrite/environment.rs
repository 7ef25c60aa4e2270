/*!
The image's ENV in the main container's `env`.

A plain container gets the image's variables from the runtime; the wrapper
image has none, so they go in front of the template's own. They must not become
referable by that: `$(PATH)` in a template stays literal in a plain pod when
only the image defines PATH, so such references are escaped.
*/

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVar};
use stoppablecontainer_api::ImageFacts;

use super::{Denial, expansion};

/// Which names a reference in command, args and probe commands could resolve to only because of us.
pub(super) struct Names {
    /// Names that the image alone defines.
    image_only: BTreeSet<String>,
    /// Whether HOME is defined by template or image.
    pub(super) home: bool,
}

/// Puts the image's variables in front of the container's where the container does not define them, and escapes
/// references in the container's values that would resolve only now.
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
    let mut env: Vec<EnvVar> = missing.into_iter().chain(env).collect();

    // Recognised by content, so that the entries of an earlier rewrite count as well.
    let template_env = template.and_then(|t| t.env.as_deref()).unwrap_or_default();
    let ours: BTreeSet<&str> = defaults
        .iter()
        .filter(|d| !template_env.iter().any(|e| e.name == d.name))
        .filter(|d| env.iter().find(|e| e.name == d.name) == Some(d))
        .map(|d| d.name.as_str())
        .collect();

    // A name of the image that is defined a second time resolves from there on, as it does in a plain pod. Variables
    // of `envFrom` come before all of `env`; which ones there are is not known here, so with them a reference stays.
    let has_env_from = container.env_from.as_ref().is_some_and(|from| !from.is_empty());
    let mut image_only: BTreeSet<String> = if has_env_from {
        BTreeSet::new()
    } else {
        ours.iter().map(|name| (*name).to_owned()).collect()
    };
    let mut seen = BTreeSet::new();
    for variable in &mut env {
        let is_ours = ours.contains(variable.name.as_str()) && seen.insert(variable.name.clone());
        if is_ours {
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

/// The image's ENV as entries of a container: the last of equal names, values escaped. What Kubernetes cannot carry is
/// left out with a warning.
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
        let value = Some(expansion::escape(value));
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

/// The rule of Kubernetes since 1.34: printable ASCII other than `=`. Clusters before that refuse some of these names
/// with a message of their own.
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
