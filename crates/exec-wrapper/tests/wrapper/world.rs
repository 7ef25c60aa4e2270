//! A root of its own for the wrapper, and the agent's side of its volume.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Makes the root, then becomes the wrapper. Arguments: directory, source of the root, tracer,
/// working directory, and those of the wrapper. Two descriptors leak, one of them of a directory
/// outside the root. Files for /proc stand in its place.
const SCRIPT: &str = r#"
set -e
dir=$1 source=$2 tracer=$3 here=$4; shift 4
mount -t tmpfs tmpfs "$dir/scratch"
mkdir "$dir/scratch/upper" "$dir/scratch/work" "$dir/scratch/root"
mount -t overlay "$source" -o "lowerdir=/,upperdir=$dir/scratch/upper,workdir=$dir/scratch/work" "$dir/scratch/root"
cd "$dir/scratch/root"
mkdir -p .stoppablecontainer srv/here
mount --bind "$dir/volume" .stoppablecontainer
[ -e "$dir/files/proc" ] || mount --rbind /proc proc
mount --rbind /dev dev
cp -RP "$dir/files/." .
if [ -e "$dir/termination" ]; then
  mkdir -p "$(dirname "./$(cat "$dir/termination.path")")"
  : > "./$(cat "$dir/termination.path")"
  mount --bind "$dir/termination" "./$(cat "$dir/termination.path")"
fi
exec 7</etc/passwd 9</
exec $tracer unshare --root=. --wd="$here" /.stoppablecontainer/exec-wrapper "$@"
"#;

/// A container with the wrapper, and the agent's side of its volume.
pub(crate) struct World {
    directory: tempfile::TempDir,
    source: &'static str,
    environment: Vec<(&'static str, &'static str)>,
    tracer: String,
    working_directory: &'static str,
}

/// A wrapper that runs.
pub(crate) struct Wrapper {
    pub(crate) child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

// === impl World ===

impl World {
    pub(crate) fn new(source: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["volume", "scratch", "files"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let wrapper = directory.path().join("volume/exec-wrapper");
        std::fs::copy(env!("CARGO_BIN_EXE_exec-wrapper"), wrapper).unwrap();
        Self {
            directory,
            source,
            environment: vec![("PATH", "/usr/bin:/bin")],
            tracer: String::new(),
            working_directory: "/srv/here",
        }
    }

    pub(crate) fn kept() -> Self {
        Self::new("stoppablecontainer")
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A file in the working directory of the container.
    pub(crate) fn file(self, name: &str, content: &str, mode: u32) -> Self {
        let path = self.in_root(&format!("srv/here/{name}"));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        self
    }

    /// Where to put what the container is to have at this path. The directories above it are made.
    pub(crate) fn in_root(&self, path: &str) -> std::path::PathBuf {
        let path = self.path("files").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The program is this one instead of a build for tests.
    pub(crate) fn program(self, program: &std::path::Path) -> Self {
        std::fs::copy(program, self.path("volume/exec-wrapper")).unwrap();
        self
    }

    /// The container's termination message is here, as the kubelet mounts it.
    pub(crate) fn termination_log(self, path: &str) -> Self {
        std::fs::write(self.path("termination"), "").unwrap();
        std::fs::write(self.path("termination.path"), path).unwrap();
        self
    }

    /// What the kubelet would read as termination message.
    pub(crate) fn termination_message(&self) -> String {
        std::fs::read_to_string(self.path("termination")).unwrap()
    }

    /// The system calls are written to `trace`.
    pub(crate) fn traced(mut self) -> Self {
        self.tracer = format!("strace -f -s 4096 -o {}", self.path("trace").display());
        self
    }

    /// A system call fails with this error.
    pub(crate) fn failing(mut self, call: &str, error: &str) -> Self {
        self.tracer = format!(
            "strace -f -o {} -e inject={call}:error={error}",
            self.path("trace").display()
        );
        self
    }

    /// Where the wrapper starts, instead of /srv/here.
    pub(crate) fn working_directory(mut self, path: &'static str) -> Self {
        self.working_directory = path;
        self
    }

    pub(crate) fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The agent's socket, made as the agent makes it.
    pub(crate) fn listen(&self) -> UnixListener {
        let new = self.path("volume/agent.sock.new");
        let listener = UnixListener::bind(&new).unwrap();
        std::fs::rename(new, self.path("volume/agent.sock")).unwrap();
        listener
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Wrapper {
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                SCRIPT,
                "sh",
            ])
            .arg(self.directory.path())
            .arg(self.source)
            .arg(&self.tracer)
            .arg(self.working_directory)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Wrapper { child, stderr }
    }

    /// Runs a command to its end; the agent says `ok` at once.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let listener = self.listen();
        let wrapper = self.start(&[&["run"], arguments].concat());
        let mut stream = accept(&listener, "run 1");
        stream.write_all(b"ok\n").unwrap();
        wrapper.finish()
    }
}

// === impl Wrapper ===

impl Wrapper {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, number: i32) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{number}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub(crate) fn finish(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout().read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (self.wait().code(), out, err)
    }
}

/// The next connection, whose request must be this.
pub(crate) fn accept(listener: &UnixListener, request: &str) -> UnixStream {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut fds, Some(&patience)),
        Ok(1),
        "the wrapper did not connect"
    );
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end_matches('\n'), request);
    stream
}
