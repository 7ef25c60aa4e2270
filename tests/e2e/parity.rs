//! I5: user operations on a pod have the same result for a plain pod and for a StoppableContainer.
//! Every test runs the same template as both, inspects both in the same way, and compares.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, LogParams};
use serde_json::{Value, json};
use testkit::{Namespace, in_namespace, patience};

use crate::support::create;

mod own_users;
mod specs;

const PLAIN: &str = "plain";
const KEPT: &str = "kept";

/// What AppArmor or SELinux confines the main process with.
const LABEL: &str = "label of the security module";

/// Results, by the inspected item.
pub(crate) type Seen = BTreeMap<&'static str, String>;

/// Runs the template as a plain pod and as a StoppableContainer.
async fn run_both(ns: &Namespace, template: &Value) -> Result<()> {
    let mut plain = template.clone();
    plain["metadata"] = json!({"name": PLAIN});
    ns.create_json::<Pod>(plain).await?;
    create(ns, KEPT, true, template.clone()).await?;
    ns.pod_ready(PLAIN).await?;
    ns.pod_ready(KEPT).await?;
    Ok(())
}

pub(crate) fn assert_same(plain: &Seen, kept: &Seen) -> Result<()> {
    for (what, expected) in plain {
        let actual = kept.get(what).map(String::as_str).unwrap_or_default();
        ensure!(
            expected == actual,
            "{what} differs.\nplain pod:\n{expected}\nours:\n{actual}"
        );
    }
    Ok(())
}

/// The environment of the main process and of an exec'd process.
pub(crate) async fn look_inside(ns: &Namespace, pod: &str) -> Result<Seen> {
    // HOSTNAME and /etc/hostname contain the pod's own name.
    let scripts = [
        ("environment of exec", "env | grep -v -e ^HOSTNAME= -e ^_= | sort"),
        (
            "environment of the main process",
            "tr '\\0' '\\n' < /proc/1/environ | grep -v -e ^HOSTNAME= -e ^$ | sort",
        ),
        ("argv of the main process", "tr '\\0' ' ' < /proc/1/cmdline"),
        (
            "working directories",
            "pwd; readlink /proc/1/cwd; readlink /proc/1/root",
        ),
        (
            "ids",
            "id; grep -E '^(Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp|Umask|Sig(Blk|Ign)):' /proc/1/status",
        ),
        ("limits", "cat /proc/1/limits"),
        (
            // The categories of SELinux are those of the pod.
            LABEL,
            "cat /proc/1/attr/current 2>/dev/null | tr -d '\\0' | sed 's/:c[0-9]*,c[0-9]*$//' || true",
        ),
        (
            "open files of the main process beyond 0-2",
            "ls /proc/1/fd | grep -v -x -e 0 -e 1 -e 2 | wc -l",
        ),
        (
            "mount points",
            "awk '{print $5, $6}' /proc/1/mountinfo | sed 's/,relatime//' | grep -v -e '^/ ' -e stoppablecontainer | sort",
        ),
        (
            // The source of the root differs, and identifies the kept root; see
            // docs/ARCHITECTURE.md.
            "options of the root's mount",
            "awk '$5 == \"/\" {print $6}' /proc/1/mountinfo | tr , '\\n' | grep -x -e r[ow] -e nosuid -e nodev -e noexec | sort",
        ),
        (
            "root",
            "ls -ld / /tmp /root /etc /dev /proc /sys | awk '{print $1, $3, $4, $NF}'; ls / | sort",
        ),
        (
            "devices",
            "ls /dev | sort; echo x > /dev/null; head -c 3 /dev/zero | wc -c",
        ),
        (
            "network files",
            // The kubelet orders the options as in a map.
            "tr ' ' '\\n' < /etc/resolv.conf | sort; grep -c . /etc/hosts; test \"$(cat /etc/hostname)\" = \"$HOSTNAME\" && echo ok",
        ),
        (
            "masked paths",
            "cat /proc/kcore 2>&1 | wc -c; ls /proc/acpi 2>&1 | wc -l; ls /sys/firmware 2>&1 | wc -l",
        ),
    ];
    let mut seen = Seen::new();
    for (what, script) in scripts {
        seen.insert(what, ns.sh(pod, "main", script).await?);
    }
    // The reserved mount point is the only root entry that a plain pod does not have.
    if let Some(root) = seen.get_mut("root") {
        *root = root.replace(".stoppablecontainer\n", "");
    }
    Ok(seen)
}

fn web_template() -> Value {
    let shared = json!({"name": "shared", "mountPath": "/shared"});
    // The period of probes, which are a process each.
    let second = patience(Duration::from_secs(1)).as_secs();
    // Their time limit: on a busy node the kubelet would restart a plain pod, too.
    let limit = 10 * second;
    json!({"spec": {
        "terminationGracePeriodSeconds": 10,
        "initContainers": [{
            "name": "init", "image": "ubuntu:22.04",
            "command": ["/bin/sh", "-c", "echo from-init > /shared/init"], "volumeMounts": [shared],
        }],
        "containers": [
            {
                "name": "main", "image": "nginx:1.25",
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)-$(MISSING)-$$(A)"},
                    {"name": "C", "value": "$(NGINX_VERSION)"},
                    {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                ],
                "ports": [{"name": "http", "containerPort": 80}],
                "readinessProbe": {"exec": {"command": ["sh", "-c", "test -f /usr/share/nginx/html/index.html"]}, "periodSeconds": second, "timeoutSeconds": limit},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": second, "timeoutSeconds": limit},
                "lifecycle": {
                    "postStart": {"exec": {"command": ["sh", "-c", "ls /usr/share/nginx > /shared/post-start"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "ls /usr/share/nginx | sed s/^/pre-stop-/ > /proc/1/fd/1"]}},
                },
                "volumeMounts": [shared, {"name": "settings", "mountPath": "/etc/app/setting.conf", "subPath": "setting.conf"}],
            },
            {"name": "side", "image": "ubuntu:22.04", "command": ["/bin/sleep", "infinity"], "volumeMounts": [shared]},
        ],
        "volumes": [{"name": "shared", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}}],
    }})
}

/// exec, environment, ConfigMap with subPath, emptyDir shared with a second container, init
/// container, hooks, probes, logs, cp both ways, port-forward.
#[tokio::test]
async fn i5_a_web_server_behaves_as_in_a_plain_pod() {
    in_namespace("parity-web", async |ns| compare_web(&ns, &web_template()).await).await;
}

async fn compare_web(ns: &Namespace, template: &Value) -> Result<()> {
    ns.create_json::<ConfigMap>(
        json!({"metadata": {"name": "settings"}, "data": {"setting.conf": "colour = blue"}}),
    )
    .await?;
    run_both(ns, template).await?;
    let (mut plain, mut kept) = (look_inside(ns, PLAIN).await?, look_inside(ns, KEPT).await?);
    plain.append(&mut use_web(ns, PLAIN).await?);
    kept.append(&mut use_web(ns, KEPT).await?);
    assert_same(&plain, &kept)?;
    println!("this node: consumers run as {:?}", kept[LABEL].trim());
    ensure!(kept["options of the root's mount"] == "rw", "{kept:#?}");
    // Equality is not enough, because both could be empty.
    ensure!(
        kept["environment of exec"].contains("B=1-$(MISSING)-$(A)\n"),
        "{kept:#?}"
    );
    ensure!(
        kept["postStart"].starts_with("html") && kept["preStop"].starts_with("pre-stop-html"),
        "{kept:#?}"
    );
    Ok(())
}

async fn use_web(ns: &Namespace, pod: &str) -> Result<Seen> {
    let mut seen = Seen::new();
    seen.insert(
        "ConfigMap with subPath",
        ns.sh(pod, "main", "cat /etc/app/setting.conf; ls /etc/app")
            .await?,
    );
    seen.insert("init container", ns.sh(pod, "main", "cat /shared/init").await?);
    ns.sh(pod, "main", "echo from-main > /shared/main").await?;
    seen.insert(
        "emptyDir in the second container",
        ns.sh(pod, "side", "cat /shared/main; ls /shared").await?,
    );
    seen.insert("postStart", ns.sh(pod, "main", "cat /shared/post-start").await?);

    let directory = std::env::temp_dir().join(format!("{}-{pod}", ns.name));
    std::fs::create_dir_all(&directory)?;
    let (there, back) = (
        directory.join("there").display().to_string(),
        directory.join("back").display().to_string(),
    );
    std::fs::write(&there, "copied")?;
    ns.kubectl(&["cp", &there, &format!("{pod}:/root/copy"), "-c", "main"])
        .await?
        .success()?;
    ns.kubectl(&["cp", &format!("{pod}:/root/copy"), &back, "-c", "main"])
        .await?
        .success()?;
    seen.insert(
        "cp both ways",
        format!(
            "{} {}",
            ns.sh(pod, "main", "cat /root/copy").await?,
            std::fs::read_to_string(back)?
        ),
    );
    std::fs::remove_dir_all(&directory)?;

    let (port, forward) = ns.port_forward(pod, 80).await?;
    let page = http_get(port).await?;
    ensure!(page.starts_with("HTTP/1.1 200"), "port-forward answered {page:?}");
    drop(forward);
    seen.insert(
        "page",
        page.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned(),
    );

    let exit = ns.exec(pod, "main", &["sh", "-c", "exit 42"]).await?;
    seen.insert("exit code of exec", exit.code.to_string());
    let uid = ns
        .api::<Pod>()
        .get(pod)
        .await?
        .metadata
        .uid
        .context("a pod without UID")?;
    seen.insert(
        "preStop",
        last_log_line_after_deletion(ns, pod, "pre-stop-").await?,
    );
    if pod == KEPT {
        ns.other_pod_ready(pod, &uid).await?;
    }
    Ok(seen)
}

/// Deletes the pod and returns the lines of its main container's log that contain `mark`.
async fn last_log_line_after_deletion(ns: &Namespace, pod: &str, mark: &str) -> Result<String> {
    let params = LogParams {
        container: Some("main".into()),
        follow: true,
        ..LogParams::default()
    };
    let mut stream = ns.api::<Pod>().log_stream(pod, &params).await?;
    ns.api::<Pod>().delete(pod, &DeleteParams::default()).await?;
    let mut log = String::new();
    stream.read_to_string(&mut log).await?;
    Ok(log
        .lines()
        .filter(|line| line.contains(mark))
        .collect::<Vec<_>>()
        .join("\n"))
}

async fn http_get(port: u16) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    connection
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut page = Vec::new();
    // A proxy may reset the connection instead of closing it; the received data counts.
    match connection.read_to_end(&mut page).await {
        Err(error) if page.is_empty() => Err(error).context("no answer through the forwarded port"),
        _ => Ok(String::from_utf8(page)?),
    }
}

/// An unprivileged user without an entry in passwd, groups, a working directory that the image does
/// not have, arguments with references, a terminal, and a Secret-like environment from a ConfigMap.
#[tokio::test]
async fn i5_an_unprivileged_user_behaves_as_in_a_plain_pod() {
    in_namespace("parity-user", async |ns| {
        ns.create_json::<ConfigMap>(json!({"metadata": {"name": "from"}, "data": {"FROM": "config", "LANG": "from-config"}})).await?;
        let template = json!({"spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 4711, "runAsGroup": 815, "fsGroup": 2000, "supplementalGroups": [3000]},
            "containers": [{
                "name": "main", "image": "python:3.11", "workingDir": "/not/in/the/image", "tty": true, "stdin": true,
                "command": ["python3"], "args": ["-c", "import time; time.sleep(1e6)", "$(FROM)", "$$(FROM)", "$(MISSING)"],
                "env": [{"name": "EMPTY", "value": ""}, {"name": "UNICODE", "value": "grüße\n\t$"}],
                "envFrom": [{"configMapRef": {"name": "from"}}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        }});
        run_both(&ns, &template).await?;
        assert_same(&look_inside(&ns, PLAIN).await?, &look_inside(&ns, KEPT).await?)
    })
    .await;
}

/// A user of the image's passwd, by number: passwd determines the primary group.
#[tokio::test]
async fn i5_a_user_of_the_images_passwd_behaves_as_in_a_plain_pod() {
    in_namespace("parity-passwd", async |ns| {
        let template = json!({"spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "test/named-user:1", "securityContext": {"runAsUser": 1000},
            }],
        }});
        run_both(&ns, &template).await?;
        assert_same(&look_inside(&ns, PLAIN).await?, &look_inside(&ns, KEPT).await?)
    })
    .await;
}

/// Output and end of a container: logs, exit code and termination message.
#[tokio::test]
async fn i5_logs_exit_code_and_termination_message() {
    in_namespace("parity-exit", async |ns| {
        let template = json!({"spec": {"restartPolicy": "Always", "containers": [{
            "name": "main", "image": "ubuntu:22.04",
            "command": ["/bin/sh", "-c", "echo out; echo err >&2; echo last words > /dev/termination-log; exit 7"],
        }]}});
        let mut plain = template.clone();
        plain["metadata"] = json!({"name": PLAIN});
        ns.create_json::<Pod>(plain).await?;
        create(&ns, KEPT, true, template).await?;
        let (plain, kept) = (ending(&ns, PLAIN).await?, ending(&ns, KEPT).await?);
        ensure!(plain == kept, "plain pod: {plain:?}\nours: {kept:?}");
        ensure!(kept.0 == 7 && kept.1 == "last words\n" && kept.2 == ["err", "out"], "{kept:?}");
        Ok(())
    })
    .await;
}

async fn ending(ns: &Namespace, pod: &str) -> Result<(i32, String, Vec<String>)> {
    // Between two attempts, the log is that of the last ended container.
    let ended = |pod: &Pod| {
        let mut statuses = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten());
        let status = statuses.find(|c| c.state.as_ref().is_some_and(|s| s.waiting.is_some()))?;
        status.last_state.as_ref()?.terminated.clone()
    };
    let seen = ns
        .wait(pod, "its container ended and waits", |pod: &Pod| {
            ended(pod).is_some()
        })
        .await?;
    let end = ended(&seen).context("the container has not ended")?;
    let log = ns.api::<Pod>().logs(pod, &LogParams::default()).await?;
    let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
    lines.sort();
    Ok((end.exit_code, end.message.unwrap_or_default(), lines))
}
