//! An error in one field of an object, as its author reads it.

use stoppablecontainer_api::TemplateError;

/// An error in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

// === impl FieldError ===

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// All of them in one line.
    pub(crate) fn list(problems: &[Self]) -> String {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        list.join("; ")
    }
}

impl From<&TemplateError> for FieldError {
    fn from(error: &TemplateError) -> Self {
        Self::new(error.field(), error.message())
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
