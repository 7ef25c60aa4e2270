/*!
`pack` and `unpack`: copy files from and to the container that this runs in.

The plugin executes them in the consumer's main container, as its user. So the kernel decides what
may be read and written, as for every process there. The stream goes over standard output or input,
and notes go to standard error.
*/

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use file_copy::pack::{Source, pack};
use file_copy::unpack::{Keep, Target, unpack};
use file_copy::{Tally, Watch};
use kept_files::copy::{NOTE, VERSION, done};
use kept_files::path::unescape;

use crate::{Failure, container_log, run};

struct Notes;

impl Watch for Notes {
    fn progress(&mut self, _: Tally) {}

    fn note(&mut self, text: String) {
        container_log::print(format_args!("{NOTE}{text}"));
    }

    fn is_stopped(&self) -> bool {
        false
    }
}

/// `pack VERSION PATH`
pub(crate) fn pack_path(args: &[OsString]) -> Result<(), Failure> {
    let [version, path] = args else {
        return crate::usage();
    };
    require(version)?;
    let source = Source::open(&path_of(path)?).map_err(Failure::wrapper)?;
    let out = io::stdout().lock();
    pack(source, out, &mut Notes).map(drop).map_err(Failure::wrapper)
}

/// `unpack VERSION keep|leave PATH [BASE]`
///
/// Whatever fails, the input is read to its end. The kubelet and the API server may never report
/// the end of an exec whose input is not read, and then `kubectl exec` hangs. The sender ends its
/// stream when it reads the reason.
pub(crate) fn unpack_path(args: &[OsString]) -> Result<(), Failure> {
    unpack_input(args).map_err(|failure| {
        if let Some(line) = failure.line() {
            container_log::write(&line);
        }
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        Failure::Reported
    })
}

fn unpack_input(args: &[OsString]) -> Result<(), Failure> {
    let (version, keep, path, base) = match args {
        [version, keep, path] => (version, keep, path, None),
        [version, keep, path, base] => (version, keep, path, Some(path_of(base)?)),
        _ => return crate::usage(),
    };
    require(version)?;
    let keep = keep == "keep";
    let keep = Keep {
        owners: keep && rustix::process::geteuid().is_root(),
        modes: keep,
        set_id: keep,
        special: true,
    };
    let base = base.map(|base| base.into_os_string().into_vec());
    let target = Target::open(&path_of(path)?, base.as_deref()).map_err(Failure::wrapper)?;
    let tally = unpack(target, io::stdin().lock(), keep, &mut Notes).map_err(Failure::wrapper)?;
    // If it does not arrive, the plugin reports a failure.
    let _ = writeln!(io::stdout(), "{}", done(tally.files, tally.bytes));
    Ok(())
}

/// The files are those of the kept filesystem, or none.
fn require(version: &OsStr) -> Result<(), Failure> {
    if version != VERSION {
        return crate::usage();
    }
    run::require_kept_root()
}

fn path_of(text: &OsStr) -> Result<PathBuf, Failure> {
    let path = unescape(&text.to_string_lossy()).map_err(Failure::wrapper)?;
    Ok(OsString::from_vec(path).into())
}
