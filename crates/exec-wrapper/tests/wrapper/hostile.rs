//! What an image, or the process that started the wrapper, may try.

use std::io::Write;
use std::process::Command;

use crate::world::{World, accept};

/// A descriptor that a runtime leaked leads out of the root, and so would a working directory that
/// is reached by it.
#[test]
fn h5_a_working_directory_outside_the_root_is_refused() {
    for verb in ["run", "hook"] {
        let world = World::new("overlay").working_directory("/proc/self/fd/9");
        let _listener = world.listen();
        let (code, out, err) = world.start(&[verb, "--", "echo", "executed"]).finish();
        let message = "stoppablecontainer: cannot read the working directory: No such file or directory (os error \
        2)\n";
        assert_eq!((code, out.as_str(), err.as_str()), (Some(125), "", message));
    }
}

/// The kept filesystem has a link where the runtime had made a directory; it leads to a descriptor
/// that leaked, or to where the wrapper was before the root changed.
#[test]
fn h5_a_working_directory_that_leads_out_of_the_kept_root_is_refused() {
    for (target, verb, source) in [
        ("/proc/self/fd/9", "run", "stoppablecontainer"),
        ("/proc/thread-self/fd/9/usr", "run", "stoppablecontainer"),
    ] {
        let world = World::new(source);
        let listener = world.listen();
        let wrapper = world.start(&[verb, "--", "echo", "executed"]);
        let mut stream = accept(&listener, &format!("{verb} 1"));
        let root = format!("/proc/{}/root", wrapper.child.id());
        std::fs::rename(format!("{root}/srv/here"), format!("{root}/srv/there")).unwrap();
        std::os::unix::fs::symlink(target, format!("{root}/srv/here")).unwrap();
        stream.write_all(b"ok\n").unwrap();
        let (code, out, err) = wrapper.finish();
        assert_eq!((code, out.as_str()), (Some(125), ""), "{target}: {err}");
        let message = "stoppablecontainer: the working directory /srv/here leads out of the filesystem\n";
        assert_eq!(err, message, "{target}");
    }
}

/// Where an image, or a mount of the pod, has a tree of its own at /proc, its words are not the
/// kernel's.
#[test]
fn h3_a_mount_table_that_is_no_kernels_says_nothing() {
    for verb in ["run", "hook"] {
        let world = World::new("overlay");
        let table = "30 4 0:2 / / rw - overlay stoppablecontainer rw\n";
        std::fs::write(world.in_root("proc/self/mountinfo"), table).unwrap();
        let listener = world.listen();
        let wrapper = world.start(&[verb, "--", "echo", "executed"]);
        let mut stream = accept(&listener, &format!("{verb} 1"));
        stream.write_all(b"ok\n").unwrap();
        let (code, out, err) = wrapper.finish();
        let message =
            "stoppablecontainer: the node agent said that the filesystem is in place, but it is not\n";
        assert_eq!((code, out.as_str(), err.as_str()), (Some(125), "", message));
    }
    let world = World::new("overlay");
    let fifo = world.in_root("proc/self/mountinfo");
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let (code, out, err) = world.run(&["--", "echo", "executed"]);
    assert_eq!((code, out.as_str()), (Some(125), ""), "{err}");
}

/// An interpreter that is the wrapper gets the wrapper's usage, as it stands in no root and asks
/// for nothing.
#[test]
fn h6_the_wrapper_as_interpreter_is_harmless() {
    let world =
        World::kept()
            .file("self", "#!/proc/self/exe\n", 0o755)
            .file("run", "#!/proc/self/exe run\n", 0o755);
    for command in ["./self", "./run"] {
        let (code, out, err) = world.run(&["--", command, "x"]);
        assert_eq!((code, out.as_str()), (Some(125), ""), "{err}");
        assert!(
            err.starts_with("stoppablecontainer: usage: exec-wrapper ") && err.lines().count() == 1,
            "{err}"
        );
    }
    let (installed, ours) = (
        world.path("volume/exec-wrapper"),
        env!("CARGO_BIN_EXE_exec-wrapper"),
    );
    assert!(std::fs::read(installed).unwrap() == std::fs::read(ours).unwrap());
}
