/*!
The program of the images of `cargo xtask bench io`. As the container's command it waits, and
`io-load CASE ROUND` prints a line for each time that it took: the number of operations, and the
nanoseconds of all of them.
*/

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use io_load::{Case, Place, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["wait"] => wait(),
        ["true"] => Ok(()),
        [case, round] => measure(case, round),
        _ => Err("usage: io-load [wait | true | CASE ROUND]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The first process of a container cannot end at SIGTERM without a handler, so the runtime kills
/// it after the grace period.
fn wait() -> ! {
    loop {
        thread::park();
    }
}

fn measure(case: &str, round: &str) -> Result<(), String> {
    let case = Case::named(case).ok_or_else(|| {
        let names: Vec<_> = Case::ALL.iter().map(|case| case.name()).collect();
        format!("unknown case {case}; the cases are {}", names.join(", "))
    })?;
    let round = round.parse().map_err(|error| format!("round {round}: {error}"))?;
    let place = Place {
        image: PathBuf::from("/"),
        work: PathBuf::from("/io-work"),
        program: std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?,
    };
    let all = run(case, &place, case.amount(), round).map_err(|error| error.to_string())?;
    for timed in all {
        println!("{} {}", timed.operations, timed.elapsed.as_nanos());
    }
    Ok(())
}
