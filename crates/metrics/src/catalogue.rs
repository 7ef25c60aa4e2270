//! All metrics, by program.

use prometheus_client::metrics::MetricType;

use crate::Metric;

/// Defines constants and a list of them. The doc comment is the help text.
macro_rules! catalogue {
    (
        $(#[doc = $about:literal])+
        $list:ident:
        $(
            $(#[doc = $doc:literal])+
            $name:ident = $kind:ident $text:literal [$($label:literal: $values:literal),* $(,)?];
        )+
    ) => {
        $(
            $(#[doc = $doc])+
            pub const $name: Metric = Metric {
                name: $text,
                kind: MetricType::$kind,
                labels: &[$(($label, $values)),*],
                help: concat!($($doc),+),
            };
        )+
        $(#[doc = $about])+
        pub const $list: &[Metric] = &[$($name),+];
    };
}

catalogue! {
    /// Metrics of both programs.
    COMMON:
    /// 1, with the version of the program.
    BUILD_INFO = Gauge "build_info" ["version": "the version"];
    /// Calls to the API server. Repetitions within the time limit of a call are part of it.
    API_REQUESTS = Counter "api_requests" [
        "verb": "`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, or `dry-run` for all with `dryRun=All`",
        "resource": "the resource, with its subresource: `pods`, `pods/status`",
        "code": "the HTTP status, `timeout` after 15 seconds without an answer, or `error` without a connection",
    ];
    /// Time from a call to the API server to the head of its answer.
    API_REQUEST_SECONDS = Histogram "api_request_seconds" [
        "verb": "see `stoppablecontainer_api_requests_total`",
        "resource": "see `stoppablecontainer_api_requests_total`",
    ];
}

catalogue! {
    /// Metrics of the operator: webhook and controller.
    OPERATOR:
    /// Admission reviews that the webhook answered.
    ADMISSION_REVIEWS = Counter "admission_reviews" [
        "path": "`/mutate`, `/validate-pod`, `/validate`",
        "outcome": "`allowed`, `denied`, or `error` for requests that are not AdmissionReviews",
    ];
    /// Time from the first byte of an admission review to its answer.
    ADMISSION_REVIEW_SECONDS = Histogram "admission_review_seconds" [
        "path": "see `stoppablecontainer_admission_reviews_total`",
        "outcome": "see `stoppablecontainer_admission_reviews_total`",
    ];
    /// Admission reviews that the webhook denied.
    ADMISSION_DENIALS = Counter "admission_denials" [
        "path": "see `stoppablecontainer_admission_reviews_total`",
        "reason": "`Invalid` (what the object contains), `Forbidden` (who asks), `Conflict` (the client or the \
                   controller tries again)",
    ];
    /// StoppableContainers, as the leader knows them. Only the leader serves this metric.
    CONTAINERS = Gauge "containers" [
        "phase": "`status.phase`, or empty before the first reconciliation",
        "reason": "the reason of the condition `Ready`",
    ];
    /// Reconciliations that ended.
    RECONCILIATIONS = Counter "reconciliations" [
        "kind": "`StoppableContainer` or `StoppableContainerInstance`",
        "result": "`done`, `conflict` (decided on an old state, and repeated at once), `error` (repeated after a \
                   back-off)",
    ];
    /// Time that a reconciliation took.
    RECONCILIATION_SECONDS = Histogram "reconciliation_seconds" [
        "kind": "see `stoppablecontainer_reconciliations_total`",
    ];
    /// Objects that wait for a reconciliation, after an event.
    QUEUE_LENGTH = Gauge "queue_length" [
        "kind": "see `stoppablecontainer_reconciliations_total`",
    ];
    /// Time from the first event of an object to the start of the reconciliation that handles it.
    QUEUE_SECONDS = Histogram "queue_seconds" [
        "kind": "see `stoppablecontainer_reconciliations_total`",
    ];
    /// Attempts that failed, and that the controller repeats after a back-off.
    RETRIES = Counter "retries" [
        "task": "`provider`, `consumer` or `placeholder` (the creation of the pod, or a pod that ended), `instance` \
                 (the creation of the instance), `reconciliation`",
    ];
    /// Time from the request of a start that succeeded to each of its steps, as in
    /// `status.lastStart`, in whole seconds.
    START_STEP_SECONDS = Histogram "start_step_seconds" [
        "first": "`true` for the first start of an object, else `false`",
        "step": "`scheduled`, `provider_ready`, `filesystem_ready`, `consumer_created`, `ready`; not each start has all",
    ];
    /// Time from the request of a stop to the end of the consumer pod, as in `status.lastStop`, in
    /// whole seconds.
    STOP_SECONDS = Histogram "stop_seconds" [];
    /// 1 while this replica is the leader, else 0.
    LEADER = Gauge "leader" [];
    /// How often this replica became the leader.
    LEADER_ELECTIONS = Counter "leader_elections" [];
    /// End of the validity of the certificate that this replica serves, in seconds since 1970.
    CERTIFICATE_EXPIRY = Gauge "certificate_expiry_timestamp_seconds" [];
}

catalogue! {
    /// Metrics of the node agent. Each names its node by the scrape's own labels.
    AGENT:
    /// Disk space of a kept filesystem, as last measured.
    FILESYSTEM_BYTES = Gauge "filesystem_bytes" [
        "namespace": "namespace of the instance", "name": "name of the instance",
    ];
    /// Inodes of a kept filesystem, as last measured.
    FILESYSTEM_INODES = Gauge "filesystem_inodes" [
        "namespace": "namespace of the instance", "name": "name of the instance",
    ];
    /// Published volumes, which have a socket of the agent each.
    VOLUMES = Gauge "volumes" ["role": "role of the pod: `provider` or `consumer`"];
    /// Kept filesystems without an instance, as last counted.
    ORPHANED_FILESYSTEMS = Gauge "orphaned_filesystems" ["prefix": "directory of the kept filesystems"];
    /// Free space on the disk of a data directory.
    DISK_FREE_BYTES = Gauge "disk_free_bytes" ["prefix": "directory of the kept filesystems"];
    /// Size of the disk of a data directory.
    DISK_BYTES = Gauge "disk_bytes" ["prefix": "directory of the kept filesystems"];
    /// Free inodes on the disk of a data directory.
    DISK_FREE_INODES = Gauge "disk_free_inodes" ["prefix": "directory of the kept filesystems"];
    /// Inodes of the disk of a data directory.
    DISK_INODES = Gauge "disk_inodes" ["prefix": "directory of the kept filesystems"];
    /// Threads that wait for disks or mounted file systems that do not answer.
    ABANDONED_THREADS = Gauge "threads_left_behind" [];
    /// Calls of the kubelet to the CSI plugin.
    CSI_CALLS = Counter "csi_calls" [
        "method": "`NodePublishVolume` or `NodeUnpublishVolume`",
        "code": "the gRPC code, `Ok` for success",
    ];
    /// Time that a call of the kubelet took.
    CSI_CALL_SECONDS = Histogram "csi_call_seconds" ["method": "see `stoppablecontainer_csi_calls_total`"];
    /// Kept filesystems that were prepared for a provider, or could not be.
    PREPARATIONS = Counter "preparations" [
        "result": "`Ready`, `Retry` (an obstacle that may pass), or the reason of the condition `FilesystemReady`",
    ];
    /// Containers that were moved onto their kept filesystem, or could not be.
    MOVES = Counter "moves" ["result": "`done` or `failed`"];
    /// Time from a wrapper's request to the moved container. It includes the wait for an earlier
    /// user of the filesystem.
    MOVE_SECONDS = Histogram "move_seconds" [];
    /// Syncs of kept filesystems after their consumer ended.
    SYNCS = Counter "syncs" ["result": "`done`, or `failed` if the disk did not take everything"];
    /// Time that a sync took.
    SYNC_SECONDS = Histogram "sync_seconds" [];
}
