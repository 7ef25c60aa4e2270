/*!
`caBundle` of the webhook configurations: compared on every pass, patched where it differs, and
nothing else of the configurations touched.
*/

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use serde_json::Value;

/// A configuration whose webhooks have client configurations.
pub trait Webhooks {
    /// Name and client configuration of each webhook, in order.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Webhooks for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|w| (w.name.as_str(), &w.client_config))
            .collect()
    }
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks
            .iter()
            .flatten()
            .map(|w| (w.name.as_str(), &w.client_config))
            .collect()
    }
}

/// The patch that makes every webhook of the configuration trust `bundle`; `None` if all do.
///
/// Lists can only be patched by index. Each change is preceded by a test of the name at that index,
/// so that a configuration that has just been reordered fails the patch instead of being spoilt;
/// the next reconciliation sees it.
pub fn patch(configuration: &impl Webhooks, bundle: &str) -> Option<Patch> {
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let mut operations = Vec::new();
    for (at, (name, client)) in configuration.webhooks().into_iter().enumerate() {
        if client.ca_bundle.as_ref() == Some(&wanted) {
            continue;
        }
        let at = at.to_string();
        operations.push(PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["webhooks", &at, "name"]),
            value: Value::from(name),
        }));
        operations.push(PatchOperation::Add(AddOperation {
            path: PointerBuf::from_tokens(["webhooks", &at, "clientConfig", "caBundle"]),
            value: serde_json::to_value(&wanted).unwrap_or_default(),
        }));
    }
    (!operations.is_empty()).then_some(Patch(operations))
}

/// Whether every webhook of the configuration has a caBundle.
pub fn is_published(configuration: &impl Webhooks) -> bool {
    let trusts = |client: &WebhookClientConfig| {
        client
            .ca_bundle
            .as_ref()
            .is_some_and(|bundle| !bundle.0.is_empty())
    };
    configuration
        .webhooks()
        .into_iter()
        .all(|(_, client)| trusts(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn f8_only_bundles_that_differ_are_patched() {
        let mut configuration = json!({
            "metadata": { "name": "ours" },
            "webhooks": [
                { "name": "a", "clientConfig": { "caBundle": "bmV3" }, "sideEffects": "None", "admissionReviewVersions": ["v1"] },
                { "name": "b", "clientConfig": { "caBundle": "b2xk" }, "sideEffects": "None", "admissionReviewVersions": ["v1"] },
                { "name": "c", "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"] },
            ],
        });
        let typed: ValidatingWebhookConfiguration = serde_json::from_value(configuration.clone()).unwrap();
        let patch = patch(&typed, "new").unwrap();
        assert_eq!(patch.0.len(), 4);
        json_patch::patch(&mut configuration, &patch).unwrap();
        for at in 0..3 {
            assert_eq!(configuration["webhooks"][at]["clientConfig"]["caBundle"], "bmV3");
        }
        let typed: ValidatingWebhookConfiguration = serde_json::from_value(configuration).unwrap();
        assert_eq!(super::patch(&typed, "new"), None);
    }
}
