//! Volumes whose file system does not answer the agent.

use anyhow::{Result, ensure};
use serde_json::json;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use testkit::{Namespace, NodeShell, in_namespace};

use super::{beside_neighbour, harmless};
use crate::support::{blocked_saying, cleaned_up, create, forget, run, start, stop};

/// A FUSE file system with a directory `b`, sufficient for a volume. It answers all processes
/// except the node agent. It logs the agent's requests and does not answer them, so a thread of the
/// agent that sends one hangs in the kernel. Structures and numbers are those of linux/fuse.h.
const DAEMON: &str = r#"
use Fcntl;
use Errno;
my ($path) = @ARGV;
$^F = 100;
sysopen(my $device, "/dev/fuse", O_RDWR) or die "$!";
$SIG{CHLD} = "IGNORE";
if (!fork) {
    my $options = "fd=" . fileno($device) . ",rootmode=40000,user_id=0,group_id=0,allow_other";
    exec "mount", "-i", "-t", "fuse", "-o", $options, "silent", $path;
}
sub attributes { pack("Q6L10", $_[0], (0) x 5, 0, 0, 0, 040755, 2, 0, 0, 0, 4096, 0) }
my %answers = (
    26 => sub { (0, pack("L4S2L2S2L8", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, (0) x 8)) },
    3 => sub { (0, pack("QLL", 0, 0, 0) . attributes(1)) },
    1 => sub { $_[0] eq "b\0" ? (0, pack("Q4LL", 2, 0, 0, 0, 0, 0) . attributes(2)) : (-2, "") },
    17 => sub { (0, "\0" x 80) },
);
my $request;
while (1) {
    if (!defined sysread($device, $request, 1 << 18)) {
        last if $!{ENODEV};
        # It is not mounted yet, or a request was taken back.
        select(undef, undef, undef, 0.05);
        next;
    }
    my ($length, $opcode, $unique, $node, $uid, $gid, $pid) = unpack("LLQQLLL", $request);
    next if $opcode == 2 || $opcode == 36 || $opcode == 42;
    if ((readlink("/proc/$pid/exe") // "") =~ m{/node-agent$}) {
        syswrite(STDERR, "request $opcode\n");
        next;
    }
    my $answer = $answers{$opcode} // sub { (-38, "") };
    my ($error, $body) = $answer->(substr($request, 40));
    syswrite($device, pack("LlQ", 16 + length $body, $error, $unique) . $body);
}
"#;

/// One consumer has it as a volume with another volume below it, and a symlink of its image leads
/// another consumer into it. The first runs, the second reports why it does not run, and all other
/// containers start and stop.
#[tokio::test]
async fn i18_a_fuse_volume_that_stops_answering_stops_no_other_container() {
    in_namespace("silent", async |ns| {
        harmless(&ns, async |node| {
            let path = format!("/var/lib/{}.fuse", ns.name);
            let begin = format!(
                "mkdir {path}; cat > {path}.pl <<'PERL'\n{DAEMON}\nPERL
                 setsid perl {path}.pl {path} </dev/null >/dev/null 2>{path}.asked & daemon=$!
                 tries=0; until grep -q ' {path} ' /proc/self/mountinfo; do
                     tries=$((tries + 1)); [ $tries -lt 300 ]; sleep 0.1
                 done; echo $daemon"
            );
            let daemon = node.sh(&begin).await?;
            let tested = beside_it(&ns, node, &path).await;
            // Hanging processes continue when the daemon ends, so this comes first.
            let ended = node.sh(&format!("kill -9 {daemon}; umount -l {path}")).await;
            let forgotten = async {
                for name in ["silent", "led", "newcomer"] {
                    forget(&ns, name).await?;
                }
                node.sh(&format!("rm -r {path} {path}.pl {path}.asked")).await?;
                Ok(())
            };
            let forgotten = forgotten.await;
            cleaned_up(cleaned_up(tested, ended.map(drop)), forgotten)
        })
        .await
    })
    .await;
}

async fn beside_it(ns: &Namespace, node: &NodeShell<'_>, path: &str) -> Result<()> {
    let volumes = json!([{"name": "data", "hostPath": {"path": path}}, {"name": "deep", "emptyDir": {}}]);
    let with_it = async |at: &str| {
        let main = json!({"workingDir": at, "volumeMounts": [
            {"name": "data", "mountPath": at}, {"name": "deep", "mountPath": format!("{at}/b")},
        ]});
        let mut template = beside_neighbour(ns, &main).await?;
        template["spec"]["volumes"] = volumes.clone();
        anyhow::Ok(template)
    };
    run(ns, "silent", with_it("/data").await?).await?;
    let seen = ns
        .sh("silent", "main", "echo below > /data/b/file; cat b/file")
        .await?;
    ensure!(seen == "below", "the volume below it has {seen:?}");

    // The image has a symlink from /var/run, where the pod's token is mounted, to /run.
    create(ns, "led", true, with_it("/run").await?).await?;
    let said = blocked_saying(ns, "led", CONSUMER_READY, reason::WAITING_FOR_FILESYSTEM, "fuse").await?;
    ensure!(said.contains("/var/run/secrets"), "it says {said:?}");

    run(ns, "newcomer", beside_neighbour(ns, &json!({})).await?).await?;
    stop(ns, "newcomer").await?;
    start(ns, "newcomer").await?;
    stop(ns, "silent").await?;
    start(ns, "silent").await?;
    let asked = node.sh(&format!("cat {path}.asked")).await?;
    ensure!(asked.is_empty(), "the agent asked it: {asked}");
    Ok(())
}
