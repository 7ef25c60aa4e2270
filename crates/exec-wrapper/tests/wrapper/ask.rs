//! Requests about the kept files, which the wrapper passes on.

use std::io::{Read, Write};

use kept_files::frame;

use crate::world::{World, accept};

const REQUEST: &str = "diff 1 2 /etc";

#[test]
fn the_answer_is_passed_on_as_it_comes() {
    let world = World::new("overlay");
    let listener = world.listen();
    let mut wrapper = world.start(&["ask", REQUEST]);
    let mut stream = accept(&listener, REQUEST);
    stream.write_all(b"wait a moment\nok\n").unwrap();
    assert_eq!(wrapper.line(), "stoppablecontainer: a moment");
    let mut answer = frame::Writer::new(Vec::new());
    answer.write_all(&b"some data\n\xff\0".repeat(30_000)).unwrap();
    let answer = answer.finish().unwrap();
    // The pipe is smaller than that.
    let reader = std::thread::spawn({
        let mut out = wrapper.stdout();
        move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).unwrap();
            all
        }
    });
    stream.write_all(&answer).unwrap();
    drop(stream);
    assert_eq!(wrapper.wait().code(), Some(0));
    assert!(reader.join().unwrap() == answer, "the answer was changed");
}

#[test]
fn a_refusal_is_on_standard_error() {
    let world = World::new("overlay");
    let listener = world.listen();
    let wrapper = world.start(&["ask", REQUEST]);
    accept(&listener, REQUEST).write_all(b"error not now\n").unwrap();
    let expected = (
        Some(125),
        String::new(),
        "stoppablecontainer: not now\n".to_owned(),
    );
    assert_eq!(wrapper.finish(), expected);
}

/// The user can repeat the command, so it does not wait for an agent.
#[test]
fn an_agent_that_does_not_answer_is_a_failure_at_once() {
    let world = World::new("overlay");
    let (code, out, err) = world.start(&["ask", REQUEST]).finish();
    assert_eq!((code, out.as_str()), (Some(125), ""));
    assert!(
        err.starts_with("stoppablecontainer: the node agent is not running"),
        "{err}"
    );
    let listener = world.listen();
    let wrapper = world.start(&["ask", REQUEST]);
    drop(accept(&listener, REQUEST));
    let (code, _, err) = wrapper.finish();
    assert!(
        code == Some(125) && err.ends_with("before it answered; try again\n"),
        "{code:?} {err}"
    );
}

#[test]
fn h9_what_is_no_request_does_not_reach_the_agent() {
    let world = World::new("overlay");
    let _listener = world.listen();
    for request in ["hold 1", "diff 1 - /a/../b", "diff 1 - /a\nrun 1", ""] {
        let (code, out, err) = world.start(&["ask", request]).finish();
        assert_eq!((code, out.as_str()), (Some(125), ""), "{request:?} {err}");
    }
}
