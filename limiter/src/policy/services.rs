// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Services, by the name that people use and by the number that the kernel uses.

use std::collections::HashMap;

use limiter_common::{ServiceId, ServicePolicy};

/// The services of a policy, each with its number.
pub type Services = [(ServiceId, ServicePolicy)];

/// What people type where they mean every service; or a service of this name, if there is one.
pub const ALL: &str = "all";

/// The service with this number.
pub fn by_id(services: &Services, id: ServiceId) -> Option<&ServicePolicy> {
    services.iter().find(|(service, _)| *service == id).map(|(_, policy)| policy)
}

/// The service with this name.
pub fn by_name<'a>(services: &'a Services, name: &str) -> Option<(ServiceId, &'a ServicePolicy)> {
    services.iter().find(|(_, policy)| policy.name() == name).map(|(id, policy)| (*id, policy))
}

/// The name of a service, or that it is gone.
pub fn name(services: &Services, id: ServiceId) -> String {
    by_id(services, id).map_or_else(|| format!("(removed {})", id.0), |policy| policy.name().to_owned())
}

/// The number of each service, by its name.
pub fn numbers(services: &Services) -> HashMap<&str, ServiceId> {
    services.iter().map(|(id, policy)| (policy.name(), *id)).collect()
}

/// Services that somebody has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The services, sorted by name, each once.
    pub services: Vec<(ServiceId, ServicePolicy)>,
    /// Whether every service is meant, also one that comes later.
    pub is_all: bool,
}

impl Selection {
    /// Whether a service is one of them; where all were chosen, also one that is gone and of which something is left.
    pub fn includes(&self, id: ServiceId) -> bool {
        self.is_all || self.contains(id)
    }

    /// The names of the services.
    pub fn names(&self) -> Vec<&str> {
        self.services.iter().map(|(_, policy)| policy.name()).collect()
    }

    /// Whether the service with this number is among them.
    pub fn contains(&self, id: ServiceId) -> bool {
        by_id(&self.services, id).is_some()
    }
}

/// Somebody has named a service that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: choose from {}, several separated by commas, or {ALL}", wrong(.name), .known.join(", "))]
pub struct UnknownService {
    /// The name; empty if there is none before or after a comma.
    name: String,
    /// The services that exist, sorted by name.
    known: Vec<String>,
}

fn wrong(name: &str) -> String {
    if name.is_empty() {
        "a service name is missing before or after a comma".to_owned()
    } else {
        format!("unknown service {name}")
    }
}

/// The services that `text` names: one, several separated by commas, or [`ALL`]. Without a text, every service is meant.
/// The case of letters does not matter.
///
/// # Errors
/// When one of them does not exist.
pub fn select(services: &Services, text: Option<&str>) -> Result<Selection, UnknownService> {
    let mut selection = Selection { services: Vec::new(), is_all: text.is_none() };
    for name in text.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
        match services.iter().find(|(_, policy)| policy.name().eq_ignore_ascii_case(name)) {
            Some(service) => selection.services.push(*service),
            None if name.eq_ignore_ascii_case(ALL) => selection.is_all = true,
            None => {
                let mut known: Vec<String> =
                    services.iter().map(|(_, policy)| policy.name().to_owned()).collect();
                known.sort_unstable();
                return Err(UnknownService { name: name.to_owned(), known });
            }
        }
    }
    if selection.is_all {
        selection.services = services.to_vec();
    }
    selection.services.sort_by(|(_, a), (_, b)| a.name().cmp(b.name()));
    selection.services.dedup_by_key(|(id, _)| *id);
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Vec<(ServiceId, ServicePolicy)> {
        let service = |(name, id): (&&str, u8)| {
            let name = ServicePolicy::pack_name(name).unwrap();
            (ServiceId(id), ServicePolicy { name, ..ServicePolicy::default() })
        };
        names.iter().zip(1..).map(service).collect()
    }

    #[test]
    fn services_are_named_in_any_case_several_at_once_or_all() {
        let known = known(&["smtp", "imap", "submission"]);
        let named = |text| select(&known, text).map(|found| found.names().join(" "));
        assert_eq!(named(Some("IMAP")).unwrap(), "imap");
        assert_eq!(named(Some("submission,Imap, imap")).unwrap(), "imap submission");
        assert_eq!(named(Some("all")).unwrap(), "imap smtp submission");
        assert_eq!(named(None).unwrap(), "imap smtp submission");
        for wrong in ["", "imap,", "smpt", "imap,smpt"] {
            let said = named(Some(wrong)).unwrap_err().to_string();
            assert!(
                said.contains("choose from imap, smtp, submission, several separated by commas"),
                "{wrong}: {said}"
            );
        }
    }

    #[test]
    fn all_means_later_services_too_unless_a_service_is_called_that() {
        let is_all = |names: &[&str], text| select(&known(names), text).unwrap().is_all;
        for all in [None, Some("all"), Some("ALL"), Some(" all "), Some("smtp,all")] {
            assert!(is_all(&["smtp", "imap"], all), "{all:?}");
        }
        for some in ["smtp", "smtp,imap"] {
            assert!(!is_all(&["smtp", "imap"], Some(some)), "{some}");
        }
        for one in ["all", "ALL"] {
            assert!(!is_all(&["smtp", "all"], Some(one)), "{one}");
        }
        let known = known(&["smtp", "all"]);
        assert_eq!(select(&known, Some("all")).unwrap().names(), ["all"]);
        assert_eq!(select(&known, None).unwrap().names(), ["all", "smtp"], "nobody has named that one");
    }

    #[test]
    fn a_service_is_found_by_its_name_and_by_its_number() {
        let known = known(&["smtp", "imap"]);
        assert_eq!(by_name(&known, "imap").map(|(id, _)| id), Some(ServiceId(2)));
        assert_eq!(by_name(&known, "IMAP"), None, "who is no person writes it as it is");
        assert_eq!(by_id(&known, ServiceId(1)).map(ServicePolicy::name), Some("smtp"));
        assert_eq!(name(&known, ServiceId(2)), "imap");
        assert_eq!(name(&known, ServiceId(7)), "(removed 7)");
        assert_eq!(numbers(&known)["smtp"], ServiceId(1));
    }
}
