//! Which objects a command is about: names, `-l`, `--all`, `-A`.

use clap::Args;
use kube::api::{ApiResource, DynamicObject, ListParams, TypeMeta};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use stoppablecontainer_api::StoppableContainer;

use crate::failure::Failure;
use crate::names;
use crate::session::Session;

/// Names or a selection of containers.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Names of the containers. `stopc/NAME` is possible, too.
    #[arg(value_name = "NAME", add = names::completer())]
    pub names: Vec<String>,
    /// Selects containers by their labels, as in app=web,tier!=test.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// Selects all containers of the namespace.
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub all: bool,
    /// With -l or --all: selects containers of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["names"])]
    pub all_namespaces: bool,
}

/// How the objects were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// By these names.
    Names(Vec<String>),
    /// By a query: a label selector or none, in the namespace or in all.
    Query {
        /// The label selector.
        selector: Option<String>,
        /// Whether all namespaces are meant.
        all_namespaces: bool,
    },
}

// === impl Selection ===

impl Selection {
    /// The choice, for a command that changes something: it has to be written out.
    ///
    /// # Errors
    /// If nothing is chosen, or a name is of another kind.
    pub fn chosen(&self) -> Result<Chosen, Failure> {
        if self.names.is_empty() && self.selector.is_none() && !self.all {
            return Err(Failure::usage(
                "name a container, or select some with -l or --all",
            ));
        }
        self.chosen_or_all()
    }

    /// The choice, for a command that only reads: everything if nothing is chosen.
    ///
    /// # Errors
    /// If a name is of another kind.
    pub fn chosen_or_all(&self) -> Result<Chosen, Failure> {
        if !self.names.is_empty() {
            let names: Result<Vec<_>, _> = self.names.iter().map(|name| plain_name(name)).collect();
            return Ok(Chosen::Names(names?));
        }
        Ok(Chosen::Query {
            selector: self.selector.clone(),
            all_namespaces: self.all_namespaces,
        })
    }
}

/// The name without the kind in front of it.
///
/// # Errors
/// If the kind is another one.
pub fn plain_name(text: &str) -> Result<String, Failure> {
    let Some((kind, name)) = text.split_once('/') else {
        return Ok(text.to_owned());
    };
    let kind = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if name.is_empty()
        || !matches!(
            kind.as_str(),
            "stopc" | "stoppablecontainer" | "stoppablecontainers"
        )
    {
        return Err(Failure::usage(format!(
            "{text}: not the name of a StoppableContainer; write NAME or stopc/NAME"
        )));
    }
    Ok(name.to_owned())
}

/// The objects that exist, and a failure for each name that does not.
///
/// # Errors
/// If a query fails, or nothing can be read.
pub async fn fetch(
    session: &Session,
    chosen: &Chosen,
    what: &str,
) -> Result<(Vec<StoppableContainer>, Vec<Failure>), Failure> {
    let all = Api::all(session.client.clone());
    let here = session.containers(&session.namespace);
    fetch_from(session, &here, &all, chosen, what).await
}

/// The same as the API server sent them.
///
/// # Errors
/// As for [`fetch`].
pub async fn fetch_values(
    session: &Session,
    chosen: &Chosen,
    what: &str,
) -> Result<(Vec<serde_json::Value>, Vec<Failure>), Failure> {
    let kind = ApiResource::erase::<StoppableContainer>(&());
    let all: Api<DynamicObject> = Api::all_with(session.client.clone(), &kind);
    let here = Api::namespaced_with(session.client.clone(), &session.namespace, &kind);
    let (objects, failures) = fetch_from(session, &here, &all, chosen, what).await?;
    let values = objects.into_iter().map(|mut object| {
        // The API server leaves the kind out of the items of a list.
        object.types = Some(TypeMeta {
            api_version: kind.api_version.clone(),
            kind: kind.kind.clone(),
        });
        serde_json::to_value(object).unwrap_or_default()
    });
    Ok((values.collect(), failures))
}

async fn fetch_from<K>(
    session: &Session,
    here: &Api<K>,
    all: &Api<K>,
    chosen: &Chosen,
    what: &str,
) -> Result<(Vec<K>, Vec<Failure>), Failure>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match chosen {
        Chosen::Names(names) => {
            let (mut found, mut failures) = (Vec::new(), Vec::new());
            for name in names {
                match here.get(name).await {
                    Ok(object) => found.push(object),
                    Err(error) => {
                        let failure = session.failure(&format!("{what} {name}"), &error).await;
                        // Only that one name is missing; anything else holds for all of them.
                        if !failure.is_not_found() {
                            return Err(failure);
                        }
                        failures.push(failure);
                    }
                }
            }
            Ok((found, failures))
        }
        Chosen::Query {
            selector,
            all_namespaces,
        } => {
            let api = if *all_namespaces { all } else { here };
            let mut params = ListParams::default();
            params.label_selector.clone_from(selector);
            let whats = format!("{what} StoppableContainers");
            match api.list(&params).await {
                Ok(list) => Ok((list.items, Vec::new())),
                Err(error) => Err(session.failure(&whats, &error).await),
            }
        }
    }
}

/// The object's name for people, with the namespace if it is not the session's.
pub fn display_name(object: &StoppableContainer, namespace: &str) -> String {
    let own = object.namespace().unwrap_or_default();
    if own == namespace {
        object.name_any()
    } else {
        format!("{own}/{}", object.name_any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_needs_a_choice_and_a_read_does_not() {
        let nothing = Selection::default();
        assert_eq!(nothing.chosen().unwrap_err().exit_code(), 2);
        let everything = Chosen::Query {
            selector: None,
            all_namespaces: false,
        };
        assert_eq!(nothing.chosen_or_all(), Ok(everything.clone()));
        let all = Selection {
            all: true,
            ..Selection::default()
        };
        assert_eq!(all.chosen(), Ok(everything));
        // -A alone selects nothing, so that `stop -A` is not a catastrophe.
        let all_namespaces = Selection {
            all_namespaces: true,
            ..Selection::default()
        };
        assert!(all_namespaces.chosen().is_err());
        let labelled = Selection {
            selector: Some("a=b".to_owned()),
            all_namespaces: true,
            ..Selection::default()
        };
        assert_eq!(
            labelled.chosen(),
            Ok(Chosen::Query {
                selector: Some("a=b".to_owned()),
                all_namespaces: true
            })
        );
    }

    #[test]
    fn names_may_have_the_kind_in_front() {
        for text in [
            "web",
            "stopc/web",
            "StoppableContainer/web",
            "stoppablecontainers.stoppablecontainer.xtlsoft.top/web",
        ] {
            assert_eq!(plain_name(text), Ok("web".to_owned()), "{text}");
        }
        for text in ["pod/web", "stopc/", "sc/web"] {
            assert_eq!(plain_name(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
