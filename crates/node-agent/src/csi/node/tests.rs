use csi_proto::csi::VolumeCapability;
use csi_proto::csi::volume_capability::{BlockVolume, MountVolume};
use telemetry::recorder::Recorder;
use tonic::Code;

use super::*;

fn request() -> NodePublishVolumeRequest {
    let context = [
        (POD_NAME, "web"),
        (POD_NAMESPACE, "ns"),
        (POD_UID, "u1"),
        (EPHEMERAL, "true"),
        (SERVICE_ACCOUNT, "default"),
    ];
    NodePublishVolumeRequest {
        volume_id: format!("csi-{}", "0".repeat(64)),
        target_path: "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/s/mount".into(),
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            ..VolumeCapability::default()
        }),
        volume_context: context.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..NodePublishVolumeRequest::default()
    }
}

fn code(change: impl FnOnce(&mut NodePublishVolumeRequest)) -> Code {
    let mut request = request();
    change(&mut request);
    Publish::read(&request).map_or_else(|status| status.code(), |_| Code::Ok)
}

#[test]
fn what_the_kubelet_sends() {
    let publish = Publish::read(&request()).unwrap();
    assert_eq!(
        publish.pod,
        ObjectRef {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u1".into()
        }
    );
}

#[test]
fn f24_what_is_required() {
    assert_eq!(code(|r| r.volume_id.clear()), Code::InvalidArgument);
    assert_eq!(code(|r| r.target_path.clear()), Code::InvalidArgument);
    assert_eq!(code(|r| r.volume_capability = None), Code::InvalidArgument);
    assert_eq!(
        code(|r| r.volume_capability = Some(VolumeCapability::default())),
        Code::InvalidArgument
    );
    let block = AccessType::Block(BlockVolume {});
    assert_eq!(
        code(|r| r.volume_capability = Some(VolumeCapability {
            access_type: Some(block),
            ..Default::default()
        })),
        Code::InvalidArgument
    );
}

#[test]
fn h16_attributes_of_ones_own_are_refused() {
    for key in [
        "instance",
        "csi.storage.k8s.io/serviceAccount.tokens",
        "csi.storage.k8s.io/pod.labels",
        "",
    ] {
        assert_eq!(
            code(|r| _ = r.volume_context.insert(key.into(), "x".into())),
            Code::InvalidArgument,
            "{key:?}"
        );
    }
    for key in [POD_NAME, POD_NAMESPACE, POD_UID, EPHEMERAL] {
        assert_eq!(
            code(|r| _ = r.volume_context.remove(key)),
            Code::InvalidArgument,
            "{key}"
        );
        for value in ["", "../x", "a/b", "a\nb", "a,b", &"x".repeat(254)] {
            assert_eq!(
                code(|r| _ = r.volume_context.insert(key.into(), value.into())),
                Code::InvalidArgument,
                "{key} {value:?}"
            );
        }
    }
    assert_eq!(
        code(|r| _ = r.secrets.insert("a".into(), "b".into())),
        Code::InvalidArgument
    );
}

#[test]
fn h9_names_that_are_paths_are_refused() {
    for id in ["..", "a/b", "a b", "ü", &"x".repeat(129)] {
        assert_eq!(code(|r| r.volume_id = id.into()), Code::InvalidArgument, "{id:?}");
    }
    for target in ["relative", "/a/../b", "/", "/a/.."] {
        assert_eq!(
            code(|r| r.target_path = target.into()),
            Code::InvalidArgument,
            "{target:?}"
        );
    }
}

/// The kubelet may put a token of the pod into the volume context.
#[test]
fn a_call_is_a_span_without_the_volume_context() {
    let (spans, _guard) = Recorder::start();
    for error in [None, Some(CsiError::InProgress)] {
        record_code(&call_span(PUBLISH), error.as_ref());
    }
    let ended = spans.take();
    let [done, failed] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert_eq!(done["otel.name"], PUBLISH);
    assert_eq!(
        (done["code"].as_str(), failed["code"].as_str()),
        ("Ok", "Aborted")
    );
    assert!(!done.contains_key("otel.status_code"));
    assert_eq!(failed["otel.status_code"], "ERROR");
    for span in &ended {
        let known = [
            "otel.name",
            "otel.kind",
            "otel.status_code",
            "namespace",
            "pod",
            "code",
        ];
        assert!(span.keys().all(|field| known.contains(field)), "{span:?}");
    }
}
