/*!
The wrapper as a program, against an agent that the test plays.

It runs in a root of its own: an overlay over the machine's files, whose source is the kept
filesystem's or another. Needs root.
*/

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod ask;
mod hostile;
mod shipped;
mod termination_message;
mod world;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use world::{World, accept};

#[test]
fn run_waits_visibly_and_becomes_the_command() {
    let world = World::kept().environment("GREETING", "hello");
    let listener = world.listen();
    let mut wrapper = world.start(&["run", "--", "sh", "-c", "echo $GREETING $0 $PWD; exit 7", "arg0"]);
    let mut stream = accept(&listener, "run 1");
    stream
        .write_all(b"wait provider not ready\nwait provider not ready\nwait almost\n")
        .unwrap();
    assert_eq!(wrapper.line(), "stoppablecontainer: provider not ready");
    assert_eq!(wrapper.line(), "stoppablecontainer: almost");
    stream.write_all(b"ok\n").unwrap();
    assert_eq!(
        wrapper.finish(),
        (Some(7), "hello arg0 /srv/here\n".to_owned(), String::new())
    );
}

#[test]
fn i3_nothing_is_executed_off_the_kept_filesystem() {
    for verb in ["run", "hook"] {
        let world = World::new("overlay");
        let listener = world.listen();
        let wrapper = world.start(&[verb, "--", "echo", "executed"]);
        let mut stream = accept(&listener, &format!("{verb} 1"));
        stream.write_all(b"ok\n").unwrap();
        let (code, out, err) = wrapper.finish();
        assert_eq!((code, out.as_str()), (Some(125), ""), "{err}");
    }
}

#[test]
fn a_refusal_is_final() {
    let world = World::kept();
    let listener = world.listen();
    let wrapper = world.start(&["run", "--", "echo", "executed"]);
    accept(&listener, "run 1")
        .write_all(b"error it is another pod's\n")
        .unwrap();
    let (code, out, err) = wrapper.finish();
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(125), "", "stoppablecontainer: it is another pod's\n")
    );
}

#[test]
fn a_signal_ends_the_wait() {
    // SIGTERM, SIGQUIT, SIGWINCH (without a terminal), SIGRTMIN+3: whatever an image's STOPSIGNAL
    // may be.
    for number in [15, 3, 28, 37] {
        let world = World::kept();
        let listener = world.listen();
        let mut wrapper = world.start(&["run", "--", "echo", "executed"]);
        let mut stream = accept(&listener, "run 1");
        stream.write_all(b"wait here\n").unwrap();
        wrapper.line();
        wrapper.signal(number);
        assert_eq!(wrapper.finish().0, Some(128 + number));
    }
}

#[test]
fn a_provider_ends_well_on_any_stop_signal() {
    for number in [15, 2, 3, 1, 10, 12, 28, 37] {
        let world = World::new("overlay");
        let listener = world.listen();
        let mut wrapper = world.start(&["hold"]);
        let mut stream = accept(&listener, "hold 1");
        stream.write_all(b"wait here\n").unwrap();
        wrapper.line();
        stream.write_all(b"ok\n").unwrap();
        wrapper.signal(number);
        assert_eq!(wrapper.wait().code(), Some(0), "signal {number}");
    }
}

#[test]
fn i9_a_provider_reports_again_to_every_new_agent() {
    let world = World::new("overlay");
    // The provider starts before the agent does.
    let mut wrapper = world.start(&["hold"]);
    assert_eq!(
        wrapper.line(),
        "stoppablecontainer: waiting for the filesystem: the node agent is not running"
    );
    for _ in 0..3 {
        let listener = world.listen();
        let mut stream = accept(&listener, "hold 1");
        stream.write_all(b"ok\n").unwrap();
        // The agent dies. Its socket stays, but no process listens on it.
    }
    wrapper.signal(15);
    assert_eq!(wrapper.wait().code(), Some(0));
}

/// A user has 128 of them on a node by default, for all of his pods.
#[test]
fn i9_without_a_watch_to_have_the_agent_is_found_all_the_same() {
    let world = World::kept().failing("inotify_init1", "EMFILE");
    let mut wrapper = world.start(&["run", "--", "echo", "executed"]);
    assert_eq!(
        wrapper.line(),
        "stoppablecontainer: waiting for the filesystem: the node agent is not running"
    );
    let listener = world.listen();
    // The agent dies, and another one comes.
    drop(accept(&listener, "run 1"));
    drop(listener);
    let listener = world.listen();
    let mut stream = accept(&listener, "run 1");
    stream.write_all(b"ok\n").unwrap();
    let (code, out, err) = wrapper.finish();
    assert_eq!((code, out.as_str()), (Some(0), "executed\n"), "{err}");
}

/// As in gVisor: the socket is there, and no connection reaches the agent.
#[test]
fn a_notice_of_the_agent_is_logged_without_a_connection() {
    let world = World::new("overlay");
    let mut wrapper = world.start(&["hold"]);
    wrapper.line();
    std::fs::write(
        world.path("volume/notice"),
        "the runtime class is not supported\n",
    )
    .unwrap();
    assert_eq!(
        wrapper.line(),
        "stoppablecontainer: waiting for the filesystem: the runtime class is not supported"
    );
    wrapper.signal(15);
    assert_eq!(wrapper.wait().code(), Some(0));
}

#[test]
fn i9_hooks_on_the_kept_filesystem_need_no_agent() {
    let world = World::kept();
    let wrapper = world.start(&["hook", "--", "sh", "-c", "echo here; exit 3"]);
    let (code, out, _) = wrapper.finish();
    assert_eq!((code, out.as_str()), (Some(3), "here\n"));
}

#[test]
fn h5_no_descriptor_but_the_first_three_survives() {
    let (code, out, err) = World::kept().run(&["--", "ls", "/proc/self/fd"]);
    // The fourth is the directory that ls reads.
    assert_eq!((code, out.as_str()), (Some(0), "0\n1\n2\n3\n"), "{err}");
}

#[test]
fn i5_exit_codes_are_those_of_a_shell() {
    let world = World::kept()
        .file("plain", "text", 0o644)
        .file("unknown", "echo executed by a shell\n", 0o755)
        .file("lost", "#!/nowhere/sh\n", 0o755);
    for (command, code, message) in [
        ("nowhere", 127, "nowhere: executable file not found in $PATH"),
        ("./nowhere", 127, "./nowhere: no such file or directory"),
        ("./plain", 126, "./plain: permission denied"),
        ("/etc", 126, "/etc: is a directory"),
        ("./unknown", 126, "./unknown: Exec format error"),
        ("./lost", 127, "./lost: No such file or directory"),
    ] {
        let expected = (
            Some(code),
            String::new(),
            format!("stoppablecontainer: {message}\n"),
        );
        assert_eq!(world.run(&["--", command]), expected);
    }
}

#[test]
fn i5_no_signal_is_blocked_and_a_closed_pipe_is_deadly() {
    let (_, out, _) = World::kept().run(&["--", "cat", "/proc/self/status"]);
    let mask = |name: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    // Signal 13 is SIGPIPE, which Rust's runtime ignores.
    assert_eq!(mask("SigIgn:") & 1 << 12, 0);
}

#[test]
fn i5_home_is_that_of_the_user_where_it_is_not_set() {
    let home =
        |world: World, arguments: &[&str]| world.run(&[arguments, &["--", "printenv", "HOME"]].concat()).1;
    assert_eq!(
        home(World::kept().environment("HOME", "/"), &["--default-home"]),
        "/root\n"
    );
    assert_eq!(home(World::kept().environment("HOME", "/"), &[]), "/\n");
    assert_eq!(
        home(World::kept().environment("HOME", "/here"), &["--default-home"]),
        "/here\n"
    );
}

#[test]
fn h8_the_environment_arrives_as_it_is() {
    let world = World::kept()
        .environment("A", "x=y\nz")
        .environment("ODD", "\u{7f}ü");
    let (_, out, _) = world.run(&["--", "env", "-0"]);
    for expected in ["A=x=y\nz", "ODD=\u{7f}ü"] {
        assert!(out.split('\0').any(|entry| entry == expected), "{out:?}");
    }
}

/// Input that is not read keeps the kubelet from reporting the end of an exec.
#[test]
fn an_unpack_that_fails_gives_the_reason_and_reads_its_input() {
    let mut wrapper = Command::new(env!("CARGO_BIN_EXE_exec-wrapper"))
        .args(["unpack", "1", "keep", "/srv"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(wrapper.stderr.take().unwrap()).lines();
    let reason = lines.next().unwrap().unwrap();
    assert!(reason.starts_with("stoppablecontainer: "), "{reason}");
    // More than a pipe holds.
    let mut input = wrapper.stdin.take().unwrap();
    input.write_all(&vec![7; 4 << 20]).unwrap();
    drop(input);
    assert_eq!(wrapper.wait().unwrap().code(), Some(125));
    assert!(lines.next().is_none(), "the reason once");
}

#[test]
fn what_cannot_be_understood_is_explained() {
    for arguments in [
        &[][..],
        &["run"],
        &["run", "sh"],
        &["hold", "x"],
        &["hook", "--default-home", "--", "x"],
        &["stop"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_exec-wrapper"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .contains("usage: exec-wrapper")
        );
    }
}
