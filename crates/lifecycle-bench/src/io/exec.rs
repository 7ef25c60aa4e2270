//! Runs of the program in a container.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use io_load::Case;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::measured::quantile;

/// Path of the program in the images.
const PROGRAM: &str = "/io-load";

/// Runs a case in the container of a pod. Returns the nanoseconds of one operation: the median of
/// the times that the program took.
///
/// # Errors
/// If the program fails, does not end within the limit, or prints something else.
pub(super) async fn run(pods: &Api<Pod>, pod: &str, case: Case, round: u32, limit: Duration) -> Result<f64> {
    let command = vec![PROGRAM.to_owned(), case.name().to_owned(), round.to_string()];
    let what = format!("{} in pod {pod}", command.join(" "));
    let output = timeout(limit, output(pods, pod, command)).await;
    let output = output.with_context(|| format!("{what} did not end within {} s", limit.as_secs()))?;
    let output = output.with_context(|| what.clone())?;
    let times = parse(case, &output).with_context(|| what.clone())?;
    Ok(quantile(&times, 50))
}

/// The standard output of a command that succeeds.
async fn output(pods: &Api<Pod>, pod: &str, command: Vec<String>) -> Result<String> {
    let params = AttachParams::default().container("main").stderr(true);
    let mut process = pods.exec(pod, command, &params).await?;
    let status = process.take_status().context("exec without a status")?;
    let mut stdout = process.stdout().context("exec without standard output")?;
    let mut stderr = process.stderr().context("exec without standard error")?;
    let (mut out, mut err) = (String::new(), String::new());
    tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err))?;
    let status = status.await.context("exec ended without a status")?;
    process.join().await?;
    if status.status.as_deref() == Some("Success") {
        return Ok(out);
    }
    bail!("{} {}", status.message.unwrap_or_default(), err.trim())
}

/// Nanoseconds of one operation, for each line.
fn parse(case: Case, output: &str) -> Result<Vec<f64>> {
    let amount = case.amount();
    let lines = output.lines().map(|line| {
        let numbers = line.split_once(' ');
        let (operations, nanoseconds) = numbers.with_context(|| format!("unexpected line {line:?}"))?;
        let operations: u32 = operations
            .parse()
            .with_context(|| format!("unexpected line {line:?}"))?;
        let nanoseconds: f64 = nanoseconds
            .parse()
            .with_context(|| format!("unexpected line {line:?}"))?;
        ensure!(
            operations == amount.operations,
            "{operations} operations and not {}: the image has another version of the program",
            amount.operations
        );
        Ok(nanoseconds / f64::from(operations))
    });
    let times: Vec<_> = lines.collect::<Result<_>>()?;
    ensure!(
        times.len() == amount.repeats as usize,
        "{} times and not {}: {output:?}",
        times.len(),
        amount.repeats
    );
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_operations_and_their_time() {
        let times = parse(Case::CopyUpSmall, "32 640\n").unwrap();
        assert!((times[0] - 20.0).abs() < f64::EPSILON, "{times:?}");
        for wrong in ["", "32 640\n32 640\n", "31 640\n", "32\n", "32 fast\n"] {
            parse(Case::CopyUpSmall, wrong).unwrap_err();
        }
    }
}
