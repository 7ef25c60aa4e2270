//! `cluster etcd-keys`: what etcd holds, to see whether something changed it. Values are not read.

use anyhow::Result;

use super::dir::ClusterDir;
use super::pki::{ETCD, Pki};
use crate::shell;
use crate::tools::Tools;

/// Lines of `KEY REVISION`, the revision being that of the key's last change, sorted by key.
pub(super) fn read(dir: &ClusterDir, tools: &Tools) -> Result<String> {
    let pki = Pki::new(dir);
    let mut command = tools.etcdctl();
    command.args([
        "get",
        "",
        "--prefix",
        "--keys-only",
        "--write-out=fields",
        "--endpoints=https://127.0.0.1:2379",
    ]);
    command.arg(format!("--cacert={}", pki.cert(ETCD)));
    command.arg(format!("--cert={}", pki.cert("apiserver-etcd")));
    command.arg(format!("--key={}", pki.key("apiserver-etcd")));
    Ok(lines(&shell::output(&mut command)?))
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
