// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `interfaces`: where the shield attaches.

use std::fmt;

use toml::de::DeValue;

use super::{
    check::Value,
    error::{Complaint, Located},
    reader::{Node, start},
};

/// Longest name of an interface, with the zero behind it (`IFNAMSIZ`, include/uapi/linux/if.h).
const IFNAMSIZ: usize = 16;

/// Where the shield attaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// To those that carry a default route or a public address, whichever they are at the time, if it costs
    /// other traffic nothing there.
    #[default]
    Auto,
    /// To these, as long as they are there; to none if there is none.
    Named(Vec<String>),
}

/// Reads the value.
pub fn read(value: &Node<'_>) -> Result<Interfaces, Located> {
    let wrong =
        |value: &Node<'_>| Complaint::Interfaces(Value::from(value.get_ref()).shown()).at(start(value));
    match value.get_ref() {
        DeValue::String(text) if text == "auto" => Ok(Interfaces::Auto),
        DeValue::Array(names) => {
            let mut known = Vec::new();
            for spanned in names {
                let DeValue::String(name) = spanned.get_ref() else { return Err(wrong(spanned)) };
                if !is_interface(name) {
                    return Err(wrong(spanned));
                }
                if known.iter().any(|other| other == name) {
                    return Err(Complaint::InterfaceTwice(name.to_string()).at(start(spanned)));
                }
                known.push(name.to_string());
            }
            known.sort();
            Ok(Interfaces::Named(known))
        }
        _ => Err(wrong(value)),
    }
}

/// Whether an interface can have this name (`dev_valid_name`, net/core/dev.c).
fn is_interface(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'"' && byte != b'\\';
    (1..IFNAMSIZ).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(plain)
}

impl fmt::Display for Interfaces {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("\"auto\""),
            Self::Named(names) => write!(out, "{names:?}"),
        }
    }
}
