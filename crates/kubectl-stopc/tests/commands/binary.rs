//! The binary against a small API server: exit codes, signals, the terminal.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::RawQuery;
use axum::routing::get;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::world::{ALL, WEB, list, web};

/// Time limit of a test that fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// Serves one object, whose watch stays open, and returns the address.
pub(crate) fn serve(object: &Value) -> String {
    let (send, receive) = mpsc::channel();
    let object = object.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            let whole = list(std::slice::from_ref(&object)).to_string();
            let all = get(async move |RawQuery(query): RawQuery| {
                if query.is_some_and(|query| query.contains("watch=true")) {
                    // A watch that never reports anything.
                    Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>())
                } else {
                    Body::from(whole.clone())
                }
            });
            let one = get(async move || Body::from(object.to_string()));
            let router = Router::new().route(ALL, all).route(WEB, one);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{}", receive.recv_timeout(PATIENCE).unwrap())
}

pub(crate) fn plugin(server: &str, line: &str) -> Command {
    // A shell lets its background jobs ignore SIGINT, and so would the program.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_kubectl-stopc")])
        .args(["--server", server, "--namespace", "team"])
        .args(line.split(' '))
        .env("KUBECONFIG", "/dev/null")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(server: &str, line: &str) -> (i32, Output) {
    let output = plugin(server, line).output().unwrap();
    (output.status.code().unwrap(), output)
}

/// Runs it on a terminal of its own until its end, and returns what the terminal got.
fn on_terminal(mut command: Command, interrupt_at: Option<&str>) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave: OwnedFd = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap()
        .into();
    let copy = || Stdio::from(slave.try_clone().unwrap());
    let mut child = command
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap();
    drop(command);
    drop(slave);
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    let mut waiting = interrupt_at;
    let mut master = std::fs::File::from(master);
    // The last process that closes the terminal ends the reads with an error.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if waiting.is_some_and(|words| seen.contains(words)) {
            waiting = None;
            interrupt(child.id());
        }
    }
    let status = child.wait().unwrap();
    // As shells report the end by a signal.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    (code.unwrap(), seen)
}

fn interrupt(process: u32) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let server = serve(&web(false, 1, 1, "Stopped"));
    for (line, code, words) in [
        ("wait web --for=stopped", 0, ""),
        ("status web -o name", 0, ""),
        (
            "wait gone --for=stopped",
            1,
            "error: gone: the object does not exist",
        ),
        ("exec web --no-start -- id", 1, "error: web is stopped"),
        (
            "delete web",
            2,
            "error: Delete web (1.5 KiB)? All its files are lost.",
        ),
        ("stop -A", 2, "error: name a container"),
        ("wait web --for=asleep", 2, "error: invalid value 'asleep'"),
        (
            "wait web --for=running --timeout=1s",
            3,
            "error: web: not running after 1.0s",
        ),
    ] {
        let (found, output) = run(&server, line);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(found == code && err.contains(words), "{line}: {found} {err}");
    }
}

#[test]
fn an_interrupted_wait_leaves_things_and_says_how_to_continue() {
    let server = serve(&web(true, 1, 1, "Pending"));
    let (code, seen) = on_terminal(
        plugin(&server, "start web"),
        Some("choosing the node and pulling the image"),
    );
    assert_eq!(code, 130, "{seen}");
    assert!(
        seen.contains(
            "the cluster continues without this command; continue to wait: kubectl stopc wait web -n team"
        ),
        "{seen}"
    );
}

#[test]
fn a_terminal_has_colours_and_one_line_for_the_steps() {
    const RED: &str = "\u{1b}[31m";
    let server = serve(&web(true, 1, 1, "Failed"));
    let (code, seen) = on_terminal(plugin(&server, "list"), None);
    assert!(code == 0 && seen.contains(RED), "{seen:?}");
    let mut uncoloured = plugin(&server, "list");
    uncoloured.env("NO_COLOR", "1");
    let (_, seen) = on_terminal(uncoloured, None);
    assert!(
        seen.contains("FilesystemLost") && !seen.contains('\u{1b}'),
        "{seen:?}"
    );
    let (_, piped) = run(&server, "list");
    assert!(!piped.stdout.contains(&0x1b), "colours in a pipe");

    let server = serve(&web(true, 1, 1, "Pending"));
    let (code, seen) = on_terminal(plugin(&server, "wait web --for=ready --timeout=2s"), None);
    assert_eq!(code, 3, "{seen:?}");
    let (steps, _) = seen.split_once("error: ").unwrap();
    assert!(
        steps.contains("web: choosing the node and pulling the image"),
        "{seen:?}"
    );
    assert!(
        !steps.contains('\n'),
        "the step is one line that is overwritten: {seen:?}"
    );
}

#[test]
fn a_question_can_be_interrupted() {
    let question = "Delete web (1.5 KiB)? All its files are lost. [y/N] ";
    let server = serve(&web(false, 1, 1, "Stopped"));
    let (code, seen) = on_terminal(plugin(&server, "delete web"), Some(question));
    assert_eq!((code, seen.as_str()), (130, question));
}

#[test]
fn completions_come_with_the_names_of_the_cluster() {
    let server = serve(&web(true, 1, 1, "Running"));
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-stopc"))
        .args(["__complete", "--server", &server, "-n", "team", "stop", "w"])
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "web\tRunning\n:4\n");
}

#[test]
fn the_objects_are_printed_as_they_came() {
    let mut object = web(true, 1, 1, "Running");
    object["status"]["conditions"] = json!([]);
    let server = serve(&object);
    let (code, output) = run(&server, "list web -o json");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code, &printed["metadata"]["name"]), (0, &json!("web")));
}
