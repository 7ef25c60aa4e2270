/*!
Resolves a user the way containerd does for a pod of the same image.

That is: of an image's USER only the part before the colon counts (the group is never used in
Kubernetes); a number is a uid, and its primary group is that of the first entry in /etc/passwd with
this uid, else 0; a name must be in /etc/passwd; additional groups are those in /etc/group that list
the user's name. (containerd 1.7 `oci.WithUser`, `WithAdditionalGIDs`, CRI `getUserFromImage`.)

One difference, on purpose: containerd reads garbage as 0 and takes a number out of range for a
name; the agent refuses both. A mistake in a file does not make a process root.
*/

use std::collections::HashSet;

use stoppablecontainer_api::Identity;

/// Largest uid or gid that runtimes take.
const MAX_ID: i64 = i32::MAX as i64;
/// Most groups that a process may have (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// A user that cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Not in /etc/passwd.
    #[error("user {0:?} is not in the image's /etc/passwd")]
    Unknown(String),
    /// A number that is not a valid uid.
    #[error("user {0:?} is not between 0 and {MAX_ID}")]
    OutOfRange(String),
    /// More groups than a process can have.
    #[error("user {0:?} is in more than {MAX_GROUPS} groups")]
    TooManyGroups(String),
}

/// What was asked for.
enum Wanted<'a> {
    Uid(i64),
    Name(&'a str),
}

/// Resolves `user` (a name or number, with an optional `:group`) in these files.
pub fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let wanted = match user.split(':').next().unwrap_or_default() {
        "" => Wanted::Uid(0),
        name => parse(name)?,
    };
    let mut entries = entries(passwd);
    let (uid, gid, name) = match wanted {
        Wanted::Uid(uid) => match entries.find(|e| e.uid == uid) {
            Some(entry) => (uid, entry.gid, Some(entry.name)),
            None => (uid, 0, None),
        },
        Wanted::Name(name) => match entries.find(|e| e.name == name.as_bytes()) {
            Some(entry) => (entry.uid, entry.gid, Some(entry.name)),
            None => return Err(UserError::Unknown(name.to_owned())),
        },
    };
    let mut supplemental_groups = Vec::new();
    // An image's author decides how many there are.
    let mut known = HashSet::from([gid]);
    for group in name.into_iter().flat_map(|name| groups_of(group, name)) {
        if known.insert(group) {
            supplemental_groups.push(group);
        }
        if supplemental_groups.len() > MAX_GROUPS {
            return Err(UserError::TooManyGroups(user.to_owned()));
        }
    }
    Ok(Identity {
        user: user.to_owned(),
        uid,
        gid,
        supplemental_groups,
    })
}

/// A number as Go's `strconv.ParseInt` reads one, or else a name.
fn parse(name: &str) -> Result<Wanted<'_>, UserError> {
    let digits = name.strip_prefix(['+', '-']).unwrap_or(name);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Wanted::Name(name));
    }
    let uid = name.parse::<i64>().ok().filter(|uid| (0..=MAX_ID).contains(uid));
    uid.map(Wanted::Uid)
        .ok_or_else(|| UserError::OutOfRange(name.to_owned()))
}

struct Entry<'a> {
    name: &'a [u8],
    uid: i64,
    gid: i64,
}

fn entries(passwd: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some(Entry { name, uid, gid })
    })
}

/// Groups that list a user. A group of the user's own name is its private one and does not count.
fn groups_of<'a>(group: &'a [u8], user: &'a [u8]) -> impl Iterator<Item = i64> + 'a {
    lines(group).filter_map(move |line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        let listed = fields.next()?.split(|b| *b == b',').any(|member| member == user);
        (name != user && listed).then_some(gid)
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn id(field: &[u8]) -> Option<i64> {
    std::str::from_utf8(field)
        .ok()?
        .parse()
        .ok()
        .filter(|id| (0..=MAX_ID).contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\nevil:x:zero:0::/:\nshort:x:5\n\
        app:x:1000:1001::/home/app:/bin/sh\nagain:x:1000:7::/:\napp:x:9:9::/:\n1234:x:0:0::/:\nhuge:x:4294967296:0::/:";
    const GROUP: &[u8] =
        b"root:x:0:\nadm:x:4:root,app\napp:x:1001:app\nextra:x:2000:other,app,x\nbad:x:no:app\n\
        twice:x:2000:app\nprimary:x:1001:app\nnearly:x:3000:apple\nshort:x:8\n";

    fn who(user: &str) -> Result<(i64, i64, Vec<i64>), UserError> {
        resolve(user, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.supplemental_groups))
    }

    #[test]
    fn h11_users_are_those_of_the_unrewritten_pod() {
        let root = (0, 0, vec![4]);
        let app = (1000, 1001, vec![4, 2000]);
        for (user, expected) in [
            ("", root.clone()),
            ("0", root.clone()),
            ("+0", root.clone()),
            ("root", root),
            ("app", app.clone()),
            ("app:extra", app.clone()),
            ("1000", app.clone()),
            ("1000:2000", app),
            ("4242", (4242, 0, vec![])),
            // A name made of digits is a uid, not the entry of that name, which is root's.
            ("1234", (1234, 0, vec![])),
        ] {
            assert_eq!(who(user), Ok(expected), "{user:?}");
        }
    }

    #[test]
    fn h11_never_silently_root() {
        for user in [
            "-1",
            "2147483648",
            "4294967296",
            "4294967297",
            "99999999999999999999",
        ] {
            assert_eq!(who(user), Err(UserError::OutOfRange(user.to_owned())));
        }
        for user in [
            "nobody", "0x0", " 0", "evil", "short", "huge", "broken", "-", "1_000",
        ] {
            assert_eq!(who(user), Err(UserError::Unknown(user.to_owned())));
        }
    }

    #[test]
    fn h12_files_that_are_none() {
        for file in [&b""[..], b"\n\n\n", b"\0\xff\xfe", b":::::", b"root"] {
            assert_eq!(resolve("7", file, file).map(|i| (i.uid, i.gid)), Ok((7, 0)));
            assert!(resolve("root", file, file).is_err());
        }
    }

    /// A group file of this many groups, all of which list the user.
    fn groups(count: usize) -> Vec<u8> {
        let line = |gid| format!("g{gid}:x:{gid}:app\n");
        (1..=count).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn h12_four_thousand_groups() {
        let group = groups(4000);
        assert_eq!(
            resolve("app", PASSWD, &group).unwrap().supplemental_groups.len(),
            3999
        );
    }

    /// As many as a process may have, and one more.
    #[test]
    fn h12_as_many_groups_as_there_can_be_and_one_more() {
        let most = resolve("app", PASSWD, &groups(MAX_GROUPS + 1)).unwrap();
        assert_eq!(most.supplemental_groups.len(), MAX_GROUPS);
        let more = resolve("app", PASSWD, &groups(MAX_GROUPS + 2));
        assert_eq!(more, Err(UserError::TooManyGroups("app".to_owned())));
    }

    /// The largest file that is read, full of groups, of one group again and again, and of one
    /// line.
    #[test]
    fn h12_a_group_file_of_sixteen_mebibytes_comes_to_an_end() {
        const SIZE: usize = 16 << 20;
        let many = groups(SIZE / 20);
        assert_eq!(
            resolve("app", PASSWD, &many),
            Err(UserError::TooManyGroups("app".to_owned()))
        );
        let same = b"g:x:5:app\n".repeat(SIZE / 10);
        assert_eq!(resolve("app", PASSWD, &same).unwrap().supplemental_groups, [5]);
        let members = [&b"g:x:5:"[..], &b"a,".repeat(SIZE / 2), b"app"].concat();
        assert_eq!(resolve("app", PASSWD, &members).unwrap().supplemental_groups, [5]);
        let empty = b"::::\n".repeat(SIZE / 5);
        assert!(resolve("app", &empty, &empty).is_err());
    }

    /// Only regular files are read: a device may never end.
    #[test]
    fn h12_a_device_is_no_file_of_users() {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        let dev = openat(CWD, "/dev", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = rootfs::Root::new(dev);
        for device in ["zero", "null"] {
            let error = root.read(device.as_ref(), 16 << 20).unwrap_err();
            assert!(
                matches!(error.problem, rootfs::root::Problem::NotAFile),
                "{error}"
            );
        }
    }
}
