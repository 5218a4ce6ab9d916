// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the text says, with the defaults of its version beneath.

use super::{
    super::model::{Daemon, Limit},
    tree::{Block, Text},
};
use crate::import::words::setting;

/// What holds in any version where the text says nothing, as that of `doveconf -n` does.
const DEFAULTS: &str = "
mail_max_userip_connections = 10
default_process_limit = 100
default_client_limit = 1000
service imap-login {
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 993
  }
  service_count = 1
  restart_request_count = 1
}
service pop3-login {
  inet_listener pop3 {
    port = 110
  }
  inet_listener pop3s {
    port = 995
  }
  service_count = 1
  restart_request_count = 1
}
service submission-login {
  inet_listener submission {
    port = 587
  }
  service_count = 1
  restart_request_count = 1
}
service managesieve-login {
  inet_listener sieve {
    port = 4190
  }
  service_count = 1
  restart_request_count = 1
}
service imap {
  client_limit = 1
  process_limit = 1024
}
service pop3 {
  client_limit = 1
  process_limit = 1024
}
service submission {
  client_limit = 1
  process_limit = 1024
}
service managesieve {
  client_limit = 1
}
";

/// And in 2.3 alone.
const DEFAULTS_2_3: &str = "
protocols = imap pop3
";

/// And in 2.4 alone, where nothing is served that `protocols` does not name.
const DEFAULTS_2_4: &str = "
service submission-login {
  inet_listener submissions {
    port = 465
  }
}
";

/// A version in the terms of what it says by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// 2.3 or before.
    V2_3,
    /// 2.4 or later.
    V2_4,
    /// Later than what this was written for.
    Later,
}

/// What is said, and the defaults beneath.
pub struct Settings {
    pub said: Block,
    version: Version,
    is_version_said: bool,
    defaults: [Block; 2],
}

impl Settings {
    pub fn new(said: Block, header: Option<&str>) -> Self {
        let given = said.value("dovecot_config_version").or(header).and_then(version);
        // Without a number the way in which it is written tells: 2.3 has no lists in blocks.
        let is_like_2_4 = || {
            ["protocols", "login_trusted_networks"].iter().any(|kind| said.blocks(kind).next().is_some())
                || said.value("mail_driver").is_some()
        };
        let version = given.unwrap_or(if is_like_2_4() { Version::V2_4 } else { Version::V2_3 });
        let own = if version == Version::V2_3 { DEFAULTS_2_3 } else { DEFAULTS_2_4 };
        let defaults = [own, DEFAULTS].map(|text| Text::read(text).settings);
        Self { said, version, is_version_said: given.is_some(), defaults }
    }

    /// What is to be said of the version.
    pub fn of_another_version(&self) -> Option<&'static str> {
        match self.version {
            Version::Later => {
                Some("the text is from a Dovecot later than 2.4: import uses the defaults of 2.4")
            }
            Version::V2_4 if !self.is_version_said => {
                Some("the text has no version: import uses the defaults of 2.4")
            }
            Version::V2_3 if !self.is_version_said => {
                Some("the text has no version: import uses the defaults of 2.3")
            }
            _ => None,
        }
    }

    /// How often a process serves, in this version.
    pub const fn service_count(&self) -> &'static str {
        match self.version {
            Version::V2_3 => "service_count",
            Version::V2_4 | Version::Later => "restart_request_count",
        }
    }

    /// What is said before the defaults.
    fn layers(&self) -> impl Iterator<Item = &Block> {
        std::iter::once(&self.said).chain(&self.defaults)
    }

    /// A setting outside of all blocks.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.layers().find_map(|layer| layer.value(name))
    }

    /// A setting of TLS for clients: alone, or by its last words in a block.
    pub fn of_server(&self, name: &str) -> Option<&str> {
        let short = name.strip_prefix("ssl_server_").unwrap_or(name);
        let of_block = self.said.blocks("ssl_server").find_map(|block| block.value(short));
        of_block.or_else(|| self.value(name)).filter(|value| !value.is_empty())
    }

    /// A setting of a service, and whether the text has it. In 2.4 it may have its full name, also outside
    /// of the service, where it is for all of them.
    fn value_of_service(&self, service: &str, name: &str) -> Option<(&str, bool)> {
        let full = format!("service_{name}");
        let of = |layer| of_any_name(Block::labelled(layer, "service", service), &[name, &full]);
        // `doveconf -a` has what nobody said, too: no limit, or 0.
        let is_all = self.said.value("service_executable").is_some();
        let nothing = |value: &str| value == "0" || is_all && value == "unlimited";
        let of_all = || {
            let value = self.said.value(&full).filter(|value| !nothing(value))?;
            (self.version != Version::V2_3).then_some(value)
        };
        let said = of(&self.said).or_else(of_all).map(|value| (value, true));
        said.or_else(|| Some((self.defaults.iter().find_map(of)?, false)))
    }

    /// The names of the listeners of a service, sorted.
    pub fn listeners(&self, service: &str) -> Vec<String> {
        let blocks = self.layers().flat_map(|layer| layer.labelled("service", service));
        let listeners = blocks.flat_map(|block| block.blocks("inet_listener"));
        let mut names: Vec<String> = listeners.filter_map(|block| block.label().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A setting of a listener, which in 2.4 may have its full name.
    pub fn of_listener(&self, service: &str, listener: &str, name: &str) -> Option<&str> {
        let full = format!("inet_listener_{name}");
        self.layers().find_map(|layer| {
            let services = layer.labelled("service", service);
            let listeners = services.flat_map(|block| block.labelled("inet_listener", listener));
            of_any_name(listeners, &[name, &full])
        })
    }

    /// A list: words, or in 2.4 a block of `WORD = yes` and `WORD = no` on top of them. The words in it,
    /// and what is neither.
    pub fn list(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let words = self.value(name).unwrap_or("").split([',', ' ', '\t']);
        let mut list: Vec<String> = words.map(unquoted).filter(|word| !word.is_empty()).collect();
        let mut not_understood = Vec::new();
        for (word, value) in self.said.blocks(name).flat_map(Block::values) {
            match value {
                "yes" if !list.iter().any(|known| known == word) => list.push(word.to_owned()),
                "yes" => {}
                "no" => list.retain(|known| known != word),
                _ => not_understood.push(setting(word, value)),
            }
        }
        (list, not_understood)
    }

    /// Whether a protocol is served.
    pub fn is_on(&self, daemon: &mut Daemon, protocol: &str) -> bool {
        let (protocols, not_understood) = self.list("protocols");
        for item in not_understood {
            daemon.leave_out(
                format!("protocols {{ {item} }}"),
                "this is neither yes nor no: add a [service] for it, if Dovecot serves it",
            );
        }
        protocols.iter().any(|known| known == protocol)
    }

    /// A limit of a service, and the setting that it is.
    pub fn of_service(&self, service: &str, name: &str) -> (Limit, String) {
        let is_count = name == self.service_count();
        let value = self.value_of_service(service, name);
        // In 2.3, 0 is the default of all services.
        if let Some((value, is_set)) = value.filter(|(value, _)| is_count || *value != "0") {
            return (self.number(value), shown(name, value, is_set));
        }
        let default = format!("default_{name}");
        match self.value(&default) {
            Some(value) => (self.number(value), shown(&default, value, self.said.value(&default).is_some())),
            None => (Limit::Unknown, setting(name, value.map_or("", |(value, _)| value))),
        }
    }

    /// A number as Dovecot writes it.
    pub fn number(&self, value: &str) -> Limit {
        // 2.4 refers to another setting, and to none that does so again.
        let other = value.strip_prefix("$SET:").or_else(|| value.strip_prefix('$'));
        let value = other.map_or(Some(value), |name| self.value(name));
        match value {
            Some("unlimited") => Limit::None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_or(Limit::Unknown, Limit::or_none)
            }
            _ => Limit::Unknown,
        }
    }
}

/// A setting, and whether the text has it.
fn shown(name: &str, value: &str, is_set: bool) -> String {
    let by_default = if is_set { "" } else { " (its default)" };
    format!("{}{by_default}", setting(name, value))
}

/// The first value of one of these names.
fn of_any_name<'a>(mut blocks: impl Iterator<Item = &'a Block>, names: &[&str]) -> Option<&'a str> {
    blocks.find_map(|block| names.iter().find_map(|name| block.value(name)))
}

fn unquoted(word: &str) -> String {
    word.trim_matches('"').to_owned()
}

/// The version in `2.4.1-4`.
fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return None };
    Some(match (major, minor) {
        (..=1, _) | (2, ..=3) => Version::V2_3,
        (2, 4) => Version::V2_4,
        _ => Version::Later,
    })
}
