// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where the shield is: on the interfaces that lead to the world, as they come and go. Where it cannot be,
//! admission and gate refuse the same, at a higher price.

mod driver;
mod network;

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use self::network::{Network, Wanted};
use crate::{
    config::Interfaces,
    instance::Instance,
    kernel::shield::{self, Hook, Shield},
    netlink::{self, Watch},
    staged,
};

/// How often it is tried again where it could not be attached: not everything that was in the way says so
/// when it goes.
const AGAIN: Duration = Duration::from_secs(30);

/// How the shield is on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel, behind the driver.
    Generic,
    /// Not at all.
    None,
}

/// The shield on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its number; none if there is no such interface.
    pub index: Option<u32>,
    /// How the shield is there.
    pub mode: Mode,
    /// Why not better.
    pub why: Option<String>,
    /// Whether `auto` leaves it alone, so that it is right that the shield is not there.
    #[serde(default)]
    pub left_alone: bool,
    /// What it costs traffic that it has nothing to say about; none if nothing, or not there.
    #[serde(default)]
    pub cost: Option<String>,
}

/// Keeps the shield where it should be.
pub struct Keeper {
    shield: Shield,
    watch: Watch,
    instance: Instance,
    /// What was wanted last, and when; none before the first time.
    last: Option<(Interfaces, Instant)>,
    /// Whether something has changed while it was put in place.
    is_stale: bool,
    attachments: Vec<Attachment>,
}

impl Keeper {
    /// In the network namespace this thread is in.
    pub fn new(shield: Shield, instance: &Instance) -> Result<Self> {
        let watch = Watch::new(netlink::LINKS | netlink::ADDRESSES | netlink::ROUTES)?;
        // What another daemon has found.
        let attachments = attachments(instance).unwrap_or_default();
        Ok(Self { shield, watch, instance: instance.clone(), last: None, is_stale: false, attachments })
    }

    /// Puts the shield where it should be, if anything has changed since the last call.
    pub fn round(&mut self, interfaces: &Interfaces) {
        let has_changed = self.watch.has_changed();
        let is_new = self.last.as_ref().is_none_or(|(last, _)| last != interfaces);
        let is_due = self.last.as_ref().is_some_and(|(_, at)| at.elapsed() >= AGAIN);
        if !has_changed && !self.is_stale && !is_new && !is_due && !self.is_missing() {
            return;
        }
        let is_first = self.last.is_none();
        self.last = Some((interfaces.clone(), Instant::now()));
        self.is_stale = false;
        match self.look_after(interfaces, is_new) {
            Ok(attachments) => self.tell(attachments, is_first),
            Err(problem) => error!("cannot maintain the shield: {problem:#}"),
        }
    }

    fn look_after(&mut self, interfaces: &Interfaces, is_new: bool) -> Result<Vec<Attachment>> {
        let network = Network::read()?;
        let attachments = self.settle(&network, interfaces, is_new)?;
        // Some drivers have the link flap, even where they refuse: that alone is no reason to try again.
        self.is_stale = self.watch.has_changed() && Network::read()?.has_other_links(&network);
        Ok(attachments)
    }

    /// Whether it is not where it was put: someone has detached it.
    fn is_missing(&self) -> bool {
        self.shield.devices().is_ok_and(|devices| devices.iter().any(|(_, program)| program.is_none()))
    }

    /// Attaches and detaches.
    ///
    /// Where it is, it stays until the configuration says something new, though the interface may face the
    /// world no longer: it harms nothing there, and some drivers take the link down for a moment when a
    /// program comes or goes, and with the link its routes.
    fn settle(
        &mut self,
        network: &Network,
        interfaces: &Interfaces,
        is_new: bool,
    ) -> Result<Vec<Attachment>> {
        let mut wanted = network.wanted(interfaces);
        let indices: BTreeSet<u32> = wanted
            .iter()
            .filter(|wanted| wanted.left_alone.is_none())
            .filter_map(|wanted| wanted.index)
            .collect();
        let mut on = BTreeSet::new();
        for (device, program) in self.shield.devices()? {
            let link = network.links.get(&device);
            // In another namespace there may be one of the same number.
            let is_here = link.and_then(|link| link.program).is_some_and(|found| Some(found.id) == program);
            let is_native = link.and_then(|link| link.program).is_some_and(|program| program.is_native);
            let is_wanted = stays(interfaces, is_new, indices.contains(&device), is_native);
            match (link, program) {
                (Some(link), Some(program)) if is_here && is_wanted => {
                    self.shield.renew(device, program)?;
                    on.insert(device);
                    if !indices.contains(&device) {
                        wanted.retain(|wanted| wanted.index != Some(device));
                        wanted.push(Wanted {
                            name: link.name.clone(),
                            index: Some(device),
                            left_alone: None,
                        });
                    }
                }
                _ => self.shield.detach(device)?,
            }
        }
        let mut attachments = Vec::new();
        for Wanted { name, index, left_alone } in wanted {
            let is_left_alone = left_alone.is_some();
            let (mode, why) = match index {
                _ if is_left_alone => (Mode::None, left_alone),
                Some(device) => self.attachment(network, device, on.contains(&device), interfaces),
                None => (Mode::None, Some("no such interface".to_owned())),
            };
            let driver = index.and_then(|device| network.links.get(&device)?.driver.as_deref());
            let cost = match mode {
                Mode::Native => driver::native_cost(driver),
                Mode::Generic => Some(driver::generic_cost()),
                Mode::None => None,
            };
            attachments.push(Attachment {
                interface: name,
                index,
                mode,
                why,
                left_alone: is_left_alone,
                cost,
            });
        }
        attachments.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(attachments)
    }

    /// Attaches it to a device, unless it is on it already.
    fn attachment(
        &mut self,
        network: &Network,
        device: u32,
        is_on: bool,
        interfaces: &Interfaces,
    ) -> (Mode, Option<String>) {
        let Some(link) = network.links.get(&device) else { return (Mode::None, None) };
        if is_on {
            let is_native = link.program.is_some_and(|program| program.is_native);
            // Why it is not native was said when it was attached, perhaps by another daemon.
            let before = self.attachments.iter().find(|attachment| attachment.index == Some(device));
            let why = before
                .filter(|attachment| attachment.mode == Mode::Generic)
                .and_then(|attachment| attachment.why.clone());
            return if is_native { (Mode::Native, None) } else { (Mode::Generic, why) };
        }
        if !self.shield.is_loaded() {
            return (Mode::None, Some("this kernel refused the program".to_owned()));
        }
        if !link.is_ethernet {
            return (Mode::None, Some("its packets have no Ethernet header".to_owned()));
        }
        let is_taken = |errno| matches!(errno, Errno::EBUSY | Errno::EEXIST);
        let taken = || {
            (
                Mode::None,
                Some(
                    "another XDP program is attached to it, or to an interface above or below it".to_owned(),
                ),
            )
        };
        // A veth's native mode takes away from the sender that packets may stay bundled, and has another thread handle
        // each: a tenth of the throughput of everything is left. Behind the driver they are looked at as they are.
        let native = if link.is_veth { None } else { Some(self.shield.attach(device, Hook::Native)) };
        let not_native = match native {
            Some(Ok(())) => return (Mode::Native, None),
            Some(Err(errno)) if is_taken(errno) => return taken(),
            Some(Err(Errno::EOPNOTSUPP)) => "its driver has no native mode".to_owned(),
            Some(Err(errno)) => format!("its driver refuses the native mode: {}", errno.desc()),
            None => "on a veth the native mode slows all traffic more".to_owned(),
        };
        // Nobody has asked for it by name, so nobody has its packets copied for it.
        if *interfaces == Interfaces::Auto {
            return (Mode::None, Some(not_native));
        }
        match self.shield.attach(device, Hook::Generic) {
            Ok(()) => (Mode::Generic, Some(not_native)),
            Err(errno) if is_taken(errno) => taken(),
            Err(errno) => (Mode::None, Some(format!("{not_native}, and the generic one: {}", errno.desc()))),
        }
    }

    /// Says what is new, once.
    fn tell(&mut self, attachments: Vec<Attachment>, is_first: bool) {
        if attachments == self.attachments && !is_first {
            return;
        }
        for attachment in
            attachments.iter().filter(|attachment| is_first || !self.attachments.contains(attachment))
        {
            match attachment.mode {
                Mode::None if attachment.left_alone => {
                    info!("the shield is not on {}: {}", attachment.interface, attachment.reason());
                }
                Mode::None => warn!("{}", attachment.warning()),
                Mode::Native | Mode::Generic => info!("the shield is on {attachment}"),
            }
        }
        for gone in &self.attachments {
            if gone.mode != Mode::None
                && !attachments.iter().any(|attachment| attachment.interface == gone.interface)
            {
                info!("the shield is no longer on {}", gone.interface);
            }
        }
        self.attachments = attachments;
        if let Err(problem) = self.write() {
            error!("`limiter status` cannot show where the shield is: {problem:#}");
        }
    }

    fn write(&self) -> Result<()> {
        let path = self.instance.shield_path();
        let replaced = staged::replace(&path, &serde_json::to_vec(&self.attachments)?, staged::PUBLIC);
        replaced.with_context(|| format!("cannot write {}", path.display()))?.or_not();
        Ok(())
    }
}

impl Attachment {
    /// Whether it should be there, and is not.
    pub fn is_missing(&self) -> bool {
        self.mode == Mode::None && !self.left_alone
    }

    fn reason(&self) -> &str {
        self.why.as_deref().unwrap_or("it cannot be attached")
    }

    /// What to say where it is not.
    pub fn warning(&self) -> String {
        format!(
            "the shield is not on {}: {}; denied and banned sources are still refused, at a higher cost",
            self.interface,
            self.reason()
        )
    }
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.mode {
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::None => "none",
        };
        write!(f, "{}: {mode}", self.interface)?;
        self.why.iter().try_for_each(|why| write!(f, " ({why})"))?;
        self.cost.iter().try_for_each(|cost| write!(f, "; {cost}"))
    }
}

/// Whether the shield stays on an interface where it is: `is_new` if the configuration is, `is_wanted` if it would
/// be attached there now.
fn stays(interfaces: &Interfaces, is_new: bool, is_wanted: bool, is_native: bool) -> bool {
    match interfaces {
        Interfaces::Named(_) => is_wanted,
        // Generic it is where a name has put it, or a version of the limiter that did so by itself.
        Interfaces::Auto => is_native && (is_wanted || !is_new),
    }
}

/// Where the shield of an instance is, as its daemon said last; what of it is true no longer is not said.
pub fn attachments(instance: &Instance) -> Result<Vec<Attachment>> {
    let path = instance.shield_path();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut attachments: Vec<Attachment> =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
    for attachment in &mut attachments {
        if let Some(device) = attachment.index
            && attachment.mode != Mode::None
            && !shield::is_on(&instance.pins(), device)?
        {
            attachment.mode = Mode::None;
            attachment.why = Some("the interface is gone, or somebody detached it".to_owned());
            attachment.cost = None;
        }
    }
    Ok(attachments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_auto_has_put_somewhere_stays_until_the_configuration_says_something_new() {
        let named = Interfaces::Named(vec!["eth0".to_owned()]);
        for is_native in [false, true] {
            for is_new in [false, true] {
                assert!(stays(&named, is_new, true, is_native));
                assert!(!stays(&named, is_new, false, is_native));
                assert_eq!(stays(&Interfaces::Auto, is_new, true, is_native), is_native, "never generic");
                assert_eq!(stays(&Interfaces::Auto, is_new, false, is_native), is_native && !is_new);
            }
        }
    }

    #[test]
    fn what_an_older_daemon_has_written_can_be_read() {
        let text =
            r#"[{"interface":"eth0","index":2,"mode":"generic","why":"its driver has no native mode"}]"#;
        let attachments: Vec<Attachment> = serde_json::from_str(text).unwrap();
        assert!(!attachments[0].left_alone && attachments[0].cost.is_none());
    }
}
