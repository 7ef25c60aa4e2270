//! Metrics of the operator and the API server, as numbers by name and labels.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Verbs that change something.
const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

/// Values by the text of their name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(BTreeMap<String, f64>);

/// The operator's metrics, without the prefix of their names.
pub async fn operator_sample(admin: &str) -> Result<Sample> {
    Ok(Sample::parse(
        &get(admin, "/metrics").await?,
        "stoppablecontainer_",
    ))
}

/// The API server's metrics.
pub async fn instant_text(client: &Client) -> Result<Sample> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client
        .request_text(request)
        .await
        .context("the API server's metrics")?;
    Ok(Sample::parse(&text, ""))
}

/// The body of a plain HTTP answer.
///
/// # Errors
/// If it is not 200.
pub async fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{path}: {status}");
    Ok(body.to_owned())
}

// === impl Sample ===

impl Sample {
    /// Reads what a program serves, without this prefix of the names. Others are left out.
    pub fn parse(text: &str, prefix: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.strip_prefix(prefix)?.to_owned(), value.parse().ok()?))
        });
        Self(values.collect())
    }

    /// What was added since an earlier sample of the same process.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let known = |name: &String| before.0.get(name).copied().unwrap_or_default();
        let added = self.0.iter().map(|(name, now)| (name.clone(), now - known(name)));
        Self(added.collect())
    }

    /// The sum of the values of a metric with these labels.
    pub fn value(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(metric, labels).map(|(_, value)| value).sum()
    }

    /// Calls that write, except for leases, by verb and resource.
    pub fn writes_by(&self) -> BTreeMap<String, f64> {
        let mut writes = BTreeMap::new();
        for (name, value) in self.of("api_requests_total", &[]) {
            let (verb, resource) = (label(name, "verb"), label(name, "resource"));
            if WRITES.contains(&verb) && resource != "leases" && value > 0.0 {
                *writes.entry(format!("{verb} {resource}")).or_default() += value;
            }
        }
        writes
    }

    /// Their sum.
    pub fn writes(&self) -> f64 {
        self.writes_by().values().sum()
    }

    /// The share of the calls that ended in a conflict, of all that write.
    pub fn conflicts(&self) -> f64 {
        let conflicts = self.value("api_requests_total", &[("code", "409")]);
        let writes = self.writes();
        if writes > 0.0 { conflicts / writes } else { 0.0 }
    }

    /// The upper bound of the bucket of a histogram that has the quantile, in seconds; infinite
    /// above the last one.
    pub fn quantile(&self, histogram: &str, quantile: f64) -> f64 {
        let mut buckets = BTreeMap::new();
        for (name, value) in self.of(&format!("{histogram}_bucket"), &[]) {
            let bound = label(name, "le").parse().unwrap_or(f64::INFINITY);
            *buckets.entry(ordered(bound)).or_insert(0.0) += value;
        }
        let total = buckets
            .last_key_value()
            .map(|(_, total)| *total)
            .unwrap_or_default();
        let mut reached = buckets.iter().filter(|(_, count)| **count >= quantile * total);
        reached.next().map_or(0.0, |(bound, _)| f64::from_bits(*bound))
    }

    /// The values of a metric with these labels.
    pub fn of<'a>(&'a self, metric: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = (&'a str, f64)> {
        let values = self.0.iter().filter(move |(name, _)| {
            let known = name.split('{').next() == Some(metric);
            known && labels.iter().all(|(key, value)| label(name, key) == *value)
        });
        let values: Vec<_> = values.map(|(name, value)| (name.as_str(), *value)).collect();
        values.into_iter()
    }
}

/// The value of a label in the text of a sample. Values of the metrics that are read here contain
/// neither quotes nor commas.
pub fn label<'a>(name: &'a str, key: &str) -> &'a str {
    let labels = name
        .split_once('{')
        .map(|(_, labels)| labels.trim_end_matches('}'));
    let mut labels = labels.unwrap_or_default().split(',');
    let value = labels.find_map(|label| label.split_once('=').filter(|(found, _)| *found == key));
    value
        .map(|(_, value)| value.trim_matches('"'))
        .unwrap_or_default()
}

/// Bits of a number that is not negative; they have its order.
fn ordered(number: f64) -> u64 {
    number.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y
stoppablecontainer_api_requests_total{verb=\"patch\",resource=\"pods\",code=\"200\"} 5
stoppablecontainer_api_requests_total{verb=\"patch\",resource=\"pods\",code=\"409\"} 1
stoppablecontainer_api_requests_total{verb=\"patch\",resource=\"leases\",code=\"200\"} 9
stoppablecontainer_api_requests_total{verb=\"get\",resource=\"pods\",code=\"200\"} 9
stoppablecontainer_r_bucket{le=\"0.1\",kind=\"a\"} 90
stoppablecontainer_r_bucket{le=\"1.0\",kind=\"a\"} 98
stoppablecontainer_r_bucket{le=\"+Inf\",kind=\"a\"} 100
";

    #[test]
    fn writes_are_counted_without_leases_and_reads() {
        let sample = Sample::parse(TEXT, "stoppablecontainer_");
        assert!((sample.writes() - 6.0).abs() < 1e-9);
        assert!((sample.conflicts() - 1.0 / 6.0).abs() < 1e-9);
        assert!((sample.since(&sample).writes()).abs() < 1e-9);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let sample = Sample::parse(TEXT, "stoppablecontainer_");
        let found = [0.5, 0.95, 0.99].map(|quantile| sample.quantile("r", quantile));
        assert_eq!(found.map(|bound| bound.to_string()), ["0.1", "1", "inf"]);
    }
}
