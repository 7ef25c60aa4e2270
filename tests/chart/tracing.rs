//! Traces: off by default, and for both programs when the value switches them on.

use serde_json::json;
use telemetry::Traces;

use crate::{Objects, container, refused, render, variable};

const ENDPOINT: &str = "tracing.endpoint=http://collector.observability:4318";

fn programs(objects: &Objects) -> [&serde_json::Value; 2] {
    [objects.controller(), objects.agent()]
}

#[test]
fn traces_are_off_by_default_and_leave_nothing_in_the_pods() {
    for values in [&[][..], &[ENDPOINT, "tracing.caSecret=ca"]] {
        let objects = render(values);
        for template in programs(&objects) {
            let variables = container(template)["env"].as_array().unwrap();
            let names = variables
                .iter()
                .map(|variable| variable["name"].as_str().unwrap());
            let of_traces: Vec<_> = names.filter(|name| name.starts_with("OTEL_")).collect();
            assert!(of_traces.is_empty(), "{of_traces:?}");
            assert!(template["spec"]["volumes"].is_null());
            assert!(container(template)["volumeMounts"].is_null());
        }
    }
}

/// The programs read the variables that the chart renders.
#[test]
fn the_values_configure_both_programs() {
    let objects = render(&["tracing.enabled=true", ENDPOINT, "tracing.samplingRatio=0.25"]);
    for template in programs(&objects) {
        let traces = Traces::from_variables(|name| {
            let rendered = name != "OTEL_SDK_DISABLED" && name.starts_with("OTEL_");
            rendered
                .then(|| variable(template, name).map(str::to_owned))
                .flatten()
        });
        let traces = traces.unwrap().unwrap();
        let endpoint = "http://collector.observability:4318/v1/traces";
        assert_eq!(traces.endpoint().to_string(), endpoint);
        assert_eq!(variable(template, "OTEL_TRACES_SAMPLER_ARG"), Some("0.25"));
        let resource = variable(template, "OTEL_RESOURCE_ATTRIBUTES").unwrap();
        assert!(
            resource.starts_with("k8s.namespace.name=own-namespace,"),
            "{resource}"
        );
        assert!(template["spec"]["volumes"].is_null());
    }
}

#[test]
fn a_collector_with_https_is_trusted_by_the_authority_of_a_secret() {
    let https = "tracing.endpoint=https://collector:4318";
    let objects = render(&["tracing.enabled=true", https, "tracing.caSecret=collector-ca"]);
    for template in programs(&objects) {
        let path = variable(template, "OTEL_EXPORTER_OTLP_CERTIFICATE").unwrap();
        let mount = &container(template)["volumeMounts"][0];
        assert_eq!(path, format!("{}/ca.crt", mount["mountPath"].as_str().unwrap()));
        let volume = &template["spec"]["volumes"][0];
        assert_eq!(
            (&volume["name"], &mount["readOnly"]),
            (&mount["name"], &json!(true))
        );
        assert_eq!(volume["secret"]["secretName"], "collector-ca");
    }
    assert!(refused(&["tracing.enabled=true", https]).contains("tracing.caSecret: name"));
}

#[test]
fn values_that_cannot_work_are_refused() {
    assert!(refused(&["tracing.enabled=true"]).contains("tracing.endpoint: name"));
    for (value, named) in [
        ("tracing.endpoint=collector:4318", "endpoint"),
        ("tracing.samplingRatio=1.5", "samplingRatio"),
        ("tracing.samplingRatio=-1", "samplingRatio"),
        ("tracing.ratio=1", "ratio"),
    ] {
        let message = refused(&["tracing.enabled=true", ENDPOINT, value]);
        assert!(message.contains(named), "{value}: {message}");
    }
}

/// `--set` makes a text of a number with a point.
#[test]
fn the_ratio_may_be_a_number_or_a_text() {
    for ratio in ["0", "1", "0.05", "1.0"] {
        let value = format!("tracing.samplingRatio={ratio}");
        let objects = render(&["tracing.enabled=true", ENDPOINT, &value]);
        for template in programs(&objects) {
            assert_eq!(variable(template, "OTEL_TRACES_SAMPLER_ARG"), Some(ratio));
        }
    }
}

/// What comes last wins: an administrator can set every variable of the specification.
#[test]
fn variables_of_the_user_come_after_those_of_traces() {
    let objects = render(&[
        "tracing.enabled=true",
        ENDPOINT,
        "agent.extraEnv[0].name=OTEL_EXPORTER_OTLP_HEADERS",
        "agent.extraEnv[0].value=a=b",
    ]);
    let variables = container(objects.agent())["env"].as_array().unwrap();
    assert_eq!(variables.last().unwrap()["name"], "OTEL_EXPORTER_OTLP_HEADERS");
}
