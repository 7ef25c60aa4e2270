//! An image's USER, /etc/passwd and /etc/group: an identity within the ids that runtimes take, or
//! an error; never root where nothing says root (H11, H12). The input is the three, separated by
//! NUL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use node_agent::image_input::resolve_user;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |b| *b == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (user, passwd, group) = (next(), next(), next());
    let Ok(user) = std::str::from_utf8(user) else {
        return;
    };
    let Ok(identity) = resolve_user(user, passwd, group) else {
        return;
    };
    let ids = [identity.uid, identity.gid];
    let ids = ids.iter().chain(&identity.supplemental_groups);
    assert!(
        ids.clone().all(|id| (0..=i64::from(i32::MAX)).contains(id)),
        "{identity:?}"
    );
    let name = user.split(':').next().unwrap_or_default();
    if identity.uid == 0 && !name.is_empty() && name.parse() != Ok(0_i64) {
        // A name: there is a line that gives it uid 0.
        let is_said = passwd.split(|b| *b == b'\n').any(|line| {
            let mut fields = line.trim_ascii().split(|b| *b == b':');
            fields.next() == Some(name.as_bytes())
                && fields
                    .nth(1)
                    .is_some_and(|uid| std::str::from_utf8(uid).map(str::parse) == Ok(Ok(0_i64)))
        });
        assert!(is_said, "{identity:?}");
    }
});
