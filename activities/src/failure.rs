//! The one place that decides what is retried and what is final.

use temporalio_common::error::ApplicationFailure;
use temporalio_sdk::activities::ActivityError;

use crate::{context::ContextError, partner::PartnerError};

/// A failed activity, before Temporal is told of it. Not an `Error` itself on purpose: the SDK
/// would convert it without its name and whether it is final, and nobody would notice.
#[derive(Debug)]
pub struct Failure {
    source: Box<dyn std::error::Error + Send + Sync>,
    name: &'static str,
    is_final: bool,
}

impl Failure {
    /// The order of steps or their input makes no sense; nobody can mend it by waiting.
    pub fn impossible(reason: String) -> Self {
        Self {
            source: reason.into(),
            name: "Impossible",
            is_final: true,
        }
    }
}

/// What the database refuses or lacks stays so; everything that is only out of reach comes back.
impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let (name, is_final) = name_of(&error);
        Self {
            source: error.into(),
            name,
            is_final,
        }
    }
}

fn name_of(error: &store::Error) -> (&'static str, bool) {
    match error {
        store::Error::Unavailable(_) => ("DatabaseUnavailable", false),
        store::Error::Raced => ("DatabaseRace", false),
        store::Error::Data(_) => ("DatabaseRefusedData", false),
        store::Error::Other(_) => ("DatabaseError", false),
        store::Error::NotFound { .. } => ("NotFound", true),
        store::Error::Inconsistent(_) => ("Inconsistent", true),
        store::Error::Together(error) => name_of(error),
    }
}

/// A partner that gives no word is asked again, for as long as the workflow wants to know.
impl From<PartnerError> for Failure {
    fn from(error: PartnerError) -> Self {
        let name = match &error {
            PartnerError::CircuitOpen { .. } => "PartnerCircuitOpen",
            PartnerError::Busy { .. } => "PartnerBusy",
            PartnerError::Lost { .. } | PartnerError::Unavailable { .. } => "PartnerUnreachable",
        };
        Self {
            source: error.into(),
            name,
            is_final: false,
        }
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self {
            source: error.into(),
            name: "ContextServiceUnreachable",
            is_final: false,
        }
    }
}

/// Tells Temporal, with the name under which it and its users know the failure.
pub fn activity_error(failure: impl Into<Failure>) -> ActivityError {
    let Failure {
        source,
        name,
        is_final,
    } = failure.into();
    ActivityError::application(
        ApplicationFailure::builder(source)
            .type_name(name.to_owned())
            .non_retryable(is_final)
            .build(),
    )
}
