// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `[ladder]`: what every source may make of refusals.

use std::fmt;

use limiter_common::{Ladder, Rate};

use super::{
    RateSpec,
    check::{self, NONE, Value, shown_duration},
    error::{Complaint, Located},
    fields::Section,
    keys,
    reader::{Node, in_order, name, number, start, unknown},
};

/// The ladder, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderConfig {
    /// Replies a source gets in a time before it gets resets; `None`: without end.
    pub replies: Option<RateSpec>,
    /// Refused handshakes after which a source is banned; `None`: nobody is.
    pub ban_after: Option<BanAfter>,
    /// Seconds of a first ban, 1 to [`Ladder::MAX_BAN_S`].
    pub ban: u32,
    /// Seconds of the longest, `ban` to [`Ladder::MAX_BAN_S`].
    pub ban_max: u32,
    /// How many refused and banned sources are remembered, 1,024 to 4,194,304.
    pub max_bans: u32,
}

/// So many refused handshakes in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanAfter {
    /// How many, 1 to [`Rate::MAX_COUNT`].
    pub count: u32,
    /// In how many seconds, 1 to [`Ladder::MAX_BAN_S`].
    pub within_s: u32,
}

impl Default for LadderConfig {
    /// Words for a person who tries again by hand, resets for a program that hammers; and nobody is banned
    /// unless the admin says so: behind one address there may be many people.
    fn default() -> Self {
        let replies = Some(RateSpec { count: 20, period_s: 60 });
        Self { replies, ban_after: None, ban: 600, ban_max: 86_400, max_bans: 65_536 }
    }
}

impl LadderConfig {
    /// As the kernel reads it.
    #[must_use]
    pub fn kernel(&self) -> Ladder {
        Ladder {
            replies: self.replies.map_or_else(Rate::default, |spec| spec.rate(spec.count)),
            ban_after: self
                .ban_after
                .map_or_else(Rate::default, |BanAfter { count, within_s }| Rate::new(count, within_s, count)),
            ban_s: self.ban,
            ban_max_s: self.ban_max,
        }
    }
}

/// Reads the table.
pub fn read(value: &Node<'_>) -> Result<LadderConfig, Located> {
    let toml::de::DeValue::Table(table) = value.get_ref() else {
        let given = Value::from(value.get_ref()).shown();
        return Err(Complaint::NotATable("ladder".to_owned(), given).at(start(value)));
    };
    let mut ladder = LadderConfig::default();
    let (mut longest, mut banning) = (None, None);
    for (key, value) in in_order(table) {
        let given = Value::from(value.get_ref());
        let at = |complaint: Complaint| complaint.at(start(value));
        match name(key) {
            "replies" => ladder.replies = replies(&given).map_err(at)?,
            "ban_after" => {
                ladder.ban_after = ban_after(&given).map_err(at)?;
                banning = Some(start(value));
            }
            "ban" => ladder.ban = check::ban("ban", &given).map_err(at)?,
            "ban_max" => {
                ladder.ban_max = check::ban("ban_max", &given).map_err(at)?;
                longest = Some(start(value));
            }
            "max_bans" => ladder.max_bans = number(&keys::MAX_BANS, value)?,
            _ => return Err(unknown(key, Section::Ladder)),
        }
    }
    if let (Some(ban_after), Some(replies), Some(at)) = (ladder.ban_after, ladder.replies, banning)
        && !ban_after.can_be_reached(replies)
    {
        let (ban_after, replies) = (ban_after.to_string(), replies.to_string());
        return Err(Complaint::BanNeverReached { ban_after, replies }.at(at));
    }
    match longest {
        _ if ladder.ban <= ladder.ban_max => {}
        // The longest is as long as the first where nothing is said of it.
        None => ladder.ban_max = ladder.ban,
        Some(at) => {
            let (ban, ban_max) = (shown_duration(ladder.ban), shown_duration(ladder.ban_max));
            return Err(Complaint::BanAboveLongest { ban, ban_max }.at(at));
        }
    }
    Ok(ladder)
}

fn replies(value: &Value<'_>) -> Result<Option<RateSpec>, Complaint> {
    check::rate(value).map_err(|_| Complaint::Replies(value.shown()))
}

/// `100 in 10min`.
fn ban_after(value: &Value<'_>) -> Result<Option<BanAfter>, Complaint> {
    if check::is_none(value) {
        return Ok(None);
    }
    let wrong = || Complaint::BanAfter(value.shown());
    let Value::Text(text) = value else { return Err(wrong()) };
    let (count, within) = text.split_once(" in ").ok_or_else(wrong)?;
    let count = count.trim();
    let is_plain = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|count| is_plain && (1..=Rate::MAX_COUNT).contains(count));
    let within_s = check::seconds(within, &(1..=u64::from(Ladder::MAX_BAN_S)));
    match (count, within_s) {
        (Some(count), Some(within_s)) => Ok(Some(BanAfter { count, within_s })),
        _ => Err(wrong()),
    }
}

impl BanAfter {
    /// Whether a source that gets so many replies, and resets in between, can have so many refused.
    fn can_be_reached(self, replies: RateSpec) -> bool {
        let (replies_in_time, refused) = (
            u64::from(replies.count) * u64::from(self.within_s),
            u64::from(self.count) * u64::from(replies.period_s),
        );
        replies.count > self.count || replies_in_time > refused
    }
}

impl fmt::Display for BanAfter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} in {}", self.count, shown_duration(self.within_s))
    }
}

impl LadderConfig {
    /// Its keys, and their values without quotes.
    #[must_use]
    pub fn keys(&self) -> [(&'static str, String); 5] {
        let Self { replies, ban_after, ban, ban_max, max_bans } = self;
        let none = || NONE.to_owned();
        [
            ("replies", replies.map_or_else(none, |spec| spec.to_string())),
            ("ban_after", ban_after.map_or_else(none, |ban_after| ban_after.to_string())),
            ("ban", shown_duration(*ban)),
            ("ban_max", shown_duration(*ban_max)),
            ("max_bans", max_bans.to_string()),
        ]
    }
}

impl fmt::Display for LadderConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "[ladder]")?;
        for (key, value) in self.keys() {
            match key {
                // A number stands as one.
                "max_bans" => writeln!(out, "{key} = {value}")?,
                _ => writeln!(out, "{key} = \"{value}\"")?,
            }
        }
        Ok(())
    }
}
