/*!
What the engine does on kernels that lack something. The tests run on one kernel at a time;
`cargo xtask test rootfs --kernel` runs them on others.
*/

use std::fs;
use std::io::Write;

use rootfs::overlay::{LowerdirApi, OverlayError};
use rustix::io::Errno;

use crate::node::Node;
use crate::overlays;

/// All ways of telling layers, the newest first.
pub(crate) const LOWERDIR_APIS: [LowerdirApi; 3] =
    [LowerdirApi::Descriptors, LowerdirApi::Paths, LowerdirApi::Joined];

/// Whether the kernel has at least this version.
pub(crate) fn is(version: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next()) >= version
}

/// Whether the kernel knows this way of telling layers.
pub(crate) fn knows(api: LowerdirApi) -> bool {
    match api {
        LowerdirApi::Descriptors => is((6, 13)),
        LowerdirApi::Paths => is((6, 7)),
        LowerdirApi::Joined => true,
    }
}

/// Whether an option of an overlay may have a comma in it where fsconfig(2) sets it.
pub(crate) fn takes_commas() -> bool {
    is((6, 5))
}

/// An engine that had been tried on the newest kernel alone started nothing on others: their error
/// for a descriptor was not the one that it expected, so it did not try the older ways.
#[test]
fn i9_an_overlay_is_made_whatever_way_of_telling_layers_the_kernel_knows() {
    Node::with(|node| {
        let layers = ["top", "bottom"].map(|name| overlays::open(&node.layer(name, &[("file", Some(name))])));
        for api in LOWERDIR_APIS {
            let read = overlays::read_in(node, &layers, Some(api), "file");
            let said = match &read {
                Ok(_) => "ok".to_owned(),
                Err(OverlayError::System(step, errno)) => format!("{step}: {errno}"),
                Err(error) => error.to_string(),
            };
            tell(&format!("layers in the api {api:?}: {said}"));
            if knows(api) {
                assert_eq!(read.unwrap(), Some(b"top".to_vec()), "{api:?}");
                continue;
            }
            let error = read.unwrap_err();
            let expected = matches!(
                error,
                OverlayError::System("lowerdir+", Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP)
            );
            assert!(expected, "{api:?}: {error:?}");
        }
        let read = overlays::read_in(node, &layers, None, "file");
        assert_eq!(read.unwrap(), Some(b"top".to_vec()));
    });
}

/// Prints a line that the harness does not keep for itself: `cargo xtask test rootfs --kernel`
/// shows it.
pub(crate) fn tell(what: &str) {
    let line = format!("\nthis kernel: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
