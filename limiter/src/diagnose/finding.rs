// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a diagnosis says: findings, with the figures they rest on and what helps; what was looked at and is not so; and
//! what is not known, with what would tell.

use serde::Serialize;

/// Why a source holds so many connections, or is refused. In the order of the table, which decides between findings that
/// are equally sure and explain equally many connections: what holds for more sources goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The network around the source, or the service as a whole, is full.
    FullAround,
    /// The mail daemon is slow or full, so that places come free late.
    Overloaded,
    /// A webmail, a proxy, a gateway or the bridge of a container in front of many clients.
    InFront,
    /// Clients that are gone, and whose connections are still there.
    Ghosts,
    /// A client that opens connections and closes none, or comes back at once, again and again.
    Looping,
    /// A client that logs in too often to look for new mail.
    ChecksTooOften,
    /// Several users behind one address.
    ManyUsers,
    /// One user with several devices, or with a client that keeps many connections.
    OneUser,
    /// A sender that delivers over many connections at once.
    Sender,
    /// The limit is too low for what honest sources do here.
    LimitTooLow,
}

impl Cause {
    /// What it is, as an administrator would call it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::FullAround => "something around it is full",
            Self::Overloaded => "the mail server is slow or full itself",
            Self::InFront => "a webmail, proxy, gateway or container bridge",
            Self::Ghosts => "sessions whose clients are gone",
            Self::Looping => "a client in a loop, or one that closes nothing",
            Self::ChecksTooOften => "a client that checks for mail too often",
            Self::ManyUsers => "many users behind one address",
            Self::OneUser => "one user, whose programs keep many connections",
            Self::Sender => "a sender that delivers over many connections",
            Self::LimitTooLow => "a limit too low for what sources do here",
        }
    }
}

impl Cause {
    /// The same in a word or two, to say that it is not so.
    pub const fn short(self) -> &'static str {
        match self {
            Self::FullAround => "full around it",
            Self::Overloaded => "a slow server",
            Self::InFront => "a webmail or proxy",
            Self::Ghosts => "ghosts",
            Self::Looping => "a loop",
            Self::ChecksTooOften => "checking too often",
            Self::ManyUsers => "many users",
            Self::OneUser => "one user's programs",
            Self::Sender => "a sender with many connections",
            Self::LimitTooLow => "a low limit",
        }
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Something hints at it, and what would settle it is not known.
    Low,
    /// Most of what is known says so, and something that would settle it is missing or says less.
    Medium,
    /// Each witness that matters was heard, and says so.
    High,
}

impl Confidence {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// One step less sure.
    pub const fn lower(self) -> Self {
        match self {
            Self::High => Self::Medium,
            Self::Medium | Self::Low => Self::Low,
        }
    }

    /// One step less sure, if that is so.
    pub const fn lower_if(self, is_so: bool) -> Self {
        if is_so { self.lower() } else { self }
    }
}

/// A figure that a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fact {
    /// What it is a figure of, with its unit.
    pub name: &'static str,
    /// The figure.
    pub value: u64,
    /// The same for people, as a part of a list.
    pub text: String,
}

impl Fact {
    /// One.
    pub fn new(name: &'static str, value: impl Into<u64>, text: impl Into<String>) -> Self {
        Self { name, value: value.into(), text: text.into() }
    }
}

/// Something that helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "kind", content = "command")]
pub enum Command {
    /// A command of the limiter: the words behind `limiter`.
    Limiter(String),
    /// A command of another program.
    Shell(String),
    /// No command: what to do by hand.
    ByHand(String),
}

/// A remedy, and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Remedy {
    /// What is to be done.
    #[serde(flatten)]
    pub command: Command,
    /// What that does, in a few words.
    pub effect: String,
}

impl Remedy {
    /// A command of the limiter.
    pub fn limiter(words: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { command: Command::Limiter(words.into()), effect: effect.into() }
    }

    /// A command of another program.
    pub fn shell(words: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { command: Command::Shell(words.into()), effect: effect.into() }
    }

    /// What is no command.
    pub fn by_hand(what: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { command: Command::ByHand(what.into()), effect: effect.into() }
    }
}

/// A part of the text for the mail user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Paragraph {
    /// That it is nothing the user has done.
    NotYou,
    /// What has happened: too many connections from one address.
    TooMany,
    /// Several people share the address.
    Shared,
    /// Close the programs on devices that are not in use; log out of webmail and in again.
    CloseOthers,
    /// How many connections each mail program keeps, and where to set that.
    CachedConnections,
    /// How often each mail program looks for mail, and where to set that.
    CheckLessOften,
    /// A program is in a loop: close it, and look for an old device with an old password.
    Loop,
    /// Sessions of a device that lost its network end by themselves.
    Ghosts,
    /// What restarting the router does and does not.
    Router,
    /// Submission on 465 or 587 in the place of 25.
    Submission,
    /// What to send to the provider.
    TellProvider,
}

/// A cause that is likely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which.
    pub cause: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// How many of the source's connections it explains.
    pub explains: u32,
    /// The answer, as a part of a sentence that begins "ADDRESS is refused at SERVICE:".
    pub summary: String,
    /// The figures it rests on.
    pub evidence: Vec<Fact>,
    /// What helps, the narrowest first.
    pub remedies: Vec<Remedy>,
    /// Of what the text for the mail user consists.
    pub for_user: Vec<Paragraph>,
}

/// A cause that was looked at and is not so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Excluded {
    /// Which.
    pub cause: Cause,
    /// The figure that speaks against it, as a part of a sentence.
    pub why: String,
}

/// Something that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unknown {
    /// What, with the reason.
    pub what: String,
    /// What would tell, if anything would.
    pub would_tell: Option<String>,
}

/// What a rule says of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is likely.
    Found(Finding),
    /// It is not so, for this reason.
    Not(String),
    /// Nothing speaks for it or against it, or it has nothing to do with the case.
    Nothing,
}

/// What all of it comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// What is likely, the likeliest first.
    pub findings: Vec<Finding>,
    /// What is not so.
    pub excluded: Vec<Excluded>,
    /// What is not known, and would matter.
    pub unknown: Vec<Unknown>,
}

impl Diagnosis {
    /// The likeliest cause.
    pub fn first(&self) -> Option<&Finding> {
        self.findings.first()
    }

    /// Whether nobody could tell: nothing is likely, or hints are all there is.
    pub fn cannot_tell(&self) -> bool {
        self.first().is_none_or(|first| first.confidence == Confidence::Low)
    }
}
