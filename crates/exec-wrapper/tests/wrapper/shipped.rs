//! The wrapper as it is in its image: static, small, and deaf to what the image says before it
//! becomes its command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::world::World;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Largest program in bytes: every start copies it.
const MAX_SIZE: usize = 1_400_000;
/// What the image's shared object says when it is loaded.
const EVIL: &str = "#include <unistd.h>\n__attribute__((constructor)) static void evil(void) { write(1, \"evil\\n\", 5); }\n";
/// Files by which a C library would run or parse what an image contains.
const BAIT: [&str; 9] = [
    "etc/ld.so.preload",
    "etc/nsswitch.conf",
    "etc/locale.alias",
    "etc/resolv.conf",
    "etc/localtime",
    "usr/lib/locale/locale-archive",
    "usr/lib/locale/evil/LC_CTYPE",
    "evil/gconv-modules",
    "usr/lib/x86_64-linux-gnu/libnss_evil.so.2",
];

/// The program, built as `cargo xtask image` builds it, so that it is compiled once for both.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built = Command::new(env!("CARGO"))
            .current_dir(&workspace)
            .args(["build", "--quiet", "--target", TARGET, "--profile", "tiny"])
            .args(["--package", "exec-wrapper", "--bin", "exec-wrapper"])
            .env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-C target-feature=+crt-static",
            )
            .status();
        assert!(built.unwrap().success(), "the wrapper does not build");
        // `target` is where this test program is.
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        target.join(TARGET).join("tiny/exec-wrapper")
    })
}

/// The traced calls of the wrapper up to the execve by which it becomes the command, and that
/// execve.
fn trace(world: &World) -> (Vec<String>, String) {
    let text = std::fs::read_to_string(world.path("trace")).unwrap();
    // The number of the process comes first.
    let mut calls = text.lines().map(|line| {
        line.split_once(' ')
            .map_or(line, |(_, call)| call.trim_start())
            .to_owned()
    });
    let became = |call: &String| call.starts_with("execve(") && call.ends_with("= 0");
    calls
        .find(|call| call.starts_with("execve(\"/.stoppablecontainer/exec-wrapper\"") && became(call))
        .expect("the wrapper was not executed");
    let mut own = Vec::new();
    for call in calls {
        if became(&call) {
            return (own, call);
        }
        own.push(call);
    }
    panic!("the wrapper became no command: {own:#?}");
}

/// The path that a call opens.
fn opened(call: &str) -> Option<&str> {
    let name = call.split('(').next()?;
    matches!(name, "open" | "openat" | "openat2").then(|| call.split('"').nth(1).unwrap_or_default())
}

/// A container whose image does what it can to run something before its command.
fn hostile() -> World {
    let world = World::kept().program(program()).traced();
    for bait in BAIT {
        std::fs::write(world.in_root(bait), "/evil/evil.so\n").unwrap();
    }
    let source = world.path("evil.c");
    std::fs::write(&source, EVIL).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(world.in_root("evil/evil.so"))
        .arg(source)
        .status();
    assert!(compiled.unwrap().success());
    world
        .environment("LD_PRELOAD", "/evil/evil.so")
        .environment("LD_LIBRARY_PATH", "/evil")
        .environment("GCONV_PATH", "/evil")
        .environment("LOCPATH", "/evil")
        .environment("LC_ALL", "evil.EVIL")
        .environment("NLSPATH", "/evil/%N")
        .environment("TZ", "/evil/evil.so")
        .environment("RUST_BACKTRACE", "full")
        .environment("GLIBC_TUNABLES", "glibc.malloc.check=3")
}

#[test]
fn the_shipped_program_is_static_and_small() {
    let program = std::fs::read(program()).unwrap();
    assert!(program.len() < MAX_SIZE, "{} bytes", program.len());
    let number = |at: usize, length: usize| {
        let bytes = program[at..at + length].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    assert_eq!(&program[..5], b"\x7fELF\x02", "not a 64-bit program");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!(count > 0);
    // Type 3 names an interpreter, which would be the image's.
    assert!((0..count).all(|header| number(table + header * size, 4) != 3));
}

#[test]
fn h7_h8_nothing_of_an_image_runs_before_its_command() {
    let world = hostile();
    let (code, out, err) = world.run(&["--default-home", "--", "/usr/bin/printenv", "LD_LIBRARY_PATH"]);
    // The command itself is the image's, and its variables reach it: so the bait is good.
    assert_eq!((code, out.as_str()), (Some(0), "evil\n/evil\n"), "{err}");
    let (calls, command) = trace(&world);
    assert!(command.starts_with("execve(\"/usr/bin/printenv\""), "{command}");
    for call in &calls {
        if let Some(path) = opened(call) {
            // /etc/passwd for HOME, which is asked for here; read, bounded, and one line of it
            // looked at. /dev is the runtime's, not the image's.
            let known = path.starts_with("/proc/self/")
                || ["/etc/passwd", "/dev/null", "/dev/termination-log"].contains(&path);
            assert!(known, "{call}");
        }
        assert!(!call.starts_with("exec"), "{call}");
        let maps_a_file = call.starts_with("mmap(") && call.contains("PROT_EXEC") && !call.contains(", -1, ");
        assert!(!maps_a_file, "{call}");
        assert!(!call.contains("/evil"), "{call}");
    }
    assert!(
        calls
            .iter()
            .any(|call| opened(call) == Some("/proc/self/mountinfo")),
        "{calls:#?}"
    );
}

#[test]
fn the_shipped_program_is_one_thread_and_leaks_nothing() {
    let world = World::kept().program(program()).traced();
    let (code, out, err) = world.run(&["--", "ls", "/proc/self/fd"]);
    // The fourth is the directory that ls reads.
    assert_eq!((code, out.as_str()), (Some(0), "0\n1\n2\n3\n"), "{err}");
    let (calls, _) = trace(&world);
    let starts = |call: &&String| {
        ["clone", "fork", "vfork"]
            .iter()
            .any(|name| call.starts_with(name))
    };
    assert_eq!(calls.iter().find(starts), None);
    for (command, code) in [("/nowhere", 127), ("/etc", 126)] {
        let (ended, out, err) = world.run(&["--", command]);
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}
