//! Files with special permissions: setuid, capabilities, ACLs, locks, devices.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::{Namespace, in_namespace};

use super::{beside_neighbour, create_plain, harmless};
use crate::support::users::{has_own_users, with_own_users};
use crate::support::{create, running, start, stop};

/// Creates one of each kind. perl does not have names for these calls: 188 is setxattr, 0x40086602
/// is FS_IOC_SETFLAGS.
const MAKE: &str = r#"
mkdir /power && cd /power
cp /usr/bin/id setuid && chmod 4755 setuid
cp /usr/bin/id setgid && chgrp 7 setgid && chmod 2755 setgid
mkdir -m 1777 sticky
cp /usr/bin/perl caps-v2 && cp /usr/bin/perl caps-v3
echo text > acl && chmod 640 acl
echo text > locked
perl -e '
    sub set { my ($file, $name, $value) = @_; syscall(188, $file, $name, $value, length $value, 0) == 0 or print "$file: $!\n" }
    set("caps-v2", "security.capability", pack("V5", 0x02000001, 1 << 10, 0, 0, 0));
    set("caps-v3", "security.capability", pack("V6", 0x03000001, 1 << 10, 0, 0, 0, 1000));
    set("acl", "system.posix_acl_access",
        pack("V", 2) . join "", map { pack("vvV", @$_) } [1, 6, ~0], [2, 4, 4711], [4, 4, ~0], [16, 4, ~0], [32, 0, ~0]);
    set("locked", "user.note", "text");
    my $flags = pack("L!", 0x10);
    # An overlay may answer EOPNOTSUPP although the file has it then. What counts is what the file allows below.
    open my $file, "<", "locked";
    for (1 .. 20) { last if ioctl($file, 0x40086602, $flags) }
'
mknod disk b 254 0 || true
mknod memory c 1 1 || true
mknod zero c 1 5 || true
mkfifo fifo
"#;

/// Type and effect of each for another user. 191 is getxattr.
const USE: &str = r#"
cd /power
stat -c '%n %F %a %u:%g %t:%T %s' *
perl -e '
    for (["caps-v2", "security.capability"], ["caps-v3", "security.capability"], ["acl", "system.posix_acl_access"],
         ["locked", "user.note"]) {
        my $value = "\0" x 100;
        my $length = syscall(191, $$_[0], $$_[1], $value, 100);
        print "$$_[0]: ", $length < 0 ? "$!" : unpack("H*", substr $value, 0, $length), "\n";
    }'
as_somebody() { perl -e '$) = "4711 4711"; $( = 4711; $< = $> = 4711; exec @ARGV or print "$!\n"' "$@" 2>&1 || true; }
as_somebody /power/setuid -u
as_somebody /power/setgid -g
for program in caps-v2 caps-v3; do
    as_somebody /power/$program -ne 'print if /^CapEff/' /proc/self/status
done
as_somebody cat /power/acl
perl -e 'open my $file, "+<", "locked" or print "$!\n"'
{ ln locked other && rm other && echo linked; } 2>&1 || true
for device in disk memory zero; do
    (head -c 1 $device | wc -c) 2>&1 || true
    (test ! -e $device || : >> $device) 2>&1 || true
done
"#;

#[rstest::rstest]
#[case::locks(
    &json!({"capabilities": {"add": ["LINUX_IMMUTABLE"]}}),
    "0\n7\nCapEff:\t0000000000000400\n"
)]
#[case::no_new_privileges(
    &json!({"allowPrivilegeEscalation": false}),
    "4711\n4711\nCapEff:\t0000000000000000\n"
)]
#[tokio::test]
async fn h13_files_that_give_power_are_as_in_a_plain_container_and_stay(
    #[case] security_context: &Value,
    #[case] expected: &str,
) {
    in_namespace("power", async |ns| {
        harmless(&ns, async |_| {
            let template = beside_neighbour(&ns, &json!({"securityContext": security_context})).await?;
            let device = "'disk' for reading: Operation not permitted";
            compare(&ns, template, &[expected, device]).await
        })
        .await
    })
    .await;
}

/// The root of such a pod cannot make devices.
#[tokio::test]
async fn h13_h20_files_that_give_power_to_own_users_are_as_in_a_plain_container_and_stay() {
    in_namespace("power-own-users", async |ns| {
        if !has_own_users(&ns).await? {
            return Ok(());
        }
        harmless(&ns, async |_| {
            let template = with_own_users(beside_neighbour(&ns, &json!({})).await?);
            let expected = "0\n7\nCapEff:\t0000000000000400\n";
            let device = "'disk' for reading: No such file";
            compare(&ns, template, &[expected, device]).await
        })
        .await
    })
    .await;
}

/// Makes the files in both and uses them, and again after a stop.
async fn compare(ns: &Namespace, template: Value, expected: &[&str]) -> Result<()> {
    create_plain(ns, "plain", &template).await?;
    create(ns, "kept", true, template).await?;
    ns.pod_ready("plain").await?;
    running(ns, "kept").await?;
    let mut seen = Vec::new();
    for pod in ["plain", "kept"] {
        let made = ns.sh(pod, "main", &format!("{{ {MAKE} }} 2>&1")).await?;
        seen.push((made, ns.sh(pod, "main", USE).await?));
    }
    let (plain, kept) = (&seen[0], &seen[1]);
    ensure!(plain == kept, "plain pod: {plain:#?}\nours: {kept:#?}");
    // Equality is not enough, because both could be equally restricted.
    for words in expected {
        ensure!(kept.1.contains(words), "{words:?}: {kept:#?}");
    }
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    let again = ns.sh("kept", "main", USE).await?;
    ensure!(kept.1 == again, "before: {}\nafter: {again}", kept.1);
    Ok(())
}
