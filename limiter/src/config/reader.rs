// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The TOML of the file: keys and values, each with where it stands.
//!
//! The TOML crate reads the grammar and keeps the spans; the tables are walked by hand rather than
//! through serde, because an administrator is owed a better sentence than "invalid type". Tables are
//! walked in the order of the file, so that the first mistake is the one reported.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::Value,
    error::{Complaint, Located, shown},
    fields::Section,
    keys::{self, Number, similar},
};

/// A key, and where it stands.
pub type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
/// A value, and where it stands.
pub type Node<'i> = Spanned<DeValue<'i>>;

/// The table's keys and values in the order of the file.
pub fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Node<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A key's name.
pub fn name<'t>(key: &'t Key<'_>) -> &'t str {
    key.get_ref()
}

/// Where `thing` begins.
pub fn start<T>(thing: &Spanned<T>) -> usize {
    thing.span().start
}

/// The table that `value` is to be.
pub fn table<'t, 'i>(
    key: &str,
    value: &'t Node<'i>,
    complaint: fn(String, String) -> Complaint,
) -> Result<&'t DeTable<'i>, Located> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        other => Err(complaint(key.to_owned(), Value::from(other).shown()).at(start(value))),
    }
}

/// A number.
pub fn number(of: &'static Number, value: &Node<'_>) -> Result<u32, Located> {
    of.check(&Value::from(value.get_ref())).map_err(|complaint| complaint.at(start(value)))
}

/// A number whose range fits a narrower type.
pub fn small<T: TryFrom<u32>>(of: &'static Number, value: &Node<'_>) -> Result<T, Located> {
    let number = number(of, value)?;
    T::try_from(number).map_err(|_| Complaint::OutOfRange { of, given: number.to_string() }.at(start(value)))
}

/// A number with its place.
pub fn placed<T: TryFrom<u32>>(of: &'static Number, value: &Node<'_>) -> Result<Spanned<T>, Located> {
    Ok(Spanned::new(value.span(), small(of, value)?))
}

/// A list of ports, which `key` takes.
pub fn ports(key: &'static str, value: &Node<'_>) -> Result<Vec<Spanned<u16>>, Located> {
    let DeValue::Array(ports) = value.get_ref() else {
        return Err(Complaint::NotAList(key, Value::from(value.get_ref()).shown()).at(start(value)));
    };
    ports.iter().map(|port| placed(&keys::PORT, port)).collect()
}

/// What is wrong with a key that its table does not take.
pub fn unknown(key: &Key<'_>, section: Section<'_>) -> Located {
    let name = name(key);
    let known = section.known();
    // A key before any table, or one typed below a table it does not belong to, is TOML's classic.
    let elsewhere = [
        (Section::Top, "above the first table"),
        (Section::Defaults, "to [defaults]"),
        (Section::Ladder, "to [ladder]"),
        (Section::History, "to [history]"),
        (Section::Service(""), "to a [service.NAME]"),
    ];
    let home = elsewhere.iter().find(|(section, _)| section.known().contains(&name));
    let advice = match (section, home, similar(name, &known)) {
        // What stands below the header [service.NAME.network] is of the network, whatever was meant.
        (Section::Network(owner), ..) if owner.known().contains(&name) => {
            format!("move it above network, {}", owner.shown())
        }
        (Section::Tls(owner), ..) if owner.known().contains(&name) => {
            format!("move it above tls, {}", owner.shown())
        }
        (_, Some((_, home)), _) => format!("move it {home}"),
        (_, None, Some(meant)) => format!("did you mean {meant}?"),
        (_, None, None) => "remove it".to_owned(),
    };
    let section = section.shown();
    Complaint::UnknownKey { key: shown(name), section, known: known.join(", "), advice }.at(start(key))
}
