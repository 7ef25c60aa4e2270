//! Which variables of the environment switch traces on, and where to.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use opentelemetry_sdk::trace::Sampler;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// Time limit of an export in milliseconds, unless the environment has another one. The same as
/// OpenTelemetry's.
const TIMEOUT: u64 = 10_000;
/// Path of the collector for spans (OTLP/HTTP).
const PATH: &str = "/v1/traces";

/// Where spans are sent, and which.
#[derive(Clone, Debug)]
pub struct Traces {
    endpoint: Uri,
    pub(crate) timeout: Duration,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) sampler: Sampler,
}

/// A variable of the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A variable has a value that this program does not support.
    #[error("{variable}={value}: must be {expected}")]
    Value {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// Traces are on, and there is no collector.
    #[error(
        "OTEL_TRACES_EXPORTER=otlp: OTEL_EXPORTER_OTLP_ENDPOINT must be the collector, such as http://collector:4318"
    )]
    NoEndpoint,
    /// A collector with TLS, and nothing to trust it by.
    #[error(
        "{0}: a collector with https needs OTEL_EXPORTER_OTLP_CERTIFICATE, a PEM file with its certificate authority"
    )]
    NoCertificate(Uri),
    /// The certificates cannot be read.
    #[error("{variable}={}: cannot read certificates from this PEM file", path.display())]
    Certificate {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: pem::Error,
    },
    /// The exporter cannot be started.
    #[error("the exporter of traces cannot be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A variable that is set to something, with its name.
type Variable = Option<(&'static str, String)>;

// === impl Traces ===

impl Traces {
    /// Reads the variables of the OpenTelemetry specification. `None` unless
    /// `OTEL_TRACES_EXPORTER` is `otlp` and `OTEL_SDK_DISABLED` is not `true`.
    ///
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `..._PROTOCOL`, `..._TIMEOUT` and `..._CERTIFICATE`, and the
    /// same with `_TRACES_`, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` are read here.
    /// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME` and
    /// `OTEL_RESOURCE_ATTRIBUTES` are read from the process's environment.
    ///
    /// # Errors
    /// When traces are on, and a variable has a value that this program does not support.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TracesError> {
        let first = |names: &[&'static str]| -> Variable {
            let set = names.iter().map(|name| (*name, get(name).unwrap_or_default()));
            set.into_iter().find(|(_, value)| !value.is_empty())
        };
        match first(&["OTEL_TRACES_EXPORTER"]) {
            None => return Ok(None),
            Some((_, value)) if value == "none" => return Ok(None),
            Some((_, value)) if value == "otlp" => {}
            other => return Err(unsupported(other, "otlp or none")),
        }
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match first(&[
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ]) {
            None => {}
            Some((_, value)) if value == "http/protobuf" => {}
            other => return Err(unsupported(other, "http/protobuf (port 4318 of a collector)")),
        }
        let endpoint = endpoint(
            first(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]),
            first(&["OTEL_EXPORTER_OTLP_ENDPOINT"]),
        )?;
        let certificate = first(&[
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ]);
        let authorities = match certificate {
            Some((variable, path)) => authorities(variable, path.into())?,
            None if endpoint.scheme_str() == Some("https") => {
                return Err(TracesError::NoCertificate(endpoint));
            }
            None => Vec::new(),
        };
        let timeout = first(&["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]);
        Ok(Some(Self {
            endpoint,
            timeout: Duration::from_millis(parsed(timeout, "a number of milliseconds")?.unwrap_or(TIMEOUT)),
            authorities,
            sampler: sampler(
                first(&["OTEL_TRACES_SAMPLER"]),
                &first(&["OTEL_TRACES_SAMPLER_ARG"]),
            )?,
        }))
    }

    /// Where spans are sent.
    pub fn endpoint(&self) -> &Uri {
        &self.endpoint
    }
}

fn unsupported(variable: Variable, expected: &'static str) -> TracesError {
    let (variable, value) = variable.unwrap_or_default();
    TracesError::Value {
        variable,
        value,
        expected,
    }
}

fn parsed<T: std::str::FromStr>(
    variable: Variable,
    expected: &'static str,
) -> Result<Option<T>, TracesError> {
    let Some((_, value)) = &variable else {
        return Ok(None);
    };
    match value.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(unsupported(variable, expected)),
    }
}

/// The endpoint of spans, as it is, or else that of all signals with the path of spans
/// (OpenTelemetry, "Endpoint URLs for OTLP/HTTP").
fn endpoint(of_spans: Variable, of_all: Variable) -> Result<Uri, TracesError> {
    let with_path = |text: &str| format!("{}{PATH}", text.trim_end_matches('/'));
    let path = of_all.as_ref().map(|(_, text)| with_path(text));
    let url = of_spans.as_ref().map(|(_, text)| text.clone()).or(path);
    let url = url.ok_or(TracesError::NoEndpoint)?.parse::<Uri>().ok();
    let url = url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
    url.ok_or_else(|| unsupported(of_spans.or(of_all), "a URL such as http://collector:4318"))
}

fn authorities(variable: &'static str, path: PathBuf) -> Result<Vec<CertificateDer<'static>>, TracesError> {
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(pem::Error::NoItemsFound),
        Err(error) => Err(error),
    }
    .map_err(|error| TracesError::Certificate {
        variable,
        path,
        error,
    })
}

/// The sampler of the specification's names. All spans without a parent are decided on by it: a
/// caller's decision is not used.
fn sampler(name: Variable, argument: &Variable) -> Result<Sampler, TracesError> {
    let ratio = || {
        let ratio = parsed::<f64>(argument.clone(), "a number from 0 to 1")?.unwrap_or(1.0);
        if (0.0..=1.0).contains(&ratio) {
            Ok(Sampler::TraceIdRatioBased(ratio))
        } else {
            Err(unsupported(argument.clone(), "a number from 0 to 1"))
        }
    };
    let of_children = |root| Sampler::ParentBased(Box::new(root));
    match name.as_ref().map(|(_, value)| value.as_str()) {
        None | Some("parentbased_always_on") => Ok(of_children(Sampler::AlwaysOn)),
        Some("parentbased_always_off") => Ok(of_children(Sampler::AlwaysOff)),
        Some("parentbased_traceidratio") => Ok(of_children(ratio()?)),
        Some("always_on") => Ok(Sampler::AlwaysOn),
        Some("always_off") => Ok(Sampler::AlwaysOff),
        Some("traceidratio") => ratio(),
        Some(_) => Err(unsupported(
            name,
            "always_on, always_off, traceidratio, or one of them after parentbased_",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Traces>, TracesError> {
        let on = [
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ];
        let variables: HashMap<_, _> = on.iter().chain(variables).copied().collect();
        Traces::from_variables(|name| variables.get(name).map(|&value| value.to_owned()))
    }

    #[test]
    fn traces_are_off_unless_the_exporter_is_otlp() {
        let endpoint =
            |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://c:4318".to_owned());
        assert!(Traces::from_variables(endpoint).unwrap().is_none());
        assert!(Traces::from_variables(|_| None).unwrap().is_none());
        for off in [
            ("OTEL_TRACES_EXPORTER", ""),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_SDK_DISABLED", "true"),
        ] {
            assert!(read(&[off]).unwrap().is_none(), "{off:?}");
        }
    }

    #[test]
    fn variables_of_traces_come_before_those_of_all_signals() {
        let endpoint = |variables: &[(&str, &str)]| read(variables).unwrap().unwrap().endpoint.to_string();
        assert_eq!(endpoint(&[]), "http://collector:4318/v1/traces");
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/");
        assert_eq!(endpoint(&[all]), "http://collector:4318/otlp/v1/traces");
        let spans = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/x");
        assert_eq!(endpoint(&[spans]), "http://other:4318/x");
        let timeouts = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
        ];
        let traces = read(&timeouts).unwrap().unwrap();
        assert_eq!(traces.timeout, Duration::from_millis(2));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_variable() {
        for (variable, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///socket"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err().to_string();
            let named = format!("{variable}={value}: ");
            assert!(error.starts_with(&named), "{error}");
        }
        for ratio in ["1.5", "-1", "NaN", "half"] {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            let error = read(&[sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("OTEL_TRACES_SAMPLER_ARG={ratio}: must be a number from 0 to 1")
            );
        }
        let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318");
        assert!(matches!(read(&[https]), Err(TracesError::NoCertificate(_))));
        let nowhere = ("OTEL_EXPORTER_OTLP_ENDPOINT", "");
        assert!(matches!(read(&[nowhere]), Err(TracesError::NoEndpoint)));
    }
}
