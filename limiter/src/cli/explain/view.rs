// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `limiter explain` prints of a standing: with `--json` as it is here.

use limiter_common::{Action, Protocol, Reason, Response};
use serde::Serialize;

use crate::{
    diagnose::{self, Diagnosis, Unknown},
    evidence::case::{Case, DaemonLimit, LimitScope},
    ledger::Refusals,
    standing::{self, Facts, Remedy, Standing},
};

/// What is known of an address.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    pub address: String,
    /// What was asked for, where that is not the address: a name, or a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Whether it is the host itself, which is never refused.
    pub local: bool,
    /// The rule that counts for it, if there is one.
    pub rule: Option<Rule>,
    pub services: Vec<AtService>,
    /// The other addresses of the name that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Explanation>,
}

/// A rule.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    pub network: String,
    /// `allow`, `deny` or `limit`.
    #[cfg_attr(test, schemars(schema_with = "crate::schema::action"))]
    pub action: Action,
}

/// Where the address stands with one service.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AtService {
    pub service: String,
    /// The network it is counted as.
    pub source: String,
    /// Whether it shares that with others, because there is no room in the ledger for an entry of its own.
    pub shared: bool,
    pub connections: u32,
    pub limit: Option<u32>,
    /// The larger network it is in, where those have a limit.
    pub network: Option<Network>,
    /// Connections of the whole service.
    pub total: u32,
    pub max_total: Option<u32>,
    /// How often it was refused since it is known, or as far back as it is remembered: whichever is more.
    pub refused: u64,
    /// How often for which reason, and when last.
    #[serde(flatten)]
    pub refusals: Refusals,
    /// Connections of the source that got in because the service only observes.
    pub would_refuse: u32,
    /// Replies that it gets before it gets resets; none where nobody gets any, or replies have no budget.
    pub replies_left: Option<u64>,
    /// Handshakes of the source that wait for a place.
    pub waiting: u32,
    /// Seconds that the first of them has waited.
    pub waiting_seconds: f64,
    /// Whether verdicts are only counted.
    pub observed: bool,
    /// What its next connection would get.
    pub verdict: &'static str,
    /// Why it would be refused, or would be if the service did more than observe: `denied`, `banned`, `total`, `network`,
    /// `concurrency` or `rate`.
    #[cfg_attr(test, schemars(schema_with = "crate::schema::reason_or_null"))]
    pub reason: Option<Reason>,
    /// Seconds until its ban ends; 0 if there is none.
    pub banned_seconds: u64,
    /// Milliseconds until the rate allows its next connection; 0 if it does now.
    pub wait_ms: u64,
    /// What lets it in, if it would be refused: the words behind `limiter`.
    pub remedy: Option<String>,
    /// Why it holds so many connections or is refused; none where there is nothing to ask.
    pub diagnosis: Option<Diagnosis>,
    /// Limits of the mail daemon's own that are nearer than the limiter's.
    pub nearer_limits: Vec<NearerLimit>,
    /// What its clients speak.
    #[serde(skip)]
    pub protocol: Option<Protocol>,
    /// The remedy, to be said of several services at once.
    #[serde(skip)]
    pub change: Option<Remedy>,
    /// How its next connection would be refused.
    #[serde(skip)]
    pub response: Option<Response>,
}

/// A limit of the mail daemon's own.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NearerLimit {
    pub daemon: &'static str,
    pub setting: String,
    pub value: u64,
    /// Whom it is for: `source`, `user at source` or `service`.
    pub scope: &'static str,
    /// The file to edit.
    pub file: String,
    /// The command that makes the mail daemon read it again.
    pub reload: &'static str,
}

impl NearerLimit {
    fn of(limit: &DaemonLimit) -> Option<Self> {
        let DaemonLimit { daemon, setting, value, scope, file, reload } = limit;
        let scope = match scope {
            LimitScope::Source => "source",
            LimitScope::UserAtSource => "user at source",
            LimitScope::Service => "service",
        };
        Some(Self { daemon, setting: setting.clone(), value: (*value)?, scope, file: file.clone(), reload })
    }
}

/// Where the larger network of the address stands.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Network {
    pub network: String,
    pub connections: u32,
    /// The limit that it has for this address; none if a rule takes it away.
    pub limit: Option<u32>,
}

impl Explanation {
    pub fn of(standing: &Standing) -> Self {
        let address = standing.address.to_string();
        let rule = standing.rule.as_ref().filter(|rule| !rule.built_in);
        Self {
            local: standing.is_local(),
            rule: rule.map(|rule| Rule { network: rule.network.to_string(), action: rule.action }),
            services: standing.services.iter().map(|at| AtService::of(at, &address)).collect(),
            address,
            asked: None,
            also: Vec::new(),
        }
    }

    /// With what these cases say.
    pub fn diagnosed(mut self, cases: &[Case]) -> Self {
        for at in &mut self.services {
            if let Some(case) = cases.iter().find(|case| case.service == at.service) {
                at.nearer_limits = diagnose::nearer(case).into_iter().filter_map(NearerLimit::of).collect();
                at.diagnosis = Some(diagnose::diagnose(case));
            }
        }
        self
    }

    /// With the reason why nothing else is known.
    pub fn undiagnosed(mut self, problem: &anyhow::Error) -> Self {
        let what = format!("its connections cannot be looked at: {problem:#}");
        for at in self.services.iter_mut().filter(|at| at.reason.is_some()) {
            let unknown = Unknown { what: what.clone(), would_tell: None };
            at.diagnosis = Some(Diagnosis { unknown: vec![unknown], ..Diagnosis::default() });
        }
        self
    }
}

impl AtService {
    /// The name of what its clients speak.
    pub fn protocol_name(&self) -> &'static str {
        self.protocol.map_or("", Protocol::name)
    }

    fn of(at: &standing::AtService, address: &str) -> Self {
        let Facts { policy, count_keys, usage, entry, waiting, .. } = &at.facts;
        Self {
            service: at.name().to_owned(),
            source: count_keys.source.addresses().to_string(),
            shared: at.is_shared(),
            connections: usage.source.connections(),
            limit: number(if at.limits.denied { 0 } else { at.limits.source }),
            network: count_keys.has_network().then(|| Network {
                network: count_keys.network.addresses().to_string(),
                connections: usage.network.connections(),
                limit: number(at.network_limit),
            }),
            total: usage.total.connections(),
            max_total: number(at.limits.total),
            refused: at.refused(),
            refusals: at.refusals.clone(),
            would_refuse: entry.would_refuse,
            replies_left: at.replies_left,
            waiting: waiting.count,
            waiting_seconds: at.waiting_seconds,
            observed: policy.observes(),
            verdict: if at.is_refused() { "refuse" } else { "admit" },
            reason: at.reason,
            banned_seconds: at.banned_ns.div_ceil(1_000_000_000),
            wait_ms: at.wait_ns.div_ceil(1_000_000),
            remedy: at.remedy.as_ref().map(|remedy| remedy.command(address, &[at.name()])),
            diagnosis: None,
            nearer_limits: Vec::new(),
            protocol: Protocol::from_u8(policy.protocol),
            change: at.remedy.clone(),
            response: at.response,
        }
    }
}

/// A limit, if it is one.
fn number(limit: u32) -> Option<u32> {
    (limit != u32::MAX).then_some(limit)
}
