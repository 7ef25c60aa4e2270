//! The kinds that the controller uses, and their paths.

use std::fmt;

/// The namespace of all objects that have one.
pub(crate) const NAMESPACE: &str = "team";

/// A kind of the simulated API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Container,
    Instance,
    Pod,
    Node,
    Driver,
    Event,
}

/// An object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

// === impl Kind ===

impl Kind {
    /// The kinds that the controller has caches of.
    pub(crate) const CACHED: [Self; 5] = [
        Self::Container,
        Self::Instance,
        Self::Pod,
        Self::Node,
        Self::Driver,
    ];

    /// The plural in paths.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Container => "stoppablecontainers",
            Self::Instance => "stoppablecontainerinstances",
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Driver => "csinodes",
            Self::Event => "events",
        }
    }

    /// The kind with this plural.
    pub(crate) fn of_plural(plural: &str) -> Option<Self> {
        let mut all = Self::CACHED.into_iter().chain([Self::Event]);
        all.find(|kind| kind.plural() == plural)
    }

    /// `apiVersion` and `kind` of its objects.
    pub(crate) fn type_meta(self) -> (&'static str, &'static str) {
        const OURS: &str = "stoppablecontainer.xtlsoft.top/v1alpha1";
        match self {
            Self::Container => (OURS, "StoppableContainer"),
            Self::Instance => (OURS, "StoppableContainerInstance"),
            Self::Pod => ("v1", "Pod"),
            Self::Node => ("v1", "Node"),
            Self::Driver => ("storage.k8s.io/v1", "CSINode"),
            Self::Event => ("events.k8s.io/v1", "Event"),
        }
    }

    /// Whether the kind has a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Driver)
    }

    /// Whether a write to the object itself leaves `status` alone.
    pub(crate) fn has_status(self) -> bool {
        matches!(self, Self::Container | Self::Instance | Self::Pod | Self::Node)
    }
}

// === impl Key ===

impl Key {
    pub(crate) fn new(kind: Kind, name: &str) -> Self {
        let name = name.to_owned();
        Self { kind, name }
    }

    pub(crate) fn container(name: &str) -> Self {
        Self::new(Kind::Container, name)
    }

    pub(crate) fn instance(name: &str) -> Self {
        Self::new(Kind::Instance, name)
    }

    pub(crate) fn pod(name: &str) -> Self {
        Self::new(Kind::Pod, name)
    }

    pub(crate) fn node(name: &str) -> Self {
        Self::new(Kind::Node, name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.type_meta().1, self.name)
    }
}
