//! Which commands ask before they do something.

use crate::failure::Failure;
use crate::screen::Screen;
use crate::select::Chosen;

/// Whether to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Do it.
    Proceed,
    /// Ask first.
    Ask,
    /// Refuse: it would have to be asked, and cannot be.
    Refuse,
}

/// What a command may destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stakes {
    /// Nothing is lost: only a selection that the user did not write out is confirmed.
    Reversible,
    /// Files are lost.
    Files,
}

/// Whether to ask before a change of what was chosen.
pub fn decide(stakes: Stakes, chosen: &Chosen, yes: bool, can_ask: bool) -> Decision {
    let named = matches!(chosen, Chosen::Names(_));
    match stakes {
        _ if yes => Decision::Proceed,
        Stakes::Reversible if named => Decision::Proceed,
        Stakes::Reversible | Stakes::Files if can_ask => Decision::Ask,
        Stakes::Reversible | Stakes::Files => Decision::Refuse,
    }
}

/// Asks if it has to.
///
/// # Errors
/// If the user says no, or cannot be asked. Nothing was changed then.
pub fn confirm(screen: &mut Screen, decision: Decision, question: &str) -> Result<(), Failure> {
    match decision {
        Decision::Proceed => Ok(()),
        Decision::Ask if screen.ask(question) => Ok(()),
        Decision::Ask => Err(Failure::failed("cancelled; nothing was changed")),
        Decision::Refuse => Err(Failure::usage(format!(
            "{question} There is no terminal to answer on; repeat the command with -y to confirm"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selections_and_lost_files_are_confirmed() {
        let names = Chosen::Names(vec!["web".to_owned()]);
        let query = Chosen::Query {
            selector: None,
            all_namespaces: false,
        };
        for (stakes, chosen, yes, terminal, expected) in [
            (Stakes::Reversible, &names, false, false, Decision::Proceed),
            (Stakes::Reversible, &query, false, true, Decision::Ask),
            (Stakes::Reversible, &query, false, false, Decision::Refuse),
            (Stakes::Reversible, &query, true, false, Decision::Proceed),
            (Stakes::Files, &names, false, true, Decision::Ask),
            (Stakes::Files, &names, false, false, Decision::Refuse),
            (Stakes::Files, &names, true, false, Decision::Proceed),
            (Stakes::Files, &query, true, true, Decision::Proceed),
        ] {
            assert_eq!(
                decide(stakes, chosen, yes, terminal),
                expected,
                "{stakes:?} {chosen:?} {yes} {terminal}"
            );
        }
    }

    #[test]
    fn a_no_and_a_missing_terminal_change_nothing() {
        let mut screen = Screen::new(std::io::sink(), std::io::sink(), Some("n\n"));
        let no = confirm(&mut screen, Decision::Ask, "Delete?").unwrap_err();
        assert_eq!(no.exit_code(), 1);
        let mut screen = Screen::new(std::io::sink(), std::io::sink(), Some("Yes\n"));
        assert_eq!(confirm(&mut screen, Decision::Ask, "Delete?"), Ok(()));
        let mut screen = Screen::new(std::io::sink(), std::io::sink(), None);
        let refused = confirm(&mut screen, Decision::Refuse, "Delete?").unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("-y"));
    }
}
