// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a check finds: how it is, in a sentence, and what to do.

use serde::Serialize;

/// How something is. The worst is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Not wrong, and worth to know.
    Note,
    /// It cannot be told.
    Unknown,
    /// The limits hold, and something is to be looked at.
    Warning,
    /// Somebody is not limited, or mail is about to suffer.
    Bad,
}

impl Grade {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Bad, Self::Warning, Self::Unknown, Self::Note, Self::Good];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcome {
    /// How it is.
    pub grade: Grade,
    /// What is so, and what comes of it.
    pub sentence: String,
    /// What mends it, to be pasted into a shell; none where there is no such thing.
    pub command: Option<String>,
}

impl Outcome {
    fn new(grade: Grade, sentence: impl Into<String>) -> Self {
        Self { grade, sentence: sentence.into(), command: None }
    }

    /// As it should be.
    pub fn good(sentence: impl Into<String>) -> Self {
        Self::new(Grade::Good, sentence)
    }

    /// Worth to know.
    pub fn note(sentence: impl Into<String>) -> Self {
        Self::new(Grade::Note, sentence)
    }

    /// Not to be told, and why not.
    pub fn unknown(sentence: impl Into<String>) -> Self {
        Self::new(Grade::Unknown, sentence)
    }

    /// To be looked at.
    pub fn warning(sentence: impl Into<String>) -> Self {
        Self::new(Grade::Warning, sentence)
    }

    /// Wrong.
    pub fn bad(sentence: impl Into<String>) -> Self {
        Self::new(Grade::Bad, sentence)
    }

    /// With what mends it.
    pub fn mended_by(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    /// A sentence whose first command in backticks, if it is whole, is what mends it.
    pub fn quoting(grade: Grade, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        let command = sentence.split('`').nth(1).filter(|command| is_whole(command)).map(str::to_owned);
        Self { grade, sentence, command }
    }
}

/// Whether a command can be pasted as it is: nothing in it stands for something else.
fn is_whole(command: &str) -> bool {
    let stands_for_something = |word: &str| {
        ["/PID/", "FILE", "NAME", "SERVICE", "ADDR"].iter().any(|other| word.contains(other))
            || word.contains('…')
    };
    !command.split_whitespace().any(stands_for_something)
}

/// The outcomes of a check that has found these, or that all is well.
pub fn or_good(found: Vec<Outcome>, sentence: impl Into<String>) -> Vec<Outcome> {
    if found.is_empty() { vec![Outcome::good(sentence)] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_from_the_sentence_if_it_can_be_pasted() {
        let quoted = |sentence: &str| Outcome::quoting(Grade::Bad, sentence).command;
        assert_eq!(
            quoted("stop it, and start `limiter --instance x run`").as_deref(),
            Some("limiter --instance x run")
        );
        assert_eq!(quoted("protect it with `limiter run --netns /proc/PID/ns/net`"), None);
        assert_eq!(quoted("run `limiter …`"), None);
        assert_eq!(quoted("nothing to do"), None);
    }

    #[test]
    fn the_worst_is_the_largest() {
        let mut grades = Grade::ALL;
        grades.sort_unstable();
        assert_eq!(grades.map(Grade::name), ["good", "note", "unknown", "warning", "bad"]);
    }
}
