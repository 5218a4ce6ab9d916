// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon does about bans, once a second or so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use limiter_common::{Cause, Key, Penalty, ServiceId, ServicePolicy};
use tracing::{debug, error, info, warn};

use super::{
    journal::{Clock, Extent, Journal, Line, News},
    state,
};
use crate::{instance::Instance, kernel::Tables, ledger};

/// How often a file is tried that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// By how much the clock on the wall may be set before that is noted.
const STEP_MS: u64 = 60_000;

/// Says who was banned, forgets who need not be remembered, and writes down what has changed.
pub struct Upkeep {
    journal: Journal,
    /// What is written down: when each ban ends.
    written: HashMap<Key, u64>,
    /// How much of the file that is.
    seen: Option<Extent>,
    /// When something was written last.
    clock: Option<Clock>,
    /// The services by which it was read.
    services: Vec<(ServiceId, ServicePolicy)>,
    /// Which bans do not hold, and why, by the policy that was in force when it was looked at last.
    idle: HashMap<Key, String>,
    /// Which change made by hand was the last then.
    change: u64,
    /// Since when the file cannot be written, as far as is known.
    failed: Option<Instant>,
    /// Looking through a million bans takes a while; that shall not be all the thread does.
    next: Option<Instant>,
}

impl Upkeep {
    /// Knows the bans that are written down: they were said when they were made.
    pub fn new(instance: &Instance, tables: &Tables) -> Result<Self> {
        // Read first: what is changed meanwhile is looked at in the first round.
        let (change, now_ns) = (tables.policy.change()?, ledger::now_ns()?);
        let services = tables.policy.services()?;
        Ok(Self {
            journal: Journal::new(instance.bans_path())?,
            written: HashMap::new(),
            seen: None,
            clock: None,
            idle: idle(tables, &services, &tables.penalties()?, now_ns)?,
            services,
            change,
            failed: None,
            next: None,
        })
    }

    /// One round.
    pub fn round(&mut self, instance: &Instance, tables: &mut Tables, remember: Duration) -> Result<()> {
        let began = Instant::now();
        if self.next.is_some_and(|next| began < next) {
            return Ok(());
        }
        let _bans = instance.lock_bans()?;
        let (now_ns, ladder) = (ledger::now_ns()?, tables.policy.ladder()?);
        let mut penalties = tables.penalties()?;
        let remember_ns = u64::try_from(remember.as_nanos()).unwrap_or(u64::MAX);
        let is_forgotten = |penalty: &Penalty| {
            penalty.is_forgotten(&ladder, now_ns) && !penalty.was_refused(remember_ns, now_ns)
        };
        let forgotten = penalties.extract_if(.., |(_, penalty)| is_forgotten(penalty));
        let mut gone: Vec<_> = forgotten.map(|(key, _)| key).collect();
        // The kernel makes room for those that are only refused by itself, but more bans than there may be.
        let max = tables.max_bans()? as usize;
        let given_up = super::beyond(&penalties, max, usize::MAX, &ladder, now_ns);
        if !given_up.is_empty() {
            let over = given_up.len();
            warn!(
                "more than {max} sources are banned: dropped the {over} oldest bans made by the ladder; raise \
                 max_bans in [ladder] and restart the daemon"
            );
            penalties.retain(|(key, _)| !given_up.contains(key));
        }
        gone.extend(given_up);
        if !gone.is_empty() {
            super::unban(tables, &gone)?;
        }
        penalties.retain(|(_, penalty)| penalty.banned_until_ns != 0);
        self.look_at_policy(tables, &penalties, now_ns)?;
        if let Err(problem) = self.write_down(instance, tables, &penalties, now_ns) {
            if self.failed.is_none() {
                error!(
                    "{problem:#}; the bans stay in force, but are lost when the host restarts; retrying every \
                     10 s"
                );
            }
            self.failed = Some(Instant::now());
        }
        self.next = Some(Instant::now() + 20 * began.elapsed());
        Ok(())
    }

    /// Says which bans do not hold any more, and which do again: by a change of the policy something else makes a source, a
    /// rule allows who is banned, or the service only observes or is gone.
    fn look_at_policy(&mut self, tables: &Tables, penalties: &[(Key, Penalty)], now_ns: u64) -> Result<()> {
        let change = tables.policy.change()?;
        if change == self.change {
            return Ok(());
        }
        let services = tables.policy.services()?;
        let now = idle(tables, &services, penalties, now_ns)?;
        self.change = change;
        let what_matters = |services: &[(ServiceId, ServicePolicy)]| -> Vec<_> {
            services.iter().map(|(id, policy)| (*id, policy.name)).collect()
        };
        if what_matters(&services) != what_matters(&self.services) {
            // What is written down has other keys now.
            self.seen = None;
        }
        let before = std::mem::replace(&mut self.services, services);
        // Of a service that is gone, by the name that it had.
        let who = |key: &Key| state::who(&self.services, key).or_else(|| state::who(&before, key));
        let idle = now.iter().filter(|(key, _)| !self.idle.contains_key(key));
        let idle: Vec<_> = idle.filter_map(|(key, because)| Some((who(key)?, because.clone()))).collect();
        for said in state::by_reason(&idle, "no longer in force") {
            warn!("{said}");
        }
        let banned = penalties.iter().filter(|(_, penalty)| penalty.is_banned(now_ns)).map(|(key, _)| key);
        let again = banned.filter(|key| self.idle.contains_key(key) && !now.contains_key(key));
        let again = again.filter_map(|key| Some((who(key)?, String::new())));
        for said in state::by_reason(&again.collect::<Vec<_>>(), "in force again") {
            info!("{said}");
        }
        self.idle = now;
        Ok(())
    }

    /// Says who was banned, and has the file say what holds.
    fn write_down(
        &mut self,
        instance: &Instance,
        tables: &Tables,
        banned: &[(Key, Penalty)],
        now_ns: u64,
    ) -> Result<()> {
        let caught_up = if self.failed.is_some() { Ok(false) } else { self.catch_up() };
        let mut ban = Vec::new();
        for (key, penalty) in banned {
            if self.written.get(key) == Some(&penalty.banned_until_ns) {
                continue;
            }
            let Some(written) = state::written(&self.services, key, penalty) else { continue };
            if penalty.is_banned(now_ns) && penalty.cause == Cause::Ladder as u32 {
                info!(
                    "{}: banned {} for {}, because it kept connecting after refusals (ban {} in a row)",
                    written.who.service,
                    written.who.source,
                    humantime::format_duration(Duration::from_secs(
                        (penalty.banned_until_ns - penalty.banned_at_ns) / 1_000_000_000
                    )),
                    penalty.bans
                );
            }
            ban.push(written);
        }
        let now: HashMap<Key, u64> =
            banned.iter().map(|(key, penalty)| (*key, penalty.banned_until_ns)).collect();
        let over =
            self.written.iter().filter(|(key, until_ns)| **until_ns > now_ns && !now.contains_key(key));
        let end: Vec<_> = over.filter_map(|(key, _)| state::who(&self.services, key)).collect();
        // Whether that can be written or not, it was said.
        self.written = now;
        let is_whole = caught_up?;
        let clock = Clock::now()?;
        if is_whole {
            let is_set =
                !self.written.is_empty() && self.clock.is_some_and(|before| before.step_ms(clock) > STEP_MS);
            if ban.is_empty() && end.is_empty() && !is_set {
                return Ok(());
            }
            debug!("saving {} bans, and {} that have ended", ban.len(), end.len());
            state::put(&self.journal, tables, &Line::new(clock, ban, end))?;
        } else if self.failed.is_some_and(|failed| failed.elapsed() < TRY_AGAIN)
            || self.seen.is_none() && self.written.is_empty()
        {
            // Not yet; or there is no file, and nothing to write.
            return Ok(());
        } else {
            state::save(instance, tables)?;
        }
        if self.failed.take().is_some() {
            info!("bans are saved to {} again", self.journal.path().display());
        }
        self.clock = Some(clock);
        self.seen = self.journal.extent()?;
        Ok(())
    }

    /// Reads what others have written; `false` where the file has to be written anew.
    fn catch_up(&mut self) -> Result<bool> {
        let (news, extent) = self.journal.news(self.seen)?;
        let mut is_whole = true;
        match news {
            News::Nothing => {}
            News::Lines(lines) => {
                for line in lines {
                    for key in line.end.iter().filter_map(|who| state::key(&self.services, who)) {
                        self.written.remove(&key);
                    }
                    let banned = line.ban.iter();
                    self.written.extend(
                        banned.filter_map(|ban| Some((state::key(&self.services, &ban.who)?, ban.until_ns))),
                    );
                    self.clock = Some(line.clock());
                }
            }
            News::All(contents) => {
                is_whole = extent.is_some()
                    && contents.is_of(self.journal.boot())
                    && contents.damaged == 0
                    && !contents.is_torn;
                self.written = contents
                    .bans
                    .values()
                    .filter(|_| contents.is_of(self.journal.boot()))
                    .filter_map(|ban| Some((state::key(&self.services, &ban.who)?, ban.until_ns)))
                    .collect();
                self.clock = contents.clock;
            }
        }
        self.seen = extent;
        Ok(is_whole)
    }
}

/// Which of the bans do not hold, and why.
fn idle(
    tables: &Tables,
    services: &[(ServiceId, ServicePolicy)],
    penalties: &[(Key, Penalty)],
    now_ns: u64,
) -> Result<HashMap<Key, String>> {
    let mut idle = HashMap::new();
    for (key, _) in penalties.iter().filter(|(_, penalty)| penalty.is_banned(now_ns)) {
        if let Some(because) = super::idle(tables, services, key)? {
            idle.insert(*key, because);
        }
    }
    Ok(idle)
}
