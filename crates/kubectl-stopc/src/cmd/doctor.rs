//! `doctor`: whether the installation works, and a bundle for a report of a problem.

mod bundle;
mod checks;
mod facts;

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use crate::explain;
use crate::failure::Failure;
use crate::session::Session;
use crate::table::{Row, Tone, render};

use checks::{Finding, Level};
use facts::Facts;

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc doctor\n  kubectl stopc doctor -n team --bundle report.yaml"
)]
pub struct DoctorArgs {
    /// Writes a file for a report of a problem: findings, objects, events and logs of the product.
    /// It has no Secrets, environment variables, commands or annotations of users.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
}

/// `doctor`
///
/// # Errors
/// If something does not work, or the bundle cannot be written.
pub async fn run(session: &mut Session, args: &DoctorArgs) -> Result<(), Failure> {
    session.screen.step("asking the API server");
    // Without an API server, all checks would say the same.
    if let Err(error) = session.client.apiserver_version().await {
        session.screen.clear();
        return Err(explain::request("check the installation", &error));
    }
    let facts = Facts::read(session).await;
    let findings = checks::all(&facts, Timestamp::now());
    session.screen.clear();
    let text = text(&findings);
    session.screen.print(&text);
    if let Some(path) = &args.bundle {
        session.screen.step("collecting the bundle");
        let bundle = bundle::collect(session, &findings).await?;
        write(path, &bundle)?;
        let line = format!("wrote {}; look through it before you publish it", path.display());
        session.screen.note(&line);
    }
    let failed = findings.iter().filter(|finding| finding.level == Level::Failed);
    match failed.count() {
        0 => Ok(()),
        1 => Err(Failure::failed("1 check failed")),
        count => Err(Failure::failed(format!("{count} checks failed"))),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

/// The findings as a table.
fn text(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| Row {
            cells: vec![
                finding.level.word().to_owned(),
                finding.check.to_owned(),
                match &finding.next {
                    Some(next) => format!("{}; {next}", finding.text),
                    None => finding.text.clone(),
                },
            ],
            tone: match finding.level {
                Level::Ok => Tone::Good,
                Level::Unknown => Tone::Plain,
                Level::Warning => Tone::Attention,
                Level::Failed => Tone::Bad,
            },
        })
        .collect();
    render(&["RESULT", "CHECK", "DETAILS"], &rows)
}
