/*!
Containers as a runtime makes them: a process in a mount namespace of its own, whose root is an
overlay, with mounts on it.

The process is this test program again, started by unshare(1): see [`inside`]. It executes the
commands that it reads from its standard input.
*/

mod commands;

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rootfs::{HookMode, Proc, Process, Repeat, UserNamespace};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind_recursive,
    mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::Pid;

use crate::kernel;
use crate::pod_users::PodUsers;

/// Marks what the process inside says among what the test harness prints.
const MARK: &str = "container says: ";

/// What a container is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    directory: PathBuf,
    layers: Vec<PathBuf>,
    read_only: bool,
    mounts: Vec<String>,
    working_directory: Option<String>,
    /// Path of its user namespace, and the user and group of the node that are 0 in it.
    users: Option<(PathBuf, u32)>,
    cuda_driver: Option<u32>,
    modes: Vec<HookMode>,
}

/// A running container; ends when it is dropped.
pub(crate) struct Container {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) process: Process,
    /// Its user namespace, if that is not the node's.
    pub(crate) users: Option<UserNamespace>,
    /// As hooks of the runtime have them.
    cuda_driver: Option<u32>,
    modes: Vec<HookMode>,
    /// Where its root is mounted on the node.
    root: PathBuf,
}

// === impl Spec ===

impl Spec {
    /// A container whose files are kept in `directory` (made), on these layers, the topmost first.
    pub(crate) fn new(directory: PathBuf, layers: &[&Path]) -> Self {
        let layers = layers.iter().map(|layer| layer.to_path_buf()).collect();
        Self {
            directory,
            layers,
            ..Self::default()
        }
    }

    /// The root is mounted read-only.
    pub(crate) fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Mounts an empty tmpfs.
    pub(crate) fn tmpfs(self, path: &str) -> Self {
        self.mount("tmpfs", path)
    }

    /// Mounts /proc.
    pub(crate) fn proc(self) -> Self {
        self.mount("proc", "/proc")
    }

    /// Mounts a file system that needs no options.
    pub(crate) fn mount(mut self, kind: &str, path: &str) -> Self {
        self.mounts.push(format!("{kind} {path}"));
        self
    }

    /// Binds a file or directory of the node. `how` is `private`, `slave`, `shared` or `ro`.
    pub(crate) fn bind(mut self, source: &Path, path: &str, how: &str) -> Self {
        self.mounts
            .push(format!("bind {path} {how} {}", source.display()));
        self
    }

    /// Where the process is.
    pub(crate) fn working_directory(mut self, path: &str) -> Self {
        self.working_directory = Some(path.to_owned());
        self
    }

    /// A hook of the runtime prefers libraries of CUDA in the image to this version of the driver.
    pub(crate) fn cuda_driver(mut self, version: u32) -> Self {
        self.cuda_driver = Some(version);
        self
    }

    /// A hook of the runtime gives the file a mode, if it is there.
    pub(crate) fn hook_mode(mut self, path: &str, mode: u32) -> Self {
        let path = PathBuf::from(path);
        self.modes.push(HookMode { path, mode });
        self
    }

    /// It is in this user namespace.
    pub(crate) fn users(mut self, users: &PodUsers) -> Self {
        self.users = Some((users.path(), users.first));
        self
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Container {
        for name in ["upper", "work", "root"] {
            fs::create_dir_all(self.directory.join(name)).unwrap();
        }
        let mut command = match &self.users {
            None => Command::new("unshare"),
            Some((users, first)) => {
                // As containerd does: files that a container makes have the owners of the node.
                chown(self.directory.join("upper"), Some(*first), Some(*first)).unwrap();
                let mut command = Command::new("nsenter");
                command.arg(format!("--user={}", users.display()));
                command.args(["--setuid=0", "--setgid=0", "unshare"]);
                command
            }
        };
        // As runtimes do: in the node's namespace, of which the container then has a copy.
        let root = self.directory.join("root");
        self.mount_overlay(&root);
        let mut child = command
            .args(["--mount", "--propagation", "unchanged"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "container::inside",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("CONTAINER_DIRECTORY", &self.directory)
            .env("CONTAINER_HAS_USERS", self.users.is_some().to_string())
            .env("CONTAINER_READ_ONLY", self.read_only.to_string())
            .env("CONTAINER_MOUNTS", self.mounts.join("\n"))
            .env(
                "CONTAINER_WORKING_DIRECTORY",
                self.working_directory.as_deref().unwrap_or("/"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut container = Container {
            child,
            stdin,
            stdout,
            process: Process::open(pid).unwrap(),
            users: None,
            cuda_driver: self.cuda_driver,
            modes: self.modes.clone(),
            root,
        };
        assert_eq!(container.hear(), "ready");
        if self.users.is_some() {
            let proc = Proc::open().unwrap();
            container.users = Some(container.process.user_namespace(&proc).unwrap());
        }
        container
    }

    /// As runtimes do: by option string, all in one.
    fn mount_overlay(&self, root: &Path) {
        let option = |name: &str| self.directory.join(name).display().to_string();
        let mut options = vec![("upperdir", option("upper")), ("workdir", option("work"))];
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| layer.to_str().unwrap().to_owned())
            .collect();
        if !kernel::takes_commas() {
            let layers: Vec<_> = layers.iter().map(|layer| escape(layer)).collect();
            let options = options
                .iter()
                .map(|(key, value)| format!("{key}={}", escape(value)));
            let options = options.chain([format!("lowerdir={}", layers.join(":"))]);
            let options = CString::new(options.collect::<Vec<_>>().join(",")).unwrap();
            mount(
                "overlay",
                root,
                "overlay",
                MountFlags::empty(),
                Some(options.as_c_str()),
            )
            .unwrap();
            return;
        }
        let joined = layers.join(":");
        if joined.len() < 256 {
            options.push(("lowerdir", joined));
        } else {
            // As runtimes do where they may.
            options.extend(layers.into_iter().map(|layer| ("lowerdir+", layer)));
        }
        attach(new_mount("overlay", &options), root);
    }
}

/// For the option string of an overlay.
fn escape(path: &str) -> String {
    path.replace('\\', r"\\").replace(':', r"\:").replace(',', r"\,")
}

// === impl Container ===

impl Container {
    /// What hooks of the runtime could not do.
    pub(crate) fn repeat(&self) -> Repeat<'_> {
        Repeat {
            cuda_driver: self.cuda_driver,
            modes: &self.modes,
        }
    }

    /// Content of a file as the container sees it, or the error.
    pub(crate) fn read(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("read {path}"))
    }

    /// Writes a file in the container.
    pub(crate) fn write(&mut self, path: &str, content: &str) -> Result<String, String> {
        self.ask(&format!("write {path} {content}"))
    }

    /// Writes a file in the container and waits until it is durable.
    pub(crate) fn write_durable(&mut self, path: &str, content: &str) -> Result<String, String> {
        self.ask(&format!("write-durable {path} {content}"))
    }

    /// Removes a file in the container.
    pub(crate) fn remove(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("remove {path}"))
    }

    /// Removes a directory in the container, with all in it.
    pub(crate) fn remove_tree(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("remove-tree {path}"))
    }

    /// Makes a directory in the container.
    pub(crate) fn make_directory(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("make-directory {path}"))
    }

    /// Names in a directory as the container sees it, sorted.
    pub(crate) fn list(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("list {path}"))
    }

    /// Type, mode, owner and group: `directory 755 0:0`.
    pub(crate) fn stat(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("stat {path}"))
    }

    /// Gives a file another owner and group.
    pub(crate) fn chown(&mut self, path: &str, id: u32) -> Result<String, String> {
        self.ask(&format!("chown {path} {id}"))
    }

    /// Gives a file the capability to bind ports, as setcap(8) does it.
    pub(crate) fn set_capability(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("set-capability {path}"))
    }

    /// The file capabilities that its processes see, as bytes.
    pub(crate) fn capability(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("capability {path}"))
    }

    /// The mountpoints in its mount table, in order.
    pub(crate) fn mountpoints(&mut self) -> Vec<String> {
        let table = self.ask("mounts").unwrap();
        table.split('\u{1}').map(str::to_owned).collect()
    }

    /// Enters a directory.
    pub(crate) fn enter(&mut self, path: &str) -> Result<String, String> {
        self.ask(&format!("enter {path}"))
    }

    /// The working directory.
    pub(crate) fn working_directory(&mut self) -> Result<String, String> {
        self.ask("where")
    }

    /// Ends it and waits for that.
    pub(crate) fn end(mut self) {
        self.stop();
    }

    fn ask(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
        let answer = self.hear();
        match answer.split_once(' ') {
            Some(("ok", value)) => Ok(value.to_owned()),
            Some(("error", value)) => Err(value.to_owned()),
            _ => panic!("the container said {answer:?}"),
        }
    }

    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "the container ended"
            );
            // The harness ends its own line only after the test.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end_matches('\n').to_owned();
            }
        }
    }

    fn stop(&mut self) {
        if let Some(stdin) = self.stdin.take() {
            drop(stdin);
            let _ = self.child.wait();
            unmount(&self.root, UnmountFlags::DETACH).unwrap();
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What runs in a container. Not a test: [`Spec::start`] starts it.
#[test]
#[ignore = "runs inside a container that a test makes"]
fn inside() {
    let Ok(directory) = std::env::var("CONTAINER_DIRECTORY") else {
        return;
    };
    set_up(Path::new(&directory));
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.splitn(3, ' ');
        let verb = words.next().unwrap();
        let (path, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let result = commands::carry_out(verb, path, rest);
        match result {
            Ok(value) => say(&format!(
                "ok {}",
                value.trim_end_matches('\n').replace('\n', "\u{1}")
            )),
            Err(error) => say(&format!("error {error}")),
        }
    }
    // Nothing of the harness's own may run on a root that it does not know.
    std::process::exit(0);
}

fn say(what: &str) {
    println!("{MARK}{what}");
    std::io::stdout().flush().unwrap();
}

fn set_up(directory: &Path) {
    // As runtimes do: what is mounted from here on is not seen outside, but for what the
    // specification shares.
    let propagated = std::env::var("CONTAINER_MOUNTS").unwrap().contains(" shared ");
    if !propagated {
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .unwrap();
    }
    let root = directory.join("root");
    let has_users = std::env::var("CONTAINER_HAS_USERS").unwrap() == "true";
    if has_users {
        // The copy of the runtime's mount is locked.
        mount_bind_recursive(&root, &root).unwrap();
    }
    for mount in std::env::var("CONTAINER_MOUNTS").unwrap().lines() {
        let words: Vec<_> = mount.splitn(4, ' ').collect();
        let path = root.join(words[1].trim_start_matches('/'));
        match words[..] {
            // A new one would need a PID namespace of the same user namespace.
            ["proc", _] if has_users => bind(Path::new("/proc"), &path, "private"),
            [kind, _] => {
                fs::create_dir_all(&path).unwrap();
                attach(new_mount(kind, &[]), &path);
            }
            ["bind", _, how, source] => bind(Path::new(source), &path, how),
            _ => panic!("{mount:?}"),
        }
    }
    if std::env::var("CONTAINER_READ_ONLY").unwrap() == "true" {
        mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    }
    let old_root = fs::File::open("/").unwrap();
    std::env::set_current_dir(&root).unwrap();
    rustix::process::pivot_root(".", ".").unwrap();
    rustix::process::fchdir(&old_root).unwrap();
    mount_change(".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    unmount(".", UnmountFlags::DETACH).unwrap();
    std::env::set_current_dir(std::env::var("CONTAINER_WORKING_DIRECTORY").unwrap()).unwrap();
}

fn bind(source: &Path, path: &Path, how: &str) {
    if source.is_file() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    } else {
        fs::create_dir_all(path).unwrap();
    }
    mount_bind_recursive(source, path).unwrap();
    let kind = match how {
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "shared" => MountPropagationFlags::SHARED,
        _ => MountPropagationFlags::PRIVATE,
    };
    mount_change(path, kind | MountPropagationFlags::REC).unwrap();
    if how == "ro" {
        mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    }
}

/// A detached mount.
pub(crate) fn new_mount(kind: &str, options: &[(&str, String)]) -> OwnedFd {
    try_new_mount(kind, options).unwrap()
}

/// A detached mount, if the kernel makes it.
pub(crate) fn try_new_mount(kind: &str, options: &[(&str, String)]) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&fs, *key, value)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Attaches a detached mount.
pub(crate) fn attach(mount: impl AsFd, path: &Path) {
    move_mount(
        mount,
        "",
        rustix::fs::CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .unwrap();
}
