/*!
What an attack must not change on a node, as it is before and after the attack: the files and
devices of the node, its own mounts, the driver's program, and the kept files of another object.
*/

use anyhow::{Result, ensure};

use crate::node::NodeShell;

/// Prints what must not change, line by line: of files the time of change (ctime) too, which cannot
/// be set, so that one with the same has the same content. Only what does not change by itself on a
/// node that lives: no directories of pods, no terminals, no loop devices (other tests have some).
/// The arguments are directories whose content counts.
const LIST: &str = r#"
root=/proc/1/root
about='%p %y %#m %U:%G %s %T@ %C@ %l\n'
cd /
for directory in etc bin sbin lib lib64 opt boot; do
    [ ! -e "$root/$directory" ] || find "$root/$directory" -xdev -printf "$about"
done
for directory in . usr usr/bin usr/sbin usr/lib usr/local/bin root; do
    [ ! -d "$root/$directory" ] || find "$root/$directory/" -xdev -mindepth 1 -maxdepth 1 -not -type d -printf "$about"
    [ ! -d "$root/$directory" ] || find "$root/$directory/" -xdev -mindepth 1 -maxdepth 1 -type d -printf '%p %y %#m %U:%G\n'
done
find "$root/dev" -xdev -maxdepth 2 -not -path '*/dev/loop*' -not -path '*/dev/pts/*' -not -path '*/dev/shm/*' \
    -printf '%p %y %#m %U:%G %l\n'
awk '$5 !~ "^/(run|tmp|var/lib|var/run)/" {print "mount", $5, $6, $7, $(NF-2), $(NF-1)}' /proc/1/mountinfo
find "$root"/var/lib/kubelet/plugins/*/exec-wrapper -printf "$about" -exec sha256sum '{}' ';'
for directory; do
    find "$root$directory" -printf "$about"
    find "$root$directory" -type f -exec sha256sum '{}' ';'
done
"#;

/// A list of what was there, kept in the shell's pod.
#[derive(Debug)]
pub struct Snapshot {
    directories: Vec<String>,
}

// === impl NodeShell ===

impl NodeShell<'_> {
    /// Takes down what must not change, with the content of these directories of the node. One at a
    /// time.
    pub async fn snapshot(&self, directories: &[String]) -> Result<Snapshot> {
        self.list("/before", directories).await?;
        Ok(Snapshot {
            directories: directories.to_vec(),
        })
    }

    /// Compares with what is there now; the error has the differences.
    pub async fn ensure_unchanged(&self, before: &Snapshot) -> Result<()> {
        self.list("/after", &before.directories).await?;
        let difference = self.in_pod(&["diff", "/before", "/after"]).await?;
        ensure!(
            difference.code == 0,
            "the node changed:\n{}{}",
            difference.stdout,
            difference.stderr
        );
        Ok(())
    }

    async fn list(&self, file: &str, directories: &[String]) -> Result<()> {
        let script = format!("{{ {LIST} }} > {file}");
        let mut command = vec!["/bin/sh", "-ec", &script, "sh"];
        command.extend(directories.iter().map(String::as_str));
        let output = self.in_pod(&command).await?;
        ensure!(output.code == 0, "cannot list what is on the node: {output:?}");
        Ok(())
    }
}
