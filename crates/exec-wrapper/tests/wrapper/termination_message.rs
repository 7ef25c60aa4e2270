//! Why a command was not executed, in the pod's status: the termination message.

use std::io::Write;
use std::process::Command;

use crate::world::{World, accept};

/// Not below /dev, which is the machine's here.
const PATH: &str = "/run/of-the-kubelet/message";

#[test]
fn i5_i12_why_a_command_was_not_executed_is_the_termination_message() {
    for (command, code, message) in [
        ("nowhere", 127, "nowhere: executable file not found in $PATH"),
        ("/etc", 126, "/etc: is a directory"),
        ("./lost", 127, "./lost: No such file or directory"),
    ] {
        let world = World::kept()
            .file("lost", "#!/nowhere/sh\n", 0o755)
            .termination_log(PATH);
        let (ended, _, _) = world.run(&["--termination-log", PATH, "--", command]);
        assert_eq!(ended, Some(code));
        assert_eq!(
            world.termination_message(),
            format!("stoppablecontainer: {message}")
        );
    }
    let world = World::kept().termination_log(PATH);
    let listener = world.listen();
    let wrapper = world.start(&["run", "--termination-log", PATH, "--", "true"]);
    accept(&listener, "run 1")
        .write_all(b"error the data is gone\n")
        .unwrap();
    assert_eq!(wrapper.finish().0, Some(125));
    assert_eq!(
        world.termination_message(),
        "stoppablecontainer: the data is gone"
    );
}

#[test]
fn i5_a_command_that_runs_has_the_message_for_itself() {
    let world = World::kept().termination_log(PATH);
    let script = format!("ls /proc/self/fd; echo own > {PATH}; exit 3");
    let (code, out, err) = world.run(&["--termination-log", PATH, "--", "sh", "-c", &script]);
    assert_eq!((code, out.as_str()), (Some(3), "0\n1\n2\n3\n"), "{err}");
    assert_eq!(world.termination_message(), "own\n");
}

/// The kubelet reads no more of it.
#[test]
fn h14_the_message_is_cut() {
    let world = World::kept().termination_log(PATH);
    let name = "ü".repeat(4000);
    world.run(&["--termination-log", PATH, "--", &name]);
    let message = world.termination_message();
    assert!(
        message.starts_with("stoppablecontainer: üü") && message.len() <= 4096,
        "{}",
        message.len()
    );
}

/// Once the agent has moved the container, the path leads into the kept filesystem.
#[test]
fn h14_the_file_is_the_one_from_before_the_root_changed() {
    let world = World::kept().termination_log(PATH);
    std::fs::write(world.path("volume/other"), "").unwrap();
    let listener = world.listen();
    let wrapper = world.start(&["run", "--termination-log", PATH, "--", "nowhere"]);
    let mut stream = accept(&listener, "run 1");
    let process = wrapper.child.id().to_string();
    let covered = Command::new("nsenter")
        .args(["--target", &process, "--mount", "--root", "mount", "--bind"])
        .args(["/.stoppablecontainer/other", PATH])
        .status();
    assert!(covered.unwrap().success());
    stream.write_all(b"ok\n").unwrap();
    assert_eq!(wrapper.finish().0, Some(127));
    assert!(
        world.termination_message().contains("nowhere"),
        "{}",
        world.termination_message()
    );
    assert_eq!(std::fs::read_to_string(world.path("volume/other")).unwrap(), "");
}

/// A file of the pod's, a link or a FIFO in its place gets nothing and stops nothing.
#[test]
fn h14_another_thing_in_its_place_is_left_alone() {
    const PLACE: &str = "/.stoppablecontainer/message";
    for thing in ["nothing", "file", "link", "fifo", "directory"] {
        let world = World::kept();
        // In the volume, so that it is still there when the container has ended.
        let (place, target) = (world.path("volume/message"), world.path("volume/target"));
        std::fs::write(&target, "").unwrap();
        match thing {
            "file" => std::fs::write(&place, "").unwrap(),
            "link" => std::os::unix::fs::symlink("target", &place).unwrap(),
            "fifo" => assert!(Command::new("mkfifo").arg(&place).status().unwrap().success()),
            "directory" => std::fs::create_dir(&place).unwrap(),
            _ => {}
        }
        let (code, _, err) = world.run(&["--termination-log", PLACE, "--", "nowhere"]);
        assert_eq!(code, Some(127), "{thing}: {err}");
        let written = [&place, &target].map(|path| path.is_file() && std::fs::read(path).unwrap() != b"");
        assert_eq!(written, [false; 2], "{thing}");
        assert_eq!(place.exists(), thing != "nothing");
    }
}
