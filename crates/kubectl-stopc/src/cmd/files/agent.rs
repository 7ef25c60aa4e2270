/*!
A request to the node agent: kubectl executes the wrapper in the provider pod, and the answer comes
on its standard output.
*/

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use kept_files::Request;
use kept_files::frame::{FrameError, Reader};
use kept_files::listing::BadLine;
use kube::ResourceExt;
use stoppablecontainer_api::names::{
    PROVIDER_CONTAINER, WRAPPER_IN_VOLUME, WRAPPER_LINE_PREFIX, provider_pod_name,
};
use stoppablecontainer_api::{StoppableContainer, WhileStopped};

use crate::cmd::inside::kubectl;
use crate::failure::Failure;
use crate::session::Session;

/// Most bytes of what kubectl and the wrapper say about a failure.
const MAX_WORDS: u64 = 16 << 10;
/// Longest line of a listing: a path, escaped, and some words.
const MAX_LINE: u64 = (4 * 4096) + 256;

/// The answer, while it arrives.
pub(super) struct Answer {
    /// kubectl, until its end is awaited.
    child: std::process::Child,
    data: Reader<BufReader<ChildStdout>>,
    words: std::thread::JoinHandle<String>,
    /// Name of the object.
    name: String,
    provider: String,
}

/// Sends a request about the files of an object.
///
/// # Errors
/// If the object has no provider, or kubectl cannot be started.
pub(super) fn ask(
    session: &Session,
    object: &StoppableContainer,
    request: &Request,
) -> Result<Answer, Failure> {
    let name = object.name_any();
    let instance = object
        .status
        .as_ref()
        .and_then(|status| status.instance_name.clone());
    let Some(instance) = instance else {
        return Err(Failure::failed(format!(
            "{name} has no files yet; wait for it: kubectl stopc wait {name} --for=stopped"
        )));
    };
    if is_released(object) {
        return Err(Failure::failed(format!(
            "{name} is stopped and spec.provider.whileStopped is Release, so no pod on its node can read the files; \
             start it (kubectl stopc start {name}), or set whileStopped to Keep"
        )));
    }
    let provider = provider_pod_name(&instance);
    let mut command = kubectl::program(session, object);
    command.args(["exec", &provider, &format!("--container={PROVIDER_CONTAINER}")]);
    command.args(["--", WRAPPER_IN_VOLUME, "ask", &request.to_line()]);
    let (child, data, stderr) = start(command)?;
    Ok(Answer {
        child,
        data: Reader::new(BufReader::new(data)),
        // Read meanwhile, so that it does not fill up.
        words: std::thread::spawn(move || words(stderr)),
        name,
        provider,
    })
}

fn start(mut command: Command) -> Result<(std::process::Child, ChildStdout, ChildStderr), Failure> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| kubectl::not_started(&error))?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(data), Some(words)) => Ok((child, data, words)),
        _ => Err(Failure::failed("kubectl was started without its output")),
    }
}

/// Whether the object has no provider because it is stopped.
fn is_released(object: &StoppableContainer) -> bool {
    let provider = object.spec.provider.decode();
    let released = provider.is_ok_and(|provider| provider.while_stopped == Some(WhileStopped::Release));
    released && !object.spec.running
}

fn words(stderr: ChildStderr) -> String {
    let (mut stderr, mut words) = (stderr, Vec::new());
    let _ = stderr.by_ref().take(MAX_WORDS).read_to_end(&mut words);
    // What is beyond that is not kept, but kubectl must not wait.
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&words).into_owned()
}

// === impl Answer ===

impl Answer {
    /// The lines of a listing. If it is not complete, the lines that arrived and the reason.
    ///
    /// # Errors
    /// If nothing arrived.
    pub(super) fn lines<T>(
        mut self,
        parse: impl Fn(&str) -> Result<T, BadLine>,
    ) -> Result<(Vec<T>, Option<Failure>), Failure> {
        let mut lines = Vec::new();
        let mut data = BufReader::new(&mut self.data);
        let error = loop {
            let mut line = Vec::new();
            match data.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => break None,
                Ok(_) => match std::str::from_utf8(&line)
                    .ok()
                    .and_then(|line| line.strip_suffix('\n'))
                {
                    Some(line) => match parse(line) {
                        Ok(line) => lines.push(line),
                        Err(error) => break Some(std::io::Error::other(error)),
                    },
                    None => break Some(std::io::Error::other(BadLine)),
                },
                Err(error) => break Some(error),
            }
        };
        drop(data);
        let failure = self.end(error.as_ref());
        match failure {
            Some(failure) if lines.is_empty() => Err(failure),
            failure => Ok((lines, failure)),
        }
    }

    /// Waits for kubectl. Returns why the data is not complete, if it is not.
    fn end(mut self, error: Option<&std::io::Error>) -> Option<Failure> {
        if error.is_some() {
            // It may still want to write.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let error = error?;
        if let Some(FrameError::Failed(message)) = FrameError::of(error) {
            return Some(Failure::failed(format!("{}: {message}", self.name)));
        }
        let words = self.words.join().unwrap_or_default();
        Some(explained(&words, error, &self.name, &self.provider))
    }
}

/// What went wrong, from what kubectl and the wrapper said.
fn explained(words: &str, error: &std::io::Error, name: &str, provider: &str) -> Failure {
    let line = |wanted: &dyn Fn(&&str) -> bool| words.lines().map(str::trim).find(wanted).map(str::to_owned);
    if words.contains("usage: exec-wrapper") || words.contains("not a line of the wrapper protocol") {
        return Failure::failed(format!(
            "{name}: the pod {provider} or its node agent is of an earlier version, which does not know this \
             command; upgrade, stop {name}, delete the pod {provider}, and it is made again"
        ));
    }
    // The wrapper's line is the cause, and kubectl's is about the exit code.
    let last = words
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix(WRAPPER_LINE_PREFIX));
    if let Some(cause) = last {
        return Failure::failed(format!("{name}: {cause}"));
    }
    if let Some(forbidden) = line(&|line| line.contains("forbidden") || line.contains("Forbidden")) {
        return Failure::failed(format!(
            "{name}: {forbidden}; reading the kept files takes the permission to create pods/exec in the namespace"
        ));
    }
    if let Some(missing) = line(&|line| line.contains("not found")) {
        return Failure::failed(format!(
            "{name}: {missing}; the pod {provider} reads the files; see why it is missing: kubectl stopc status {name}"
        ));
    }
    let cause = words.lines().rev().find(|line| !line.trim().is_empty());
    match cause {
        Some(cause) => Failure::failed(format!("{name}: {}", cause.trim())),
        None => Failure::failed(format!("{name}: {error}; try again")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures::value;

    #[test]
    fn a_failure_is_the_cause_with_what_to_do() {
        let error = std::io::Error::other(FrameError::CutOff);
        for (words, expected) in [
            (
                "stoppablecontainer: waiting\nstoppablecontainer: the files of t/web cannot be read: it is being \
                 deleted\ncommand terminated with exit code 125\n",
                "web: the files of t/web cannot be read: it is being deleted",
            ),
            (
                "stoppablecontainer: usage: exec-wrapper hold | run -- COMMAND\ncommand terminated with exit code 125",
                "web: the pod web-provider or its node agent is of an earlier version",
            ),
            (
                "Error from server (NotFound): pods \"web-provider\" not found",
                "not found; the pod web-provider reads the files; see why it is missing: kubectl stopc status web",
            ),
            (
                "Error from server (Forbidden): pods \"web-provider\" is forbidden: User \"jo\" cannot create",
                "pods/exec in the namespace",
            ),
            (
                "\nerror: unable to upgrade connection\n\n",
                "web: error: unable to upgrade",
            ),
            ("", "web: the connection ended before all was received; try again"),
        ] {
            let failure = explained(words, &error, "web", "web-provider").to_string();
            assert!(failure.contains(expected), "{failure}");
        }
    }

    #[test]
    fn only_a_stopped_object_is_released() {
        let object = |running: bool, provider: serde_json::Value| -> StoppableContainer {
            let mut object = value(running, "Stopped", &[]);
            object["spec"]["provider"] = provider;
            serde_json::from_value(object).unwrap()
        };
        let release = json!({ "whileStopped": "Release" });
        assert!(is_released(&object(false, release.clone())));
        assert!(!is_released(&object(true, release)));
        assert!(!is_released(&object(false, json!({ "whileStopped": "Keep" }))));
        assert!(!is_released(&object(false, json!({}))));
    }
}
