//! Edits of CPU and memory of a consumer that runs.

use super::*;
use crate::reconcile::conditions::Cause;

/// A consumer that runs, and then its request for CPU is edited.
fn edited() -> Observed {
    let observed = with_both(json!({}), up());
    let mut instance = (*observed.instance).clone();
    edit(&mut instance, |template| {
        template["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1" } });
    });
    Observed {
        instance: Arc::new(instance),
        ..observed
    }
}

#[test]
fn it_is_changed_in_place_and_nothing_else_happens() {
    assert_eq!(words(&edited()), ["resize consumer"]);
}

#[test]
fn a_refusal_is_not_asked_for_again_until_the_next_edit() {
    let refused = Some(Cause::new("TemplateEdited", "exceeded quota"));
    let observed = Observed {
        resize_refused: refused,
        ..edited()
    };
    assert!(words(&observed).is_empty());
}

#[test]
fn one_that_ends_or_never_ran_is_not_changed() {
    let ending = edited();
    let consumer = terminating(ending.consumer.pod().unwrap());
    assert!(words(&Observed { consumer, ..ending }).is_empty());
    let waiting = edited();
    let consumer = changed(waiting.consumer.pod().unwrap(), |pod| pod.status = None);
    let replaced = words(&Observed { consumer, ..waiting });
    assert_eq!(replaced, ["delete consumer"], "it is made again");
}
