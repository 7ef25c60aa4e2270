/*!
`kubectl stopc`: the commands for people who use StoppableContainers.

A command reads objects, decides with pure functions (`view`, `wait::verdict`, the modules of
`cmd`), changes objects, and waits with a watch. Texts are made by pure functions from objects and
flags.

`completion` answers the shell, `args` is the command line, `cmd` has a module for each command, and
`wait`, `confirm`, `select` and `session` are what the commands share. The modules below them do not
use a client.
*/

#![forbid(unsafe_code)]

pub mod args;
pub mod cmd;
pub mod completion;
pub mod confirm;
pub mod explain;
pub mod failure;
pub mod jsonpath;
pub mod names;
pub mod output;
pub mod screen;
pub mod select;
pub mod session;
pub mod table;
pub mod units;
pub mod view;
pub mod wait;

use args::{Args, Command};
use failure::Failure;
use screen::Screen;
use session::Session;

/// Runs a command with the cluster that its flags name.
///
/// # Errors
/// Why it did not do what it was asked to.
pub async fn run(args: &Args, mut screen: Screen) -> Result<(), Failure> {
    match &args.command {
        Command::Completion(completion) => return cmd::completion::run(&mut screen, completion),
        Command::Version(version) if version.client => {
            return cmd::version::print_client(version, &mut screen);
        }
        _ => {}
    }
    args.command.check()?;
    let mut session = args.connection.open(screen).await?;
    run_in(&mut session, &args.command).await
}

/// Runs a command in a session.
///
/// # Errors
/// As for [`run`].
pub async fn run_in(session: &mut Session, command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(args) => cmd::list::run(session, args).await,
        Command::Status(args) => cmd::status::run(session, args).await,
        Command::Create(args) => cmd::create::run(session, args).await,
        Command::Start(args) => cmd::power::start(session, args).await,
        Command::Stop(args) => cmd::power::stop(session, args).await,
        Command::Restart(args) => cmd::power::restart(session, args).await,
        Command::Wait(args) => cmd::wait::run(session, args).await,
        Command::Delete(args) => cmd::delete::run(session, args).await,
        Command::Reset(args) => cmd::recover::reset(session, args).await,
        Command::Accept(args) => cmd::recover::accept(session, args).await,
        Command::Exec(args) => cmd::inside::exec(session, args).await,
        Command::Shell(args) => cmd::inside::shell(session, args).await,
        Command::Attach(args) => cmd::inside::attach(session, args).await,
        Command::Logs(args) => cmd::inside::logs(session, args).await,
        Command::PortForward(args) => cmd::inside::port_forward(session, args).await,
        Command::Cp(args) => cmd::copy::run(session, args).await,
        Command::Resize(args) => cmd::resize::run(session, args).await,
        Command::Diff(args) => cmd::files::diff(session, args).await,
        Command::Du(args) => cmd::usage::du(session, args).await,
        Command::Top(args) => cmd::usage::top(session, args).await,
        Command::Doctor(args) => cmd::doctor::run(session, args).await,
        Command::Version(args) => cmd::version::run(session, args).await,
        Command::Completion(args) => cmd::completion::run(&mut session.screen, args),
    }
}
