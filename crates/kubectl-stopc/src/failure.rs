//! Why a command did not do what it was asked to, and its exit code.

/// Why a command failed. The text is one sentence with the cause, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The command line cannot be carried out as it is written.
    #[error("{0}")]
    Usage(String),
    /// It was tried and did not work, or the state is not as asked.
    #[error("{0}")]
    Failed(String),
    /// The time limit passed; the cluster still works on it.
    #[error("{0}")]
    TimedOut(String),
    /// The user interrupted the wait; the cluster still works on it.
    #[error("{0}")]
    Interrupted(String),
    /// The API server refused the request, or did not answer it.
    #[error("{0}")]
    Api(#[from] ApiFailure),
}

/// A request that the API server refused or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// The kind of failure.
    pub kind: ApiFailureKind,
    /// One sentence with the cause, and what to do.
    pub message: String,
}

/// Kinds of [`ApiFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFailureKind {
    /// The object does not exist.
    NotFound,
    /// The cluster does not know the kind of the object.
    KindMissing,
    /// The user may not do this, or is not known.
    NotAllowed,
    /// The API server cannot be reached, or does not answer.
    Unreachable,
    /// Anything else.
    Refused,
}

// === impl Failure ===

impl Failure {
    /// A failure with this text.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An error in the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Exit code of the process: 1 failed, 2 usage, 3 timed out but still going, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Api(_) => 1,
            Self::Usage(_) => 2,
            Self::TimedOut(_) => 3,
            Self::Interrupted(_) => 130,
        }
    }

    /// Whether the failure is that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(api) if api.kind == ApiFailureKind::NotFound)
    }

    /// One failure for several, with the exit code of the worst: failed before timed out.
    pub fn all(failures: Vec<Self>) -> Result<(), Self> {
        let text = failures
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        let worst = failures.into_iter().min_by_key(|failure| match failure {
            Self::Interrupted(_) => 0,
            Self::Usage(_) => 1,
            Self::Failed(_) | Self::Api(_) => 2,
            Self::TimedOut(_) => 3,
        });
        match worst {
            None => Ok(()),
            Some(Self::Usage(_)) => Err(Self::Usage(text)),
            Some(Self::Failed(_)) => Err(Self::Failed(text)),
            Some(Self::TimedOut(_)) => Err(Self::TimedOut(text)),
            Some(Self::Interrupted(_)) => Err(Self::Interrupted(text)),
            Some(Self::Api(api)) => Err(Self::Api(ApiFailure { message: text, ..api })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        let api = ApiFailure {
            kind: ApiFailureKind::Unreachable,
            message: String::new(),
        };
        for (failure, code) in [
            (Failure::failed(""), 1),
            (Failure::Api(api), 1),
            (Failure::usage(""), 2),
            (Failure::TimedOut(String::new()), 3),
            (Failure::Interrupted(String::new()), 130),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }

    #[test]
    fn of_several_failures_the_worst_decides_and_all_are_printed() {
        assert_eq!(Failure::all(Vec::new()), Ok(()));
        let late = Failure::TimedOut("late".to_owned());
        assert_eq!(
            Failure::all(vec![late.clone(), late.clone()]),
            Err(Failure::TimedOut("late\nlate".to_owned()))
        );
        assert_eq!(
            Failure::all(vec![late, Failure::failed("broken")]),
            Err(Failure::failed("late\nbroken"))
        );
    }
}
