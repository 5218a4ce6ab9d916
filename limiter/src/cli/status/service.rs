// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A service in the answer of `limiter status`, and what is counted of it.

use std::collections::BTreeMap;

use limiter_common::{Counters, Mode, Reason, Response, ServicePolicy};
use serde::Serialize;

use crate::config;

#[derive(Serialize)]
pub struct Service {
    pub(in crate::cli) name: String,
    pub(super) ports: Vec<u16>,
    pub(super) protocol: &'static str,
    pub(super) max_connections: u32,
    /// As the configuration writes it.
    pub(super) rate: Option<String>,
    pub(super) burst: Option<u32>,
    pub(super) network: Option<config::Network>,
    pub(super) max_total: Option<u32>,
    pub(super) reserve: u32,
    pub(super) keepalive_seconds: Option<u32>,
    /// How long a handshake without a place waits for one; 0: its client is told at once.
    pub(super) wait_seconds: u8,
    /// `enforce`, or `observe` where verdicts are only counted.
    pub(super) mode: Mode,
    pub(super) response: Response,
    pub(super) connections: u32,
    /// Handshakes that wait for a place.
    pub(super) waiting: u32,
    /// Seconds that the first of them has waited.
    pub(super) waiting_first_seconds: f64,
    pub(super) counters: CounterValues,
}

#[derive(Serialize)]
pub struct CounterValues {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) would_refuse: BTreeMap<&'static str, u64>,
    pub(super) refused_denied: u64,
    pub(super) refused_banned: u64,
    pub(super) refused_total: u64,
    pub(super) refused_network: u64,
    pub(super) refused_concurrency: u64,
    pub(super) refused_rate: u64,
    pub(super) replied: u64,
    pub(super) held: u64,
    pub(super) let_in: u64,
    pub(super) told: u64,
    pub(super) gone: u64,
    pub(super) lost_turn: u64,
    pub(super) unrecorded: u64,
    pub(super) contended: u64,
    pub(super) unreserved: u64,
    pub(super) uncounted: u64,
    pub(super) shared: u64,
    pub(super) banned: u64,
    pub(super) unjudged: u64,
    pub(super) dropped: u64,
    pub(super) adopted: u64,
    pub(super) drift: u64,
}

impl Service {
    /// What the kernel knows of one, in words.
    pub fn new(
        policy: &ServicePolicy,
        ports: Vec<u16>,
        connections: u32,
        waiting: u32,
        waiting_first_seconds: f64,
        counters: Counters,
    ) -> Self {
        Self {
            name: policy.name().to_owned(),
            ports,
            protocol: config::protocol_name(policy.protocol),
            max_connections: policy.max_connections,
            rate: config::RateSpec::of(&policy.rate).map(|spec| spec.to_string()),
            burst: policy.rate.is_limited().then(|| policy.rate.burst()),
            network: policy.has_network().then_some(config::Network {
                ipv4_prefix: policy.network.ipv4,
                ipv6_prefix: policy.network.ipv6,
                max_connections: policy.network_max_connections,
            }),
            max_total: (policy.max_total != 0).then_some(policy.max_total),
            reserve: policy.reserve,
            keepalive_seconds: Some(policy.keepalive.seconds()).filter(|&seconds| seconds != 0),
            wait_seconds: policy.wait_s,
            mode: Mode::from_u8(policy.mode),
            response: Response::from_u8(policy.response),
            connections,
            waiting,
            waiting_first_seconds,
            counters: CounterValues::from(counters),
        }
    }
}

impl From<Counters> for CounterValues {
    fn from(sum: Counters) -> Self {
        let Counters {
            accepted,
            refused,
            would_refuse,
            replied,
            held,
            let_in,
            told,
            gone,
            lost_turn,
            unrecorded,
            contended,
            unreserved,
            uncounted,
            shared,
            banned,
            unjudged,
            dropped,
            adopted,
            drift,
        } = sum;
        Self {
            accepted,
            refused: refused.iter().sum(),
            would_refuse: Reason::ALL
                .into_iter()
                .map(|reason| (reason.name(), would_refuse[reason as usize]))
                .collect(),
            refused_denied: refused[Reason::Denied as usize],
            refused_banned: refused[Reason::Banned as usize],
            refused_total: refused[Reason::Total as usize],
            refused_network: refused[Reason::Network as usize],
            refused_concurrency: refused[Reason::Concurrency as usize],
            refused_rate: refused[Reason::Rate as usize],
            replied,
            held,
            let_in,
            told,
            gone,
            lost_turn,
            unrecorded,
            contended,
            unreserved,
            uncounted,
            shared,
            banned,
            unjudged,
            dropped,
            adopted,
            drift,
        }
    }
}
