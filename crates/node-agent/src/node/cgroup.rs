/*!
The container of a process, by its cgroup.

The kubelet and the runtime put a container into a cgroup whose path names the pod's UID and, below,
the container's id. How it is written differs by cgroup driver and runtime (`pod1a2b-..`,
`pod1a2b_...slice`, `cri-containerd-ID.scope`), and anything may stand before.
*/

/// Length of a container id, in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// Id of the container of this pod that a process with this `/proc/PID/cgroup` is in.
pub(crate) fn container_of(cgroup: &str, pod_uid: &str) -> Option<String> {
    let names = [
        format!("pod{pod_uid}"),
        format!("pod{}", pod_uid.replace('-', "_")),
    ];
    cgroup
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(|path| {
            let after = names.iter().find_map(|name| after_name(path, name))?;
            container_id(after)
        })
}

/// What follows a name in a path, if the name ends there: `pod1` is not in `pod12`.
fn after_name<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.match_indices(name).find_map(|(at, _)| {
        let before = path[..at].chars().next_back();
        let after = &path[at + name.len()..];
        let begins = before.is_none_or(|c| matches!(c, '/' | '-'));
        let ends = after.chars().next().is_none_or(|c| matches!(c, '/' | '.' | ':'));
        (begins && ends).then_some(after)
    })
}

fn container_id(path: &str) -> Option<String> {
    path.split(|c: char| !c.is_ascii_hexdigit())
        .find(|run| run.len() == ID_LENGTH)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f5ac35c-0a2b-4a56-9a7b-111122223333";

    fn id() -> String {
        "a1".repeat(32)
    }

    #[test]
    fn every_way_of_writing_it() {
        let underscores = UID.replace('-', "_");
        for path in [
            format!("/kubepods/besteffort/pod{UID}/{}", id()),
            format!("/prefix/node1/kubepods/pod{UID}/{}/init", id()),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscores}.slice/cri-containerd-{}.scope",
                id()
            ),
            format!(
                "/kubepods.slice/kubepods-pod{underscores}.slice/crio-{}.scope/container",
                id()
            ),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{underscores}.slice:cri-containerd:{}",
                id()
            ),
            format!("/../../pod{UID}/{}", id()),
        ] {
            assert_eq!(container_of(&format!("0::{path}\n"), UID), Some(id()), "{path}");
            assert_eq!(
                container_of(&format!("5:cpu,cpuacct:/\n4:memory:{path}\n"), UID),
                Some(id()),
                "{path}"
            );
        }
    }

    #[test]
    fn i8_another_pod_is_not_this_one() {
        let other = "0f5ac35c-0a2b-4a56-9a7b-111122223334";
        for path in [
            format!("/kubepods/pod{other}/{}", id()),
            format!("/kubepods/pod{UID}4/{}", id()),
            format!("/kubepods/xpod{UID}/{}", id()),
            format!("/kubepods/{}/pod{UID}", id()),
            format!("/kubepods/pod{UID}/{}", &id()[1..]),
            format!("/kubepods/pod{UID}/{}0", id()),
            "/".to_owned(),
        ] {
            assert_eq!(container_of(&format!("0::{path}\n"), UID), None, "{path}");
        }
    }
}
