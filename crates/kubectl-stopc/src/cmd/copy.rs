/*!
`cp`: copies files between this machine and the main container.

kubectl executes the wrapper in the container, which reads or writes there as the container's user,
and this program does the other side. So the image needs no tar.
*/

mod place;
mod transfer;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Args;
use file_copy::base_name;
use file_copy::pack::Source;
use file_copy::unpack::{Keep, Target};
use kept_files::copy::VERSION;
use kept_files::path::escape;

use self::place::Place;
use self::transfer::Work;
use super::flags::StartFlags;
use super::inside;
use crate::failure::Failure;
use crate::session::Session;

/// Arguments of `cp`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc cp ./site web:/srv/\n  kubectl stopc cp web:/var/log/app.log .\n  kubectl \
                  stopc cp team/web:/srv/. ./backup --start"
)]
pub struct CopyArgs {
    /// What to copy: a local path, or NAME:PATH or NAMESPACE/NAME:PATH in the container.
    #[arg(value_name = "SRC", value_hint = clap::ValueHint::AnyPath)]
    pub source: OsString,
    /// Where to. In a directory that exists the copy gets the name of SRC.
    #[arg(value_name = "DEST", value_hint = clap::ValueHint::AnyPath)]
    pub destination: OsString,
    /// Container of the pod: only the main one, whose files are kept.
    #[arg(short, long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Does not keep owners and modes.
    #[arg(long)]
    pub no_preserve: bool,
    /// A stopped container.
    #[command(flatten)]
    pub start: StartFlags,
}

/// `cp`
///
/// # Errors
/// If the container does not run, or not everything was copied.
pub async fn run(session: &mut Session, args: &CopyArgs) -> Result<(), Failure> {
    match (Place::parse(&args.source)?, Place::parse(&args.destination)?) {
        (
            Place::Local(source),
            Place::Inside {
                namespace,
                name,
                path,
            },
        ) => {
            // Before a container is started for it.
            let opened = Source::open(&source).map_err(|error| Failure::failed(error.to_string()))?;
            let keep = if args.no_preserve { "leave" } else { "keep" };
            let mut line = vec![
                "unpack".to_owned(),
                VERSION.to_owned(),
                keep.to_owned(),
                escape(&path),
            ];
            line.extend(base_name(source.as_os_str().as_bytes()).map(escape));
            copy(session, args, namespace, name, &line, Work::Send(opened)).await
        }
        (
            Place::Inside {
                namespace,
                name,
                path,
            },
            Place::Local(destination),
        ) => {
            let target = target(&destination, &path)?;
            let line = ["pack".to_owned(), VERSION.to_owned(), escape(&path)];
            let keep = Keep {
                owners: !args.no_preserve && transfer::is_root(),
                modes: !args.no_preserve,
                // An image must not leave a program here that runs as another user.
                set_id: false,
                special: false,
            };
            copy(session, args, namespace, name, &line, Work::Receive(target, keep)).await
        }
        (Place::Local(_), Place::Local(_)) => Err(Failure::usage(
            "neither SRC nor DEST is in a container; write NAME:PATH for the one that is",
        )),
        _ => Err(Failure::usage(
            "SRC and DEST are both in a container; copy to this machine first (write ./ before a local path with a colon)",
        )),
    }
}

fn target(destination: &Path, path: &[u8]) -> Result<Target, Failure> {
    Target::open(destination, base_name(path)).map_err(|error| Failure::failed(error.to_string()))
}

async fn copy(
    session: &mut Session,
    args: &CopyArgs,
    namespace: Option<String>,
    name: String,
    line: &[String],
    work: Work,
) -> Result<(), Failure> {
    if let Some(namespace) = namespace {
        session.namespace = namespace;
    }
    let object = inside::get(session, &name).await?;
    let main = &object.spec.template.main().name;
    if let Some(other) = args.container.as_ref().filter(|name| *name != main) {
        return Err(Failure::usage(format!(
            "{other} is not the main container ({main}), and only that one has the program for this; use kubectl cp, \
             which needs tar in the image"
        )));
    }
    let object = inside::running(session, &name, args.start).await?;
    transfer::run(session, &object, line, work).await
}
