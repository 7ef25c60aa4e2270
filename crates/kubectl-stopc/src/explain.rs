//! Errors of the API server and of the configuration, in the words of the user: one sentence with
//! the cause, and what to do.

use kube::config::{InferConfigError, KubeconfigError};
use kube::core::Status;

use crate::failure::{ApiFailure, ApiFailureKind, Failure};

/// What to do if the cluster does not have the product.
pub(crate) const INSTALL: &str =
    "install StoppableContainer with its Helm chart, or name another cluster with --context";

/// The failure of `what` ("stop web"), from the error of a request.
pub fn request(what: &str, error: &kube::Error) -> Failure {
    let (kind, message) = match error {
        kube::Error::Api(status) => refused(what, status),
        kube::Error::Service(cause) => unreachable(what, cause.as_ref()),
        kube::Error::HyperError(cause) => unreachable(what, cause),
        kube::Error::ReadEvents(cause) => unreachable(what, cause),
        kube::Error::Auth(cause) => (
            ApiFailureKind::NotAllowed,
            format!("cannot {what}: the credentials of the kubeconfig cannot be used: {cause}; log in again"),
        ),
        kube::Error::SerdeError(cause) => (
            ApiFailureKind::Refused,
            format!(
                "cannot {what}: this version of the plugin cannot read the API server's answer ({cause}); compare \
                 the versions with `kubectl stopc version`"
            ),
        ),
        other => (ApiFailureKind::Refused, format!("cannot {what}: {other}")),
    };
    Failure::Api(ApiFailure { kind, message })
}

/// The failure of a watch.
pub fn watch(what: &str, error: &kube::runtime::watcher::Error) -> Failure {
    use kube::runtime::watcher::Error;
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            request(what, error)
        }
        Error::WatchError(status) => {
            let (kind, message) = refused(what, status);
            Failure::Api(ApiFailure { kind, message })
        }
        Error::NoResourceVersion => Failure::failed(format!("cannot {what}: {error}")),
    }
}

/// The failure to find a cluster in the kubeconfig.
pub fn configuration(error: &KubeconfigError) -> Failure {
    use KubeconfigError as E;
    Failure::failed(match error {
        E::LoadContext(name) => format!(
            "the kubeconfig does not have the context {name:?}; `kubectl config get-contexts` lists those that it has"
        ),
        E::LoadClusterOfContext(name) => format!(
            "the kubeconfig does not have the cluster {name:?}; `kubectl config get-clusters` lists those that it has"
        ),
        E::CurrentContextNotSet => {
            "the kubeconfig does not say which cluster to use; choose one with --context or \
                                    `kubectl config use-context NAME`"
                .to_owned()
        }
        E::ReadConfig(cause, path) => format!(
            "the kubeconfig {} cannot be read ({cause}); name another with --kubeconfig or KUBECONFIG",
            path.display()
        ),
        other => format!("the kubeconfig cannot be used: {other}; check it with `kubectl config view`"),
    })
}

/// The failure to find a cluster at all.
pub fn no_cluster(error: &InferConfigError) -> Failure {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Failure::failed(format!(
        "no cluster to talk to: {cause}; name a kubeconfig with --kubeconfig or KUBECONFIG"
    ))
}

/// The cluster does not have the kind, but perhaps another version of it.
pub fn kind_missing(what: &str, needed: &str, served: &[String]) -> Failure {
    let message = if served.is_empty() {
        format!("cannot {what}: the cluster does not have StoppableContainers; {INSTALL}")
    } else {
        format!(
            "cannot {what}: the cluster has StoppableContainers of version {}, and this plugin needs {needed}; install \
             the plugin of the cluster's version (`kubectl stopc version`)",
            served.join(", ")
        )
    };
    Failure::Api(ApiFailure {
        kind: ApiFailureKind::KindMissing,
        message,
    })
}

fn refused(what: &str, status: &Status) -> (ApiFailureKind, String) {
    let message = status.message.trim_end_matches('.');
    match status.code {
        401 => (
            ApiFailureKind::NotAllowed,
            format!(
                "cannot {what}: the API server does not accept the credentials of the kubeconfig; log in again"
            ),
        ),
        403 if message.contains(" cannot ") && message.contains("stoppablecontainer") => (
            ApiFailureKind::NotAllowed,
            format!(
                "cannot {what}: {message}; ask an administrator for the ClusterRole stoppablecontainer-edit (to read: \
                 stoppablecontainer-view), which `edit` and `admin` (`view`) contain"
            ),
        ),
        403 if message.contains(" cannot ") => (
            ApiFailureKind::NotAllowed,
            format!("cannot {what}: {message}; ask an administrator for the permission"),
        ),
        404 if is_kind_missing(status) => (
            ApiFailureKind::KindMissing,
            format!("cannot {what}: the cluster does not have StoppableContainers; {INSTALL}"),
        ),
        404 => (ApiFailureKind::NotFound, format!("cannot {what}: {message}")),
        409 => (
            ApiFailureKind::Refused,
            format!("cannot {what}: {message}; try again"),
        ),
        500 if message.contains("failed calling webhook") => (
            ApiFailureKind::Refused,
            format!(
                "cannot {what}: the controller's webhook does not answer ({message}); find out why with `kubectl stopc \
                 doctor`"
            ),
        ),
        _ => (ApiFailureKind::Refused, format!("cannot {what}: {message}")),
    }
}

/// Whether the API server does not know the path, in contrast to an object that does not exist.
fn is_kind_missing(status: &Status) -> bool {
    status.reason != "NotFound" || status.message.contains("could not find the requested resource")
}

fn unreachable(what: &str, cause: &(dyn std::error::Error + 'static)) -> (ApiFailureKind, String) {
    let mut root = cause;
    while let Some(next) = root.source() {
        root = next;
    }
    (
        ApiFailureKind::Unreachable,
        format!(
            "cannot {what}: the API server cannot be reached: {root}; check the network and the cluster of the \
             kubeconfig (`kubectl cluster-info`)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> Failure {
        let status = Status::failure(message, reason).with_code(code);
        request("stop web", &kube::Error::Api(Box::new(status)))
    }

    fn kind(failure: &Failure) -> ApiFailureKind {
        match failure {
            Failure::Api(api) => api.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_missing_object_and_a_missing_kind_are_different() {
        let object = api(404, "NotFound", "stoppablecontainers \"web\" not found");
        assert_eq!(kind(&object), ApiFailureKind::NotFound);
        assert_eq!(
            object.to_string(),
            "cannot stop web: stoppablecontainers \"web\" not found"
        );
        for (reason, message) in [
            ("NotFound", "the server could not find the requested resource"),
            ("Failed to parse error data", "404 page not found"),
        ] {
            let missing = api(404, reason, message);
            assert_eq!(kind(&missing), ApiFailureKind::KindMissing, "{message}");
            assert!(missing.to_string().contains("Helm"), "{missing}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (code, reason, message, words) in [
            (401, "Unauthorized", "Unauthorized", "log in again"),
            (
                403,
                "Forbidden",
                "User \"jo\" cannot patch resource \"stoppablecontainers\"",
                "stoppablecontainer-edit",
            ),
            (
                403,
                "Forbidden",
                "User \"jo\" cannot get resource \"pods\"",
                "the permission",
            ),
            (
                500,
                "InternalError",
                "failed calling webhook \"x\": timeout",
                "kubectl stopc doctor",
            ),
            (409, "Conflict", "the object has been modified", "try again"),
        ] {
            let failure = api(code, reason, message);
            assert!(failure.to_string().contains(words), "{failure}");
            assert_eq!(failure.exit_code(), 1);
        }
        let policy = api(403, "Forbidden", "admission webhook \"p\" denied the request: no");
        assert!(!policy.to_string().contains("ClusterRole"), "{policy}");
    }

    #[test]
    fn an_unreachable_server_is_named_with_its_first_cause() {
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let failure = request("list", &kube::Error::Service(Box::new(cause)));
        assert_eq!(kind(&failure), ApiFailureKind::Unreachable);
        assert!(
            failure
                .to_string()
                .contains("cannot be reached: connection refused;")
        );
    }

    #[test]
    fn another_version_is_named() {
        let failure = kind_missing("list", "v1alpha1", &["v2".to_owned()]);
        assert!(
            failure
                .to_string()
                .contains("of version v2, and this plugin needs v1alpha1"),
            "{failure}"
        );
        assert!(kind_missing("list", "v1alpha1", &[]).to_string().contains("Helm"));
    }
}
