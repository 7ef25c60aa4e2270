/*!
What the cluster has in etcd: `cluster etcd-keys` lists the keys, to see whether something changed,
`cluster etcd-snapshot` saves a backup, and `cluster restart --etcd-snapshot` restores it.
*/

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::dir::ClusterDir;
use super::pki::{ETCD, Pki};
use crate::shell;
use crate::tools::Tools;

/// The member's name and the address at which it expects other members.
const NAME: &str = "cluster";
const PEERS: &str = "https://127.0.0.1:2380";

/// Lines of `KEY REVISION`, the revision being that of the key's last change, sorted by key.
pub(super) fn keys(dir: &ClusterDir, tools: &Tools) -> Result<String> {
    let mut command = client(dir, tools);
    command.args(["get", "", "--prefix", "--keys-only", "--write-out=fields"]);
    Ok(lines(&shell::output(&mut command)?))
}

/// Saves a snapshot into `file`.
pub(super) fn save(dir: &ClusterDir, tools: &Tools, file: &Path) -> Result<()> {
    let mut command = client(dir, tools);
    command.args(["snapshot", "save"]).arg(file);
    shell::output(&mut command).map(drop)
}

/// Replaces the data of etcd, which does not run, by a snapshot. The revisions go back to those of
/// the snapshot, so that clients with a cache must restart.
pub(super) fn restore(dir: &ClusterDir, tools: &Tools, file: &Path) -> Result<()> {
    let (data, restored) = (dir.join("etcd"), dir.join("etcd-restored"));
    let mut command = tools.etcdctl();
    command.args(["snapshot", "restore"]).arg(file);
    command.arg(format!("--data-dir={}", restored.display()));
    command.arg(format!("--name={NAME}"));
    command.arg(format!("--initial-cluster={NAME}={PEERS}"));
    command.arg(format!("--initial-advertise-peer-urls={PEERS}"));
    shell::output(&mut command)?;
    fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
    fs::rename(&restored, &data).with_context(|| format!("renaming {}", restored.display()))
}

/// etcdctl for the cluster's etcd.
fn client(dir: &ClusterDir, tools: &Tools) -> Command {
    let pki = Pki::new(dir);
    let mut command = tools.etcdctl();
    command.arg("--endpoints=https://127.0.0.1:2379");
    command.arg(format!("--cacert={}", pki.cert(ETCD)));
    command.arg(format!("--cert={}", pki.cert("apiserver-etcd")));
    command.arg(format!("--key={}", pki.key("apiserver-etcd")));
    command
}

/// Reads etcdctl's fields: for each key a line `"Key" : "/registry/..."` and, later, one
/// `"ModRevision" : 42`.
fn lines(fields: &str) -> String {
    let mut text = String::new();
    let mut key = "";
    for (name, value) in fields.lines().filter_map(|line| line.split_once(" : ")) {
        match name {
            "\"Key\"" => key = value.trim_matches('"'),
            "\"ModRevision\"" => text.extend([key, " ", value, "\n"]),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn every_key_has_its_revision() {
        let fields = "\"ClusterID\" : 1\n\"Revision\" : 9\n\
                      \"Key\" : \"/registry/a b\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 3\n\"Value\" : \"\"\n\
                      \"Key\" : \"/registry/c\"\n\"CreateRevision\" : 4\n\"ModRevision\" : 5\n\"More\" : false\n";
        assert_eq!(lines(fields), "/registry/a b 3\n/registry/c 5\n");
    }
}
