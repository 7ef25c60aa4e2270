//! The binary with a kubectl that is a script: what it is started with, and what becomes of its
//! output.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kept_files::frame;
use serde_json::{Value, json};

use crate::binary::{plugin, serve};
use crate::world::web;

/// A fake kubectl. It notes its arguments, prints an answer, and ends.
struct Kubectl {
    directory: tempfile::TempDir,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
    arguments: String,
}

// === impl Kubectl ===

impl Kubectl {
    /// Prints `answer` to its standard output and `words` to its standard error.
    fn answering(answer: &[u8], words: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("answer"), answer).unwrap();
        fs::write(path("words"), words).unwrap();
        let script = "#!/bin/sh\nd=$(dirname \"$0\")\nprintf '%s\\n' \"$@\" > \"$d/arguments\"\ncat \"$d/words\" >&2\n\
                      exec cat \"$d/answer\"\n";
        fs::write(path("kubectl"), script).unwrap();
        fs::set_permissions(path("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, object: &Value, line: &str) -> Ended {
        let server = serve(object);
        let mut plugin = plugin(&server, line);
        let output = plugin.env("KUBECTL", self.path("kubectl")).output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            arguments: fs::read_to_string(self.path("arguments")).unwrap_or_default(),
        }
    }
}

fn stopped() -> Value {
    web(false, 1, 1, "Stopped")
}

fn framed(text: &str) -> Vec<u8> {
    let mut answer = frame::Writer::new(Vec::new());
    answer.write_all(text.as_bytes()).unwrap();
    answer.finish().unwrap()
}

const CHANGES: &str =
    "deleted file 1 /etc/motd\nadded directory 1 /srv\nadded file 1 /srv/a\\x0ab\nchanged file 1 /etc/a b\n";

#[test]
fn diff_asks_the_provider_of_a_stopped_container() {
    let kubectl = Kubectl::answering(&framed(CHANGES), "");
    let ended = kubectl.run(&stopped(), "diff stopc/web /etc/ --depth 3 --as jo");
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "C /etc/a b\nD /etc/motd\nA /srv/\nA /srv/a\\x0ab\n"),
        "{}",
        ended.err
    );
    let arguments: Vec<_> = ended.arguments.lines().collect();
    assert_eq!(arguments[0], "--namespace=team");
    assert!(arguments.contains(&"--as=jo"), "{arguments:?}");
    let command = arguments.iter().position(|word| *word == "exec").unwrap();
    assert_eq!(
        arguments[command..],
        [
            "exec",
            "web-provider",
            "--container=provider",
            "--",
            "/.stoppablecontainer/exec-wrapper",
            "ask",
            "diff 1 3 /etc"
        ]
    );
}

#[test]
fn diff_has_the_formats_of_the_other_commands() {
    let kubectl = Kubectl::answering(&framed(CHANGES), "");
    let run = |line: &str| {
        let ended = kubectl.run(&stopped(), line);
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out
    };
    assert_eq!(
        run("diff web -o name"),
        "/etc/a b\n/etc/motd\n/srv\n/srv/a\\x0ab\n"
    );
    let wide = run("diff web -o wide");
    assert!(
        wide.starts_with("CHANGE    TYPE        CHANGES   PATH\nchanged   file        1"),
        "{wide}"
    );
    let whole: Value = serde_json::from_str(&run("diff web -o json")).unwrap();
    assert_eq!(whole["complete"], true);
    assert_eq!(
        whole["changes"][1],
        json!({ "change": "deleted", "type": "file", "count": 1, "path": "/etc/motd" })
    );
    assert_eq!(run("diff web -o jsonpath={.changes[0].path}"), "/etc/a b");
    let columns = run("diff web -o custom-columns=WHAT:.change");
    assert_eq!(columns, "WHAT\nchanged\ndeleted\nadded\nadded\n");
}

#[test]
fn du_of_directories_asks_the_provider() {
    let kubectl = Kubectl::answering(&framed("512 1 /var/log\n2048 3 /var\n"), "");
    for (line, out, request) in [
        (
            "du web --depth=1 /var/",
            "2.0KiB\t/var\n512B\t/var/log\n",
            "du 1 1 /var",
        ),
        ("du web /var -b", "2048\t/var\n512\t/var/log\n", "du 1 0 /var"),
    ] {
        let ended = kubectl.run(&stopped(), line);
        assert_eq!((ended.code, ended.out.as_str()), (0, out), "{}", ended.err);
        assert_eq!(ended.arguments.lines().last(), Some(request));
    }
}

#[test]
fn a_list_that_is_not_complete_is_printed_and_fails() {
    let mut answer = frame::Writer::new(Vec::new());
    answer.write_all(b"added file 1 /a\n").unwrap();
    let failed = answer.fail("the list is not complete: too many").unwrap();
    let cut_off = framed("added file 1 /a\n");
    for (answer, cause) in [
        (&failed[..], "error: web: the list is not complete: too many"),
        (
            &cut_off[..cut_off.len() - 1],
            "error: web: the connection ended before all was received",
        ),
    ] {
        let ended = Kubectl::answering(answer, "").run(&stopped(), "diff web -o json");
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(cause), "{}", ended.err);
        let whole: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(whole["complete"], false);
        assert_eq!(whole["changes"][0]["path"], "/a");
    }
}

#[test]
fn without_an_answer_the_cause_is_what_kubectl_said() {
    let words = "stoppablecontainer: the node agent is not running on the node\ncommand terminated with exit code \
                 125\n";
    let ended = Kubectl::answering(b"", words).run(&stopped(), "diff web");
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(
        ended.err,
        "error: web: the node agent is not running on the node\n"
    );
}

/// Nothing of an answer reaches the terminal as it is.
#[test]
fn h9_an_answer_of_another_kind_is_refused() {
    for answer in [&b"\x1b]0;title\x07 total 12\n"[..], &framed("\x1b[2J\n")] {
        let ended = Kubectl::answering(answer, "").run(&stopped(), "diff web");
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
        assert!(!ended.err.contains('\u{1b}'), "{}", ended.err);
    }
}

#[test]
fn what_cannot_be_asked_is_refused_without_kubectl() {
    let mut released = stopped();
    released["spec"]["provider"] = json!({ "whileStopped": "Release" });
    let mut new = stopped();
    new["status"]["instanceName"] = Value::Null;
    for (object, line, code, words) in [
        (&released, "diff web", 1, "kubectl stopc start web"),
        (&released, "du web --depth 1", 1, "kubectl stopc start web"),
        (&released, "du --depth 1", 2, "one container at a time"),
        (&new, "diff web", 1, "kubectl stopc wait web"),
        (&stopped(), "diff web etc", 2, "the path must be absolute"),
    ] {
        let ended = Kubectl::answering(b"", "").run(object, line);
        assert_eq!((ended.code, ended.arguments.as_str()), (code, ""), "{line}");
        assert!(ended.err.contains(words), "{line}: {}", ended.err);
    }
}
