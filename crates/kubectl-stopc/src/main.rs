//! The binary `kubectl-stopc`: everything is in the library.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::env::CompleteEnv;
use kubectl_stopc::args::Args;
use kubectl_stopc::cmd::completion::{COMPLETERS, VARIABLE};
use kubectl_stopc::completion;
use kubectl_stopc::screen::Screen;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("error: another TLS provider is installed");
        return ExitCode::FAILURE;
    }
    if let Some(words) = completed_words() {
        println!("{}", completion::complete(words));
        return ExitCode::SUCCESS;
    }
    CompleteEnv::with_factory(Args::command).var(VARIABLE).complete();
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(kubectl_stopc::run(&args, Screen::of_process())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The words to complete, if kubectl asks for completions: by the program's name, or from a script
/// by a first argument.
fn completed_words() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    let program = words.next()?;
    let by_name = Path::new(&program)
        .file_stem()
        .is_some_and(|name| COMPLETERS.iter().any(|completer| name == *completer));
    let words: Vec<_> = words.collect();
    if by_name {
        return Some(words);
    }
    let (first, rest) = words.split_first()?;
    (first == "__complete").then(|| rest.to_vec())
}
