// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What several checks look at.

use std::sync::OnceLock;

use limiter_common::Counters;

use super::overflows::Overflows;
use crate::{
    config::{self, Config},
    evidence::{self, Listening, Running},
    instance::Instance,
    kernel::{Found, Tables, environment},
    loaded,
    status::{self, About, Service, Status},
};

/// What is known before the checks begin.
pub struct Context {
    pub instance: Instance,
    /// What is loaded.
    pub state: State,
    /// Whether this thread, and those that it starts, are in the network namespace that is protected, or, if nothing is
    /// loaded, in the only one that there is to look at.
    pub sees_network: bool,
    /// The services that there are, or that there would be.
    pub services: Vec<Service>,
    /// `net.core.bpf_jit_enable`, which only the first network namespace shows.
    pub jit: Option<String>,
    /// What was dropped because queues were full, at the beginning.
    pub overflows: Option<Overflows>,
    listening: OnceLock<Result<Vec<Listening>, String>>,
    mail: OnceLock<Vec<Running>>,
}

/// What is loaded.
pub enum State {
    /// Nothing; in a sentence.
    Nothing(String),
    /// It cannot be told, for this reason.
    Unknown(String),
    /// Maps of another build, which differ in this way.
    Other(String),
    /// An instance.
    Loaded(Box<Status>),
}

impl Context {
    /// Looks. Enters the network namespace that is protected, if there is a way.
    pub fn look(instance: &Instance) -> Self {
        let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
        let state = state(instance);
        let (sees_network, services) = match &state {
            State::Loaded(status) => (is_in_protected(instance), status.services.clone()),
            State::Nothing(_) | State::Unknown(_) | State::Other(_) => (true, configured(instance)),
        };
        Self {
            instance: instance.clone(),
            state,
            sees_network,
            services,
            jit,
            overflows: Overflows::now(),
            listening: OnceLock::new(),
            mail: OnceLock::new(),
        }
    }

    /// The instance, if it is loaded.
    pub fn status(&self) -> Option<&Status> {
        match &self.state {
            State::Loaded(status) => Some(status),
            State::Nothing(_) | State::Unknown(_) | State::Other(_) => None,
        }
    }

    /// The maps of the instance, if it is loaded.
    pub fn tables(&self) -> Option<Result<Tables, String>> {
        self.status()?;
        Some(Tables::open(&self.instance.pins()).map_err(|problem| format!("{problem:#}")))
    }

    /// What `limiter status` warns of.
    pub fn warnings(&self, about: About) -> impl Iterator<Item = &str> {
        let warnings = self.status().into_iter().flat_map(|status| &status.warnings);
        warnings.filter(move |warning| warning.about == about).map(|warning| warning.text.as_str())
    }

    /// Who listens at the ports of the services, in the network namespace that this is about.
    pub fn listening(&self) -> Result<&[Listening], String> {
        let found = self.listening.get_or_init(|| listening(&self.services));
        found.as_deref().map_err(Clone::clone)
    }

    /// The mail daemons that listen, with their settings.
    pub fn mail(&self) -> &[Running] {
        self.mail.get_or_init(|| evidence::running(self.listening().unwrap_or_default()))
    }

    /// Why the network that is protected cannot be looked at.
    pub fn not_seen(&self) -> String {
        format!(
            "limiter cannot enter the network namespace that instance {} protects, so this is not known: start the \
             daemon, or run the command in that namespace",
            self.instance
        )
    }
}

fn state(instance: &Instance) -> State {
    if let Err(problem) = environment::check() {
        return State::Unknown(format!("{problem:#}"));
    }
    let sentence = |problem: anyhow::Error| format!("{problem:#}");
    if let Ok(Found::Other(difference)) = Found::inspect(instance) {
        return State::Other(difference);
    }
    match loaded::steadily(instance, || status::look(instance, false)) {
        Ok(Some(status)) => State::Loaded(Box::new(status)),
        Ok(None) => match loaded::refuse_elsewhere(instance) {
            Ok(()) => State::Nothing(loaded::nothing_loaded(instance)),
            Err(elsewhere) => State::Unknown(sentence(elsewhere)),
        },
        Err(problem) => State::Unknown(sentence(problem)),
    }
}

/// Whether this thread is where the limits are.
fn is_in_protected(instance: &Instance) -> bool {
    let Ok(Found::Current(tables)) = Found::inspect(instance) else { return false };
    let here = environment::netns_cookie();
    tables.protects().is_ok_and(|(protected, _)| here.is_ok_and(|here| here == protected))
}

/// The services that a daemon would have with its file, or with none.
fn configured(instance: &Instance) -> Vec<Service> {
    let named = instance.config_path().ok().flatten();
    let path = named.unwrap_or_else(|| config::DEFAULT_PATH.into());
    let Config { services, .. } = config::load(&path).unwrap_or_default();
    let service = |service: &config::Service| {
        Service::new(&service.policy(), service.ports.clone(), 0, 0, 0.0, Counters::default())
    };
    services.iter().map(service).collect()
}

fn listening(services: &[Service]) -> Result<Vec<Listening>, String> {
    let is_ours = |port| services.iter().any(|service| service.ports.contains(&port));
    evidence::listening(is_ours).map_err(|problem| format!("{problem:#}"))
}
