use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use futures::FutureExt;

use super::*;
use crate::instance::ObjectRef;

const ID: &str = "csi-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Plugin {
    directory: tempfile::TempDir,
    volumes: Volumes,
}

impl Plugin {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Self::open(directory.path());
        std::fs::write(directory.path().join("image"), "program").unwrap();
        volumes.install_wrapper(&directory.path().join("image")).unwrap();
        Self { directory, volumes }
    }

    fn open(directory: &Path) -> Volumes {
        Volumes::open(File::open(directory).unwrap().into()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("volumes").join(ID).join(name)
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }
}

fn record(pod: &str) -> VolumeRecord {
    let object = |name: &str| ObjectRef {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
    };
    VolumeRecord {
        target: "/target".into(),
        pod: object(pod),
        instance: object("instance"),
        role: Role::Provider,
        prefix: "/data".into(),
        container: None,
        image_id: None,
    }
}

#[test]
fn a_volume_holds_the_wrapper_and_a_socket_for_every_user() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    let (_, listener) = guard.create(&record("pod")).unwrap();
    assert_eq!(
        std::fs::read_to_string(plugin.path("mount/exec-wrapper")).unwrap(),
        "program"
    );
    assert_eq!(
        (
            plugin.mode("mount"),
            plugin.mode("mount/exec-wrapper"),
            plugin.mode("mount/agent.sock")
        ),
        (0o755, 0o555, 0o666)
    );
    // The volume's own directory, with the record, is for root alone.
    assert_eq!(plugin.mode(""), 0o700);
    // Its path is too long for a socket's address; that of the wrapper's view is not.
    let directory = File::open(plugin.path("mount")).unwrap();
    let short = format!("/proc/self/fd/{}/agent.sock", directory.as_raw_fd());
    let mut client = UnixStream::connect(short).unwrap();
    client.write_all(b"x").unwrap();
    listener.set_nonblocking(false).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn f23_one_call_at_a_time() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    assert!(plugin.volumes.try_lock(ID).is_none());
    assert!(plugin.volumes.try_lock("another").is_some());
    drop(guard);
    assert!(plugin.volumes.try_lock(ID).is_some());
}

#[test]
fn f23_creating_and_removing_again_and_again() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    for _ in 0..3 {
        for _ in 0..3 {
            let _listening = guard.create(&record("pod")).unwrap();
            guard.publish(record("pod"));
        }
        assert_eq!(guard.recorded().unwrap(), Some(record("pod")));
        assert_eq!(plugin.volumes.of_instance("uid-instance").len(), 1);
        guard.remove().unwrap();
        guard.remove().unwrap();
        assert_eq!(guard.recorded().unwrap(), None);
        assert!(!plugin.path("").exists());
    }
}

#[test]
fn who_serves_a_volume_learns_that_it_ended() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    let first = guard.publish(record("pod"));
    let second = guard.publish(record("pod"));
    assert!(first.unpublished.is_cancelled(), "another one took its place");
    assert!(!second.unpublished.is_cancelled());
    guard.remove().unwrap();
    assert!(second.unpublished.is_cancelled());
}

#[test]
fn i9_another_agent_finds_what_is_published() {
    let plugin = Plugin::new();
    drop(
        plugin
            .volumes
            .try_lock(ID)
            .unwrap()
            .create(&record("pod"))
            .unwrap(),
    );
    // What an agent leaves that died before it had written the record, or after it had removed it.
    std::fs::create_dir_all(plugin.directory.path().join("volumes/unfinished/mount")).unwrap();
    let again = Plugin::open(plugin.directory.path());
    let mut found: Vec<_> = again
        .recorded()
        .unwrap()
        .into_iter()
        .map(|(id, record)| (id, record.unwrap()))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        found,
        [
            (ID.to_owned(), Some(record("pod"))),
            ("unfinished".to_owned(), None)
        ]
    );
    again.try_lock("unfinished").unwrap().remove().unwrap();
    assert_eq!(again.recorded().unwrap().len(), 1);
}

#[test]
fn h6_nothing_that_a_pod_sees_is_shared() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    drop(guard.create(&record("pod")).unwrap());
    // A pod that may mount makes its volume writable and changes the program, content and mode.
    let theirs = plugin.path("mount/exec-wrapper");
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&theirs, "evil").unwrap();
    let ours = plugin.directory.path().join("exec-wrapper");
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), "program");
    assert_eq!(
        std::fs::metadata(&ours).unwrap().permissions().mode() & 0o777,
        0o555
    );
    let other = plugin.volumes.try_lock("other").unwrap();
    drop(other.create(&record("other")).unwrap());
    let others = plugin.directory.path().join("volumes/other/mount/exec-wrapper");
    assert_eq!(std::fs::read_to_string(others).unwrap(), "program");
    // The next agent sets its own copy right as well.
    drop(guard.create(&record("pod")).unwrap());
    assert_eq!(std::fs::read_to_string(theirs).unwrap(), "program");
}

#[test]
fn h6_what_a_pod_put_into_its_volume_goes_with_it() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    drop(guard.create(&record("pod")).unwrap());
    let outside = plugin.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "another's").unwrap();
    std::fs::create_dir_all(plugin.path("mount/a/b")).unwrap();
    std::fs::write(plugin.path("mount/a/b/c"), "junk").unwrap();
    std::fs::remove_file(plugin.path("mount/agent.sock")).unwrap();
    std::os::unix::fs::symlink(&outside, plugin.path("mount/agent.sock")).unwrap();
    std::os::unix::fs::symlink(&outside, plugin.path("mount/link")).unwrap();
    guard.remove().unwrap();
    assert!(!plugin.path("").exists());
    assert_eq!(
        std::fs::read_to_string(outside.join("file")).unwrap(),
        "another's"
    );
}

#[test]
fn h14_links_that_a_pod_left_in_its_volume_are_not_followed() {
    let plugin = Plugin::new();
    let guard = plugin.volumes.try_lock(ID).unwrap();
    drop(guard.create(&record("pod")).unwrap());
    let outside = plugin.directory.path().join("outside");
    std::fs::write(&outside, "another's").unwrap();
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["agent.sock", "agent.sock.new", "exec-wrapper", "exec-wrapper.new"] {
        let path = plugin.path("mount").join(name);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(&outside, path).unwrap();
    }
    drop(guard.create(&record("pod")).unwrap());
    assert_eq!(plugin.mode("mount/agent.sock"), 0o666);
    assert_eq!(
        std::fs::read_to_string(plugin.path("mount/exec-wrapper")).unwrap(),
        "program"
    );
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "another's");
    assert_eq!(
        std::fs::metadata(&outside).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// A disk error, say, at one of them.
#[test]
fn i9_a_record_that_cannot_be_read_hides_no_other_volume() {
    let plugin = Plugin::new();
    drop(
        plugin
            .volumes
            .try_lock(ID)
            .unwrap()
            .create(&record("pod"))
            .unwrap(),
    );
    let other = plugin.directory.path().join("volumes/other");
    std::fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", other.join("volume.json")).unwrap();
    let found: HashMap<_, _> = plugin.volumes.recorded().unwrap().into_iter().collect();
    assert_eq!(found[ID].as_ref().unwrap(), &Some(record("pod")));
    assert!(found["other"].is_err());
}

/// A full disk must not keep a volume from being served again.
#[test]
fn f22_a_wrapper_that_is_there_is_not_written_again_unless_it_is_another_one() {
    let plugin = Plugin::new();
    let number = || {
        std::fs::metadata(plugin.path("mount/exec-wrapper"))
            .unwrap()
            .ino()
    };
    let create = || {
        let guard = plugin.volumes.try_lock(ID).unwrap();
        drop(guard.create(&record("pod")).unwrap());
    };
    create();
    let first = number();
    create();
    assert_eq!(number(), first, "written again");
    for wrong in ["", "progra", "progrbm", "programs"] {
        let wrapper = plugin.path("mount/exec-wrapper");
        std::fs::remove_file(&wrapper).unwrap();
        std::fs::write(&wrapper, wrong).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o555)).unwrap();
        create();
        assert_eq!(std::fs::read_to_string(&wrapper).unwrap(), "program");
        assert_eq!(plugin.mode("mount/exec-wrapper"), 0o555);
    }
}

/// The kubelet gives up a call that takes too long, and makes it again; the kernel tells what
/// became of the files once.
#[tokio::test]
async fn i7_what_is_begun_for_a_volume_that_ends_is_done_once() {
    let plugin = Plugin::new();
    let volume = plugin.volumes.try_lock(ID).unwrap().publish(record("pod"));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let first = volume.writeback(|| tokio::spawn(ended).map(|_| None).boxed().shared());
    drop(first);
    let again = volume.writeback(|| panic!("it is done a second time"));
    end.send(()).unwrap();
    again.await;
}
