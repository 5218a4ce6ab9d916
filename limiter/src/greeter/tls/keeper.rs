// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Keeps the certificates current: reads them at the start, when the configuration names others, and when their files
//! change. What is read is checked as a whole before it is used; what cannot be used leaves the old one in use.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{
    certificate::{self, Set, Stamp, Unusable, Usable},
    signer::Bound,
};
use crate::{
    config::{CertificateFiles, Service},
    greeter::{
        health::{Health, Process},
        settings::Settings,
        totals::{Snapshot, Totals},
    },
    staged,
};

/// How often a certificate is read again that could not be used for its dates: only the clock has to change.
const AGAIN: Duration = Duration::from_secs(60);

/// How many names of a certificate a line has.
const NAMES_SHOWN: usize = 3;

/// What the daemon says of its greeter, for `limiter status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process, and what it did.
    pub greeter: State,
    /// The certificates that the configuration names, in its order, and those that it names no longer, and that stay
    /// in use.
    pub certificates: Vec<Certificate>,
    /// What is not as it should be, a sentence each.
    pub warnings: Vec<String>,
}

/// The greeter's process, and what all that there were have done since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How it is.
    #[serde(flatten)]
    pub process: Process,
    /// What it did.
    #[serde(flatten)]
    pub totals: Snapshot,
}

/// What became of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The services that it is for, or that use it still.
    pub services: Vec<String>,
    /// Its file.
    pub certificate: PathBuf,
    /// That of its key.
    pub key: PathBuf,
    /// The names it is for; none where none is in use.
    pub names: Vec<String>,
    /// When the one in use ends.
    pub expires: Option<String>,
    /// Why what the files contain now is not in use.
    pub problem: Option<String>,
}

impl fmt::Display for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, certificate, names, expires, .. } = self;
        write!(out, "certificate for {}", services.join(", "))?;
        let (shown, more) = names.split_at(names.len().min(NAMES_SHOWN));
        match (shown, more.len()) {
            ([], _) => {}
            (shown, 0) => write!(out, " ({})", shown.join(", "))?,
            (shown, more) => write!(out, " ({} and {more} more)", shown.join(", "))?,
        }
        let certificate = certificate.display();
        match expires {
            Some(expires) => write!(out, ": {certificate}, expires on {expires}"),
            None => write!(out, ": {certificate}, not in use"),
        }
    }
}

impl Report {
    /// As the daemon wrote it last; none if it did not.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_slice(&text).map(Some).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// A file, or why it could not be looked at.
type Seen = Result<Stamp, Option<i32>>;

/// A pair of files that the configuration names, or that stays in use.
#[derive(Debug)]
struct Known {
    /// What is in use of them.
    usable: Option<Arc<Usable>>,
    /// Why that is not what they contain now.
    problem: Option<Unusable>,
    /// As they were when they were read.
    read: [Seen; 2],
    /// As they were seen last.
    seen: [Seen; 2],
    read_at: SystemTime,
}

/// A certificate in use, and its files.
type Used = (CertificateFiles, Arc<Usable>);

/// Keeps them.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    totals: Totals,
    health: Health,
    bound: Bound,
    known: BTreeMap<CertificateFiles, Known>,
    /// By service, in the order of the configuration.
    used: BTreeMap<String, Vec<Used>>,
    /// The ports that were set last, and with which certificates.
    set: Option<Vec<Set>>,
    /// Where the report goes.
    path: PathBuf,
    report: Option<Report>,
    is_unwritable: bool,
}

impl Keeper {
    /// One that has read nothing yet, and says so at `path`.
    #[must_use]
    pub fn new(settings: Settings, totals: Totals, health: Health, path: PathBuf) -> Self {
        Self {
            settings,
            totals,
            health,
            bound: Bound::new(),
            known: BTreeMap::new(),
            used: BTreeMap::new(),
            set: None,
            path,
            report: None,
            is_unwritable: false,
        }
    }

    /// Looks at all that the services name, and has the greeter use it.
    pub fn round(&mut self, services: &[Service], now: SystemTime) {
        // What has no such port needs no certificate.
        let services: Vec<Service> =
            services.iter().filter(|service| !service.tls_ports.is_empty()).cloned().collect();
        let services = &services[..];
        for files in self.order(services) {
            self.look(&files, now);
        }
        self.used = services.iter().map(|service| (service.name.clone(), self.of(service))).collect();
        let kept = self.order(services);
        self.known.retain(|files, _| kept.contains(files));
        self.put(services);
        let report = self.make_report(services, now);
        if self.report.as_ref() != Some(&report) {
            self.tell(&report);
            self.write(&report);
            self.report = Some(report);
        }
    }

    /// The pairs that the configuration names, in its order, and then those that it names no longer, and that stay in
    /// use.
    fn order(&self, services: &[Service]) -> Vec<CertificateFiles> {
        let named = services.iter().flat_map(|service| &service.tls);
        let used = services.iter().filter_map(|service| self.used.get(&service.name)).flatten();
        let mut order: Vec<CertificateFiles> = Vec::new();
        for files in named.chain(used.map(|(files, _)| files)) {
            if !order.contains(files) {
                order.push(files.clone());
            }
        }
        order
    }

    /// Reads a pair that is new, or another than it was. While it changes it is left alone: whoever renews a
    /// certificate replaces two files, one after the other.
    fn look(&mut self, files: &CertificateFiles, now: SystemTime) {
        let stamps = [Stamp::of(&files.certificate), Stamp::of(&files.key)];
        if let Some(known) = self.known.get_mut(files) {
            let was_seen = std::mem::replace(&mut known.seen, stamps);
            let is_of_time = matches!(known.problem, Some(Unusable::NotYetValid(..) | Unusable::Expired(..)))
                && now.duration_since(known.read_at).map_or(true, |since| since >= AGAIN);
            if (stamps == known.read || stamps != was_seen) && !is_of_time {
                return;
            }
        }
        let before = self.known.remove(files).and_then(|known| known.usable);
        let (usable, problem) = match certificate::load(files, &self.bound, now) {
            Ok(usable) => {
                let (path, expires) = (files.certificate.display(), certificate::date(usable.expires));
                info!("the certificate in {path} is in use; it expires on {expires}");
                (Some(Arc::new(usable)), None)
            }
            Err(problem) => (before, Some(problem)),
        };
        let known = Known { usable, problem, read: stamps, seen: stamps, read_at: now };
        self.known.insert(files.clone(), known);
    }

    /// What a service uses: what can be used of what the configuration names, or else what it has used before, as it
    /// is now.
    fn of(&self, service: &Service) -> Vec<Used> {
        let usable = |files: &CertificateFiles| {
            Some((files.clone(), Arc::clone(self.known.get(files)?.usable.as_ref()?)))
        };
        let used: Vec<Used> = service.tls.iter().filter_map(usable).collect();
        if used.is_empty() && !service.tls.is_empty() {
            let before = self.used.get(&service.name).into_iter().flatten();
            before.filter_map(|(files, _)| usable(files)).collect()
        } else {
            used
        }
    }

    /// Whether a service uses a pair that the configuration does not name for it.
    fn is_kept(&self, service: &Service, files: &CertificateFiles) -> bool {
        let used = self.used.get(&service.name).into_iter().flatten();
        !service.tls.contains(files) && used.map(|(files, _)| files).any(|used| used == files)
    }

    /// Has the greeter use it, where it is another than before.
    fn put(&mut self, services: &[Service]) {
        let of = |service: &Service| {
            let used = self.used.get(&service.name).into_iter().flatten();
            (service.tls_ports.clone(), used.map(|(_, usable)| Arc::clone(usable)).collect::<Vec<_>>())
        };
        let set: Vec<Set> = services.iter().map(of).collect();
        let is_same = |((ports, certificates), (before, used)): (&Set, &Set)| {
            let mut pairs = certificates.iter().zip(used);
            ports == before
                && certificates.len() == used.len()
                && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
        };
        let is_known = self
            .set
            .as_ref()
            .is_some_and(|before| before.len() == set.len() && set.iter().zip(before).all(is_same));
        if is_known {
            return;
        }
        self.settings.set_tls(set.clone());
        self.set = Some(set);
    }

    fn make_report(&self, services: &[Service], now: SystemTime) -> Report {
        let (totals, process) = (self.totals.snapshot(), self.health.process());
        let warnings = process.warning().into_iter().collect();
        let greeter = State { process, totals };
        let mut report = Report { greeter, certificates: Vec::new(), warnings };
        for files in &self.order(services) {
            let Some(known) = self.known.get(files) else { continue };
            let names = |of: &[&Service]| of.iter().map(|service| service.name.clone()).collect::<Vec<_>>();
            let of: Vec<&Service> = services.iter().filter(|service| service.tls.contains(files)).collect();
            let keep: Vec<&Service> =
                services.iter().filter(|service| self.is_kept(service, files)).collect();
            if let Some(problem) = known.problem.as_ref().filter(|_| !of.is_empty()) {
                let services = names(&of).join(", ");
                report.warnings.push(format!("{services}: {problem}; {}", self.instead(known, &of)));
            }
            if let Some(usable) = known.usable.as_ref().filter(|_| !keep.is_empty()) {
                let (services, path) = (names(&keep).join(", "), files.certificate.display());
                let expires = certificate::date(usable.expires);
                report.warnings.push(format!(
                    "{services}: the certificate in {path}, which the configuration no longer names, stays in use; it \
                     expires on {expires}"
                ));
            }
            if let Some(usable) = &known.usable {
                report.warnings.extend(usable.warnings(files, now));
            }
            report.certificates.push(Certificate {
                services: names(&[of, keep].concat()),
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                names: known.usable.iter().flat_map(|usable| usable.names.clone()).collect(),
                expires: known.usable.as_ref().map(|usable| certificate::date(usable.expires)),
                problem: known.problem.as_ref().map(Unusable::to_string),
            });
        }
        report
    }

    /// What happens where a certificate cannot be used.
    fn instead(&self, known: &Known, services: &[&Service]) -> String {
        if let Some(usable) = &known.usable {
            let expires = certificate::date(usable.expires);
            return format!("the certificate from before, which expires on {expires}, stays in use");
        }
        let has_other =
            |service: &&Service| self.used.get(&service.name).is_some_and(|used| !used.is_empty());
        if services.iter().all(has_other) {
            let keeps = |service: &&Service| {
                let mut used = self.used.get(&service.name).into_iter().flatten();
                used.any(|(files, _)| self.is_kept(service, files))
            };
            if services.iter().any(keeps) {
                return "until then, the certificate from before stays in use".to_owned();
            }
            let whose = if services.len() == 1 { "service" } else { "services" };
            return format!("the other certificates of the {whose} stay in use");
        }
        let whose = if services.len() == 1 { "its" } else { "their" };
        format!("until then, {whose} refused clients get a TLS alert instead of a reason")
    }

    /// Says what is new.
    fn tell(&self, report: &Report) {
        let known = self.report.as_ref().map_or(&[][..], |before| &before.warnings);
        for warning in report.warnings.iter().filter(|warning| !known.contains(warning)) {
            warn!("{warning}");
        }
    }

    fn write(&mut self, report: &Report) {
        let written = serde_json::to_vec(report)
            .map_err(Into::into)
            .and_then(|text| staged::replace(&self.path, &text, staged::PUBLIC));
        match written {
            Ok(durable) => {
                durable.or_not();
                self.is_unwritable = false;
            }
            Err(problem) if !std::mem::replace(&mut self.is_unwritable, true) => {
                error!(
                    "`limiter status` cannot show what the greeter does: cannot write {}: {problem}",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }
}
