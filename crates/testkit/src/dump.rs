//! What a failed test leaves in the log: the state that explains it.

use crate::kubectl::kubectl;

/// Prints the namespace's objects, events and logs, and the logs of the operator and the agents.
pub(crate) async fn print(namespace: &str) {
    let system =
        std::env::var("E2E_SYSTEM_NAMESPACE").unwrap_or_else(|_| "stoppablecontainer-system".to_owned());
    eprintln!("======== state of {namespace} at the failure ========");
    for args in [
        vec![
            "-n",
            namespace,
            "get",
            "stoppablecontainers,stoppablecontainerinstances,pods,pvc",
            "-o",
            "wide",
        ],
        vec![
            "-n",
            namespace,
            "get",
            "stoppablecontainerinstances",
            "-o",
            "yaml",
        ],
        vec!["-n", namespace, "describe", "pods"],
        vec!["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
        vec!["-n", &system, "get", "pods", "-o", "wide"],
        vec![
            "-n",
            &system,
            "logs",
            "-l",
            "app.kubernetes.io/name=stoppablecontainer",
            "--all-containers",
            "--tail=120",
            "--prefix",
        ],
    ] {
        eprintln!("-------- kubectl {}", args.join(" "));
        match kubectl(&args, "").await {
            Ok(output) => eprintln!("{}{}", output.stdout, output.stderr),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    for pod in pods_of(namespace).await {
        eprintln!("-------- logs of {pod}");
        if let Ok(output) = kubectl(
            &["-n", namespace, "logs", &pod, "--all-containers", "--tail=60"],
            "",
        )
        .await
        {
            eprintln!("{}{}", output.stdout, output.stderr);
        }
    }
}

async fn pods_of(namespace: &str) -> Vec<String> {
    match kubectl(&["-n", namespace, "get", "pods", "-o", "name"], "").await {
        Ok(output) => output.stdout.lines().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}
