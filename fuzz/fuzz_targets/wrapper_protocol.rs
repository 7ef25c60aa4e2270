//! Lines between wrapper and node agent: what is read and written again says the same, and any
//! message fits into one line.

#![no_main]

use exec_wrapper::protocol::{Answer, MAX_LINE, Verb};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for line in text.split('\n') {
        if let Ok(verb) = Verb::parse(line) {
            assert_eq!(verb.to_line().trim_end_matches('\n'), line);
        }
        if let Ok(answer) = Answer::parse(line) {
            let again = answer.to_line();
            assert!(again.len() > MAX_LINE - 4 || again.trim_end_matches('\n') == line);
        }
    }
    for answer in [Answer::Wait(text.to_owned()), Answer::Error(text.to_owned())] {
        let line = answer.to_line();
        assert!(line.len() <= MAX_LINE && line.ends_with('\n') && line.matches('\n').count() == 1);
        assert!(Answer::parse(line.trim_end_matches('\n')).is_ok());
    }
});
