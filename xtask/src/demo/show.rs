/*!
The live part of the demo: create, write, stop, start, and a plain pod for comparison.
*/

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::table::Times;
use crate::progress::describe;
use crate::target::Target;
use crate::workspace::Workspace;

/// Namespace of the demo's objects.
pub(super) const NAMESPACE: &str = "stoppablecontainer-demo";
const SAMPLE: &str = "config/samples/nginx.yaml";
/// The image in the sample.
pub(crate) const IMAGE: &str = "docker.io/library/nginx:1.25";
const PLAIN: &str = "plain";
const PAGE: &str = "/usr/share/nginx/html/index.html";
/// Files whose owner, mode and content must be the same after a stop.
const FILES: [&str; 3] = [PAGE, "/usr/local/bin/hello", "/root/copied.txt"];
/// Time limit for each step. A first start may pull images.
const PATIENCE: &str = "--timeout=180s";

/// The object and its cluster.
struct Show<'a> {
    target: &'a Target<'a>,
    name: String,
}

/// Runs the demo and returns the measured times.
pub(super) fn run(workspace: &Workspace, target: &Target<'_>) -> Result<Times> {
    let mut times = Times::default();
    let sample = workspace.join(SAMPLE).display().to_string();
    let mut show = Show {
        target,
        name: String::new(),
    };
    show.prepare(&sample)?;
    let image = show.image(&sample)?;
    show.warm_up(&image)?;

    heading("Create: an nginx StoppableContainer without `command`");
    let started = Instant::now();
    show.name = show.apply(&sample)?;
    show.wait_for("Running")?;
    times.ours.start = started.elapsed();
    show.print_objects()?;
    let before = show.page()?;
    println!("  the page over the pod's IP: {}", first_words(&before));

    heading("Write: change the page, install a program, copy a file in");
    show.exec(&format!("echo 'Hello from the kept filesystem' > {PAGE}"))?;
    show.exec(&format!("printf '#!/bin/sh\\necho hello, I was installed by hand\\n' > {0} && chmod 0750 {0} && chown 1:12 {0}", FILES[1]))?;
    show.copy_in("copied with kubectl cp\n", FILES[2])?;
    let written = show.fingerprints()?;
    println!("  the page over the pod's IP: {}", first_words(&show.page()?));

    heading("Stop: the pod is deleted, the files are kept");
    let started = Instant::now();
    show.set_running(false)?;
    show.wait_for("Stopped")?;
    times.ours.stop = started.elapsed();
    show.print_objects()?;
    ensure!(
        !show.pod_exists(&show.name)?,
        "the phase is Stopped, but the pod {} still exists",
        show.name
    );
    ensure!(
        show.pod_exists(&format!("{}-provider", show.name))?,
        "the provider pod does not exist"
    );

    heading("Start: everything is as it was");
    let started = Instant::now();
    show.set_running(true)?;
    show.wait_for("Running")?;
    times.ours.start_again = started.elapsed();
    show.print_objects()?;
    let kept = show.fingerprints()?;
    println!("  the page over the pod's IP: {}", first_words(&show.page()?));
    ensure!(
        kept == written,
        "the files have changed; before:\n{written}\nnow:\n{kept}"
    );

    heading("For comparison: a plain pod of the same image");
    let started = Instant::now();
    show.create_plain(&image)?;
    times.plain.start = started.elapsed();
    let started = Instant::now();
    show.kubectl(&["delete", "pod", PLAIN, "--wait=true", PATIENCE])?;
    times.plain.stop = started.elapsed();
    let started = Instant::now();
    show.create_plain(&image)?;
    times.plain.start_again = started.elapsed();
    show.quietly(&["delete", "pod", PLAIN, "--wait=false"])?;
    Ok(times)
}

/// Creates the demo's namespace, unless it exists.
pub(super) fn make_namespace(target: &Target<'_>) -> Result<()> {
    if target.kubectl_output(&["get", "namespace", NAMESPACE]).is_err() {
        target.kubectl_output(&["create", "namespace", NAMESPACE])?;
    }
    Ok(())
}

// === impl Show ===

impl Show<'_> {
    /// Creates the namespace and removes the objects of an earlier demo.
    fn prepare(&self, sample: &str) -> Result<()> {
        make_namespace(self.target)?;
        self.quietly(&[
            "delete",
            "-f",
            sample,
            "--ignore-not-found",
            "--wait=true",
            PATIENCE,
        ])?;
        self.quietly(&[
            "delete",
            "pod",
            PLAIN,
            "--ignore-not-found",
            "--wait=true",
            PATIENCE,
        ])?;
        // Pods that start before these objects exist wait for them, which would affect the
        // measurement.
        for object in ["configmap/kube-root-ca.crt", "serviceaccount/default"] {
            self.quietly(&["wait", "--for=create", "--timeout=60s", object])?;
        }
        Ok(())
    }

    /// Applies the sample and returns the name of the StoppableContainer in it.
    fn apply(&self, sample: &str) -> Result<String> {
        let names = self.kubectl(&["apply", "-f", sample, "-o", "name"])?;
        let name = names
            .lines()
            .find_map(|line| line.strip_prefix("stoppablecontainer.stoppablecontainer.xtlsoft.top/"));
        Ok(name
            .with_context(|| format!("{sample} has no StoppableContainer"))?
            .to_owned())
    }

    fn set_running(&self, running: bool) -> Result<()> {
        let patch = format!(r#"{{"spec":{{"running":{running}}}}}"#);
        self.kubectl(&[
            "patch",
            "stoppablecontainer",
            &self.name,
            "--type=merge",
            "-p",
            &patch,
        ])
        .map(drop)
    }

    /// Waits for a phase and, for Running, for the Ready pod. The measured time is what a user
    /// waits for.
    fn wait_for(&self, phase: &str) -> Result<()> {
        let object = format!("stoppablecontainer/{}", self.name);
        let condition = format!("--for=jsonpath={{.status.phase}}={phase}");
        let result = self
            .quietly(&["wait", &object, &condition, PATIENCE])
            .and_then(|()| match phase {
                "Running" => self.quietly(&[
                    "wait",
                    &format!("pod/{}", self.name),
                    "--for=condition=Ready",
                    PATIENCE,
                ]),
                _ => Ok(()),
            });
        result.inspect_err(|_| {
            let _ = self.kubectl(&["describe", "stoppablecontainers,stoppablecontainerinstances,pods"]);
        })
    }

    fn print_objects(&self) -> Result<()> {
        let object = format!("stoppablecontainer/{}", self.name);
        self.kubectl(&["get", &object])
            .and_then(|_| self.kubectl(&["get", "pods", "-o", "wide"]))
            .map(drop)
    }

    fn exec(&self, script: &str) -> Result<String> {
        self.kubectl(&["exec", &self.name, "--", "sh", "-c", script])
    }

    fn copy_in(&self, content: &str, place: &str) -> Result<()> {
        let file = std::env::temp_dir().join(format!("stoppablecontainer-demo-{}", std::process::id()));
        std::fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
        let target = format!("{}:{place}", self.name);
        let result = self.kubectl(&["cp", &file.display().to_string(), &target]);
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        result.map(drop)
    }

    /// Owner, mode, name and checksum of the files.
    fn fingerprints(&self) -> Result<String> {
        let files = FILES.join(" ");
        self.exec(&format!(
            "stat -c '%u:%g %a %s bytes %n' {files} && cat {files} | md5sum"
        ))
    }

    /// The page, from the pod's IP if it can be reached from here, otherwise through the API
    /// server.
    fn page(&self) -> Result<String> {
        if !self.target.local {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:80/proxy/", self.name);
            return self.target.kubectl_output(&["get", "--raw", &path]);
        }
        let ip = self.target.kubectl_output(&[
            "-n",
            NAMESPACE,
            "get",
            "pod",
            &self.name,
            "-o",
            "jsonpath={.status.podIP}",
        ])?;
        let mut connection =
            TcpStream::connect((ip.as_str(), 80)).with_context(|| format!("connecting to {ip}"))?;
        connection
            .set_read_timeout(Some(Duration::from_secs(10)))
            .context("setting a time-out")?;
        write!(connection, "GET / HTTP/1.0\r\nHost: {ip}\r\n\r\n").context("asking for the page")?;
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .context("reading the page")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the page has no head")?;
        ensure!(
            head.split(' ').nth(1) == Some("200"),
            "the response for the page was {}",
            first_words(head)
        );
        Ok(body.to_owned())
    }

    /// The main container's image in the sample.
    fn image(&self, sample: &str) -> Result<String> {
        let path = "jsonpath={.spec.template.spec.containers[0].image}";
        self.target
            .kubectl_output(&["create", "--dry-run=client", "-f", sample, "-o", path])
    }

    /// Pulls the image to the node, so that the times do not include the download.
    fn warm_up(&self, image: &str) -> Result<()> {
        self.quietly(&["run", PLAIN, &format!("--image={image}"), "--restart=Always"])?;
        self.quietly(&["wait", &format!("pod/{PLAIN}"), "--for=condition=Ready", PATIENCE])?;
        self.quietly(&["delete", "pod", PLAIN, "--wait=true", PATIENCE])
    }

    fn create_plain(&self, image: &str) -> Result<()> {
        self.kubectl(&["run", PLAIN, &format!("--image={image}"), "--restart=Always"])?;
        self.quietly(&["wait", &format!("pod/{PLAIN}"), "--for=condition=Ready", PATIENCE])
    }

    fn pod_exists(&self, name: &str) -> Result<bool> {
        let found = self.target.kubectl_output(&[
            "-n",
            NAMESPACE,
            "get",
            "pod",
            name,
            "--ignore-not-found",
            "-o",
            "name",
        ])?;
        Ok(!found.trim().is_empty())
    }

    /// Prints a kubectl command and its output.
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.args(args);
        println!("  $ {}", describe(&command));
        let output = self
            .target
            .kubectl()
            .args(["-n", NAMESPACE])
            .args(args)
            .stdin(Stdio::null())
            .output();
        let output = output.context("starting kubectl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        if !text.trim().is_empty() {
            println!("{}", indent(&text));
        }
        Ok(text)
    }

    fn quietly(&self, args: &[&str]) -> Result<()> {
        let all: Vec<_> = ["-n", NAMESPACE].iter().chain(args).copied().collect();
        self.target.kubectl_output(&all).map(drop)
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn indent(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The text of a page without tags and title, shortened to a line.
fn first_words(page: &str) -> String {
    let body = page.split_once("<body>").map_or(page, |(_, body)| body);
    let mut in_tag = false;
    let outside = |c: char| {
        in_tag = c == '<' || (in_tag && c != '>');
        if in_tag || c == '>' { ' ' } else { c }
    };
    let text: String = body.chars().map(outside).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(90).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_shown_as_text() {
        let page =
            "<html><head><title>T</title></head>\n<body><h1>Welcome!</h1><p>It\n works.</p></body></html>";
        assert_eq!(first_words(page), "Welcome! It works.");
        assert_eq!(first_words("plain text\n"), "plain text");
    }

    #[test]
    fn the_image_is_the_samples() {
        let sample = std::fs::read_to_string(Workspace::current().join(SAMPLE)).unwrap();
        let images = sample
            .lines()
            .filter_map(|line| line.trim().strip_prefix("image: "));
        let name = IMAGE.strip_prefix("docker.io/library/").unwrap();
        assert_eq!(images.collect::<Vec<_>>(), [name]);
    }
}
