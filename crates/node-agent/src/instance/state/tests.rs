use rustix::process::Pid;
use serde_json::json;

use super::*;

fn object(uid: &str, provider: &str) -> StoppableContainerInstance {
    serde_json::from_value(json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
        "metadata": { "name": "web", "namespace": "ns", "uid": uid },
        "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
        "status": { "providerPodUid": provider },
    }))
    .unwrap()
}

/// A process that ends when the test tells it to.
fn process() -> (std::process::Child, Arc<Process>) {
    let child = std::process::Command::new("sleep")
        .arg("infinity")
        .spawn()
        .unwrap();
    let process = Process::open(Pid::from_child(&child)).unwrap();
    (child, Arc::new(process))
}

fn provider(process: &Arc<Process>, pod_uid: &str) -> Provider {
    Provider {
        process: Arc::clone(process),
        pod_uid: pod_uid.to_owned(),
    }
}

/// A UID that a user names in a pod of his own does not prove the instance's name, or that there is
/// one.
#[tokio::test(start_paused = true)]
async fn i16_what_is_only_claimed_to_be_an_instance_is_not_remembered() {
    let instances = Instances::default();
    let second = Duration::from_secs(1);
    assert!(instances.wait_for("u1", second, |_| true).await.is_err());
    assert!(instances.find("u1").is_none());
    let (found, _) = tokio::join!(instances.wait_for("u1", second, |_| true), async {
        instances.apply(object("u1", "p1"))
    });
    assert_eq!(found.unwrap().metadata.uid.as_deref(), Some("u1"));
    assert_eq!(instances.find("u1").unwrap().id.name, "web");
    let wanted = |object: &StoppableContainerInstance| object.metadata.generation.is_some();
    let seen = instances.wait_for("u1", second, wanted).await.unwrap_err();
    assert!(seen.is_some(), "as it is");
}

/// `kubectl exec` starts another `hold` in the provider's container.
#[test]
fn i20_a_second_hold_does_not_unregister_the_first() {
    let instances = Instances::default();
    let instance = instances.apply(object("u1", "p1")).unwrap();
    let holding = || instance.state().provider().map(|provider| provider.process.id());
    let ((mut first_child, first), (mut second_child, second)) = (process(), process());
    assert_eq!(holding(), None);
    instance.change(|state| state.holding.push(provider(&first, "p1")));
    instance.change(|state| state.holding.push(provider(&second, "p1")));
    assert_eq!(holding(), Some(first.id()));
    second_child.kill().unwrap();
    second_child.wait().unwrap();
    assert_eq!(holding(), Some(first.id()));
    // A process of a pod that is not the provider any more.
    instance.change(|state| state.object = Some(Arc::new(object("u1", "p2"))));
    assert_eq!(holding(), None);
    let (mut third_child, third) = process();
    instance.change(|state| state.holding.push(provider(&third, "p2")));
    assert_eq!(holding(), Some(third.id()));
    for child in [&mut first_child, &mut third_child] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(
        holding(),
        None,
        "the process has ended, though its connection is still open"
    );
}

/// However often a pod tries, a disk that does not answer has one thread for a filesystem.
#[tokio::test]
async fn i9_work_whose_caller_has_gone_keeps_others_out_until_it_ends() {
    let instance = Instances::default().apply(object("u1", "p1")).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let mut working = instance.lock_data().await;
    let work = working.on_disk(move || ended.recv().is_err());
    tokio::select! {
        biased;
        _ = work => panic!("it ended"),
        () = tokio::task::yield_now() => {}
    }
    assert!(
        instance.data.is_locked(),
        "the work has not ended, so the data must stay locked"
    );
    drop(end);
    instance.lock_data().await.on_disk(|| ()).await.unwrap();
}

/// A tenant whose file systems do not answer has so many threads of the agent and no more. Others
/// have theirs.
#[tokio::test(start_paused = true)]
async fn i18_work_that_hangs_is_bounded_for_its_namespace_only() {
    use crate::instance::abandoned_threads::MAX_ABANDONED;

    let instances = Instances::default();
    let mut ends = Vec::new();
    let one = |uid: String| instances.apply(object(&uid, "p")).unwrap();
    for number in 0..MAX_ABANDONED {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        ends.push(end);
        let mut working = one(number.to_string()).lock_data().await;
        let error = working.on_disk(move || ended.recv().is_err()).await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
    // From here on the test uses real threads.
    tokio::time::resume();
    let another = one("another".to_owned());
    let error = another
        .lock_data()
        .await
        .on_disk(|| ())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("namespace ns") && error.contains(&MAX_ABANDONED.to_string()),
        "{error}"
    );
    let mut theirs = object("theirs", "p");
    theirs.metadata.namespace = Some("theirs".to_owned());
    let theirs = instances.apply(theirs).unwrap();
    theirs.lock_data().await.on_disk(|| ()).await.unwrap();
    // As soon as one comes back there is a place again.
    drop(ends.pop());
    one((MAX_ABANDONED - 1).to_string())
        .lock_data()
        .await
        .on_disk(|| ())
        .await
        .unwrap();
    another.lock_data().await.on_disk(|| ()).await.unwrap();
}
