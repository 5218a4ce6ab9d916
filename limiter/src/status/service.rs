// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A service in the answer of `limiter status`, and what is counted of it.

use std::collections::BTreeMap;

use limiter_common::{Counters, Mode, Reason, Response, ServicePolicy};
use serde::Serialize;

use crate::config;

#[derive(Clone, Serialize)]
pub struct Service {
    pub name: String,
    pub ports: Vec<u16>,
    pub protocol: &'static str,
    pub max_connections: u32,
    /// As the configuration writes it.
    pub rate: Option<String>,
    pub burst: Option<u32>,
    pub network: Option<config::Network>,
    pub max_total: Option<u32>,
    pub reserve: u32,
    pub keepalive_seconds: Option<u32>,
    /// How long a handshake without a place waits for one; 0: its client is told at once.
    pub wait_seconds: u8,
    /// `enforce`, or `observe` where verdicts are only counted.
    pub mode: Mode,
    pub response: Response,
    pub connections: u32,
    /// Handshakes that wait for a place.
    pub waiting: u32,
    /// Seconds that the first of them has waited.
    pub waiting_first_seconds: f64,
    pub counters: CounterValues,
}

#[derive(Clone, Serialize)]
pub struct CounterValues {
    pub accepted: u64,
    pub refused: u64,
    pub would_refuse: BTreeMap<&'static str, u64>,
    pub refused_denied: u64,
    pub refused_banned: u64,
    pub refused_total: u64,
    pub refused_network: u64,
    pub refused_concurrency: u64,
    pub refused_rate: u64,
    pub replied: u64,
    pub held: u64,
    pub let_in: u64,
    pub told: u64,
    pub gone: u64,
    pub lost_turn: u64,
    pub unrecorded: u64,
    pub contended: u64,
    pub unreserved: u64,
    pub uncounted: u64,
    pub shared: u64,
    pub banned: u64,
    pub unjudged: u64,
    pub dropped: u64,
    pub adopted: u64,
    pub drift: u64,
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
