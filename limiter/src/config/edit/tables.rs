// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Keys and tables of a document, changed so that what stands around them stays.

use toml_edit::{
    Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, TableLike, Value,
};

/// A table, under a header or in braces.
pub enum Home<'a> {
    /// Under a header, or of dotted keys.
    Lines(&'a mut Table),
    /// In braces.
    Braces(&'a mut InlineTable),
}

impl<'a> Home<'a> {
    /// The table that `item` is, if it is one.
    pub fn of(item: &'a mut Item) -> Option<Self> {
        match item {
            Item::Table(table) => Some(Self::Lines(table)),
            Item::Value(Value::InlineTable(table)) => Some(Self::Braces(table)),
            _ => None,
        }
    }

    /// What both can do.
    pub fn keys(&mut self) -> &mut dyn TableLike {
        match self {
            Self::Lines(table) => *table,
            Self::Braces(table) => *table,
        }
    }

    /// Whether it has this key.
    pub fn has(&mut self, key: &str) -> bool {
        self.keys().contains_key(key)
    }

    /// The table that a key of it is.
    pub fn table(&mut self, key: &str) -> Option<Home<'_>> {
        self.keys().get_mut(key).and_then(Home::of)
    }

    /// Makes `value` what `key` says. The comments above and beside it stay; a new key comes last.
    pub fn put(&mut self, key: &str, mut value: Value) {
        if let Some(Item::Value(old)) = self.keys().get_mut(key) {
            *value.decor_mut() = old.decor().clone();
            *old = value;
            return;
        }
        // A table under a header of its own: what is in its place stands among the other keys.
        self.remove(key);
        self.add(key, value);
    }

    /// Takes a key out; what stands above it goes with it.
    pub fn remove(&mut self, key: &str) {
        self.keys().remove(key);
    }

    /// Takes the key `old` out and puts `new` in, with the comments of the old one.
    pub fn exchange(&mut self, old: &str, new: &str, mut value: Value) {
        let Some((key, item)) = self.keys().get_key_value(old).map(|(key, item)| (key.clone(), item.clone()))
        else {
            return self.put(new, value);
        };
        self.remove(old);
        self.put(new, Value::from(true));
        if let (Some(old), Some((mut named, item))) = (item.as_value(), self.keys().get_key_value_mut(new)) {
            *named.leaf_decor_mut() = key.leaf_decor().clone();
            *value.decor_mut() = old.decor().clone();
            *item = Item::Value(value);
        } else {
            self.put(new, value);
        }
    }

    /// Adds a key at the end, laid out as the one before it.
    fn add(&mut self, key: &str, mut value: Value) {
        let mut key = Key::new(key);
        let last = self.keys().iter().filter(|(_, item)| item.is_value()).last();
        let last = last.map(|(key, _)| key.to_owned());
        let prefix = last.as_ref().and_then(|last| blank(self.keys().key(last)?.leaf_decor().prefix()));
        let suffix = match self {
            Self::Lines(_) => String::new(),
            // What stands between the last value and the brace.
            Self::Braces(table) => {
                let value = last.as_ref().and_then(|last| table.get_mut(last));
                value.and_then(take_suffix).unwrap_or_else(|| " ".to_owned())
            }
        };
        if let Some(prefix) = prefix {
            let indent = match self {
                Self::Lines(_) => prefix.rsplit('\n').next().unwrap_or_default().to_owned(),
                Self::Braces(_) => prefix,
            };
            key.leaf_decor_mut().set_prefix(indent);
            key.leaf_decor_mut().set_suffix(" ");
        }
        *value.decor_mut() = Decor::new(" ", suffix);
        match self {
            Self::Lines(table) => drop(table.insert_formatted(&key, Item::Value(value))),
            Self::Braces(table) => drop(table.insert_formatted(&key, value)),
        }
    }
}

/// Adds an element at the end, laid out as the one before it.
pub fn push(array: &mut Array, element: impl Into<Value>) {
    let mut element = element.into();
    let last = array.len().checked_sub(1).and_then(|last| array.get_mut(last));
    if let Some(last) = last {
        let prefix = blank(last.decor().prefix()).filter(|prefix| !prefix.is_empty());
        let prefix = prefix.unwrap_or_else(|| " ".to_owned());
        *element.decor_mut() = Decor::new(prefix, take_suffix(last).unwrap_or_default());
    }
    array.push_formatted(element);
}

/// What is behind a value, taken from it.
fn take_suffix(value: &mut Value) -> Option<String> {
    let suffix = value.decor().suffix().and_then(RawString::as_str).map(str::to_owned);
    value.decor_mut().set_suffix("");
    suffix
}

/// The last line of what stands before a thing, if the thing is alone on its line.
fn blank(prefix: Option<&RawString>) -> Option<String> {
    let prefix = prefix?.as_str()?;
    let start = if prefix.contains('\n') { prefix.rfind('\n')? } else { 0 };
    Some(prefix[start..].to_owned()).filter(|rest| rest.trim().is_empty())
}

/// The service's table, made if there is none.
pub fn service<'d>(document: &'d mut DocumentMut, name: &str) -> Option<Home<'d>> {
    let is_there = |services: &Item| services.as_table_like().is_some_and(|table| table.contains_key(name));
    if !document.get("service").is_some_and(is_there) {
        let is_header = match document.get("service") {
            None => true,
            Some(Item::Table(services)) => !services.is_dotted(),
            Some(_) => false,
        };
        let mut table = Table::new();
        if is_header {
            let siblings = document.get("service").and_then(Item::as_table).map(positions);
            let after = siblings.and_then(|siblings| siblings.into_iter().max());
            settle(document, &mut table, after);
        } else {
            table.set_dotted(true);
        }
        let mut services = Table::new();
        services.set_implicit(true);
        match document.entry("service").or_insert(Item::Table(services)) {
            Item::Table(services) => drop(services.insert(name, Item::Table(table))),
            Item::Value(Value::InlineTable(services)) => {
                Home::Braces(services).add(name, Value::InlineTable(InlineTable::new()));
            }
            _ => return None,
        }
    }
    Home::of(document.get_mut("service")?.as_table_like_mut()?.get_mut(name)?)
}

/// Adds a table to the list of this name, behind the last one.
pub fn append(document: &mut DocumentMut, name: &str, mut table: Table) -> Option<()> {
    let siblings = document.get(name).and_then(Item::as_array_of_tables);
    let after = siblings.and_then(|siblings| siblings.iter().last()).and_then(|last| {
        let own = last.position();
        positions(last).into_iter().chain(own).max()
    });
    settle(document, &mut table, after);
    let list = document.entry(name).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    list.as_array_of_tables_mut()?.push(table);
    Some(())
}

/// Takes a table out of the list of this name, with the comment right above it. What stands above that, a
/// blank line between, stays.
pub fn take_out(document: &mut DocumentMut, name: &str, index: usize) -> Option<()> {
    let list = document.get_mut(name)?.as_array_of_tables_mut()?;
    let table = list.get(index)?;
    let at = table.position();
    let above = table.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
    let kept = above.rfind("\n\n").map_or("", |end| &above[..=end]).to_owned();
    let kept = if kept.trim().is_empty() { String::new() } else { kept };
    list.remove(index);
    if list.is_empty() {
        document.remove(name);
    }
    let next = positions(document).into_iter().filter(|&position| Some(position) > at).min();
    if !kept.is_empty() {
        let text = |text: Option<&RawString>| text.and_then(RawString::as_str).unwrap_or_default().to_owned();
        match next.and_then(|next| at_position(document, next)) {
            Some(table) => {
                let prefix = kept + &text(table.decor().prefix());
                table.decor_mut().set_prefix(prefix);
            }
            None => {
                let trailing = kept + &text(Some(document.trailing()));
                document.set_trailing(trailing);
            }
        }
    }
    Some(())
}

/// Gives a new table its place: behind the table that stands at `after`, or at the end of the file. What
/// stands at the end stays above it.
fn settle(document: &mut DocumentMut, table: &mut Table, after: Option<isize>) {
    let last = positions(document).into_iter().max();
    let at = after.or(last).unwrap_or(0);
    if Some(at) < last {
        table.set_position(Some(at));
        table.decor_mut().set_prefix("\n");
        return;
    }
    table.set_position(Some(at + 1));
    let mut above = document.trailing().as_str().unwrap_or_default().to_owned();
    document.set_trailing("");
    if !above.is_empty() && !above.ends_with('\n') {
        above.push('\n');
    }
    let is_first = document.is_empty() && above.is_empty();
    if !(is_first || above == "\n" || above.ends_with("\n\n")) {
        above.push('\n');
    }
    table.decor_mut().set_prefix(above);
}

/// Where the headers below `table` stand among all headers.
fn positions(table: &Table) -> Vec<isize> {
    let mut found = Vec::new();
    for (_, item) in table {
        match item {
            Item::Table(table) => {
                found.extend(table.position());
                found.extend(positions(table));
            }
            Item::ArrayOfTables(tables) => {
                for table in tables {
                    found.extend(table.position());
                    found.extend(positions(table));
                }
            }
            _ => {}
        }
    }
    found
}

/// The table below `table` whose header stands there.
fn at_position(table: &mut Table, position: isize) -> Option<&mut Table> {
    for (_, item) in table.iter_mut() {
        let tables: Vec<&mut Table> = match item {
            Item::Table(table) => vec![table],
            Item::ArrayOfTables(tables) => tables.iter_mut().collect(),
            _ => continue,
        };
        for table in tables {
            if table.position() == Some(position) {
                return Some(table);
            }
            if positions(table).contains(&position) {
                return at_position(table, position);
            }
        }
    }
    None
}
