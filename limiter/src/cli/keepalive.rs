// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A keepalive that is set while there are connections: they get it, too, or it is said that they do not.

use super::{answer::Done, loaded::enter_protected};
use crate::{
    instance::Instance,
    kernel::{Tables, pulse},
};

/// Gives the connections that are there the keepalive that is among the changes, if one is. The change is done, whatever
/// comes of this: it is said on stderr.
pub fn reach(instance: &Instance, tables: &Tables, changes: &[Done]) {
    let mut keepalives = changes.iter().filter(|done| done.changed && done.key == Some("keepalive"));
    let Some(first) = keepalives.next() else { return };
    let is_none = |done: &Done| done.is == "none";
    if is_none(first) && keepalives.all(is_none) {
        eprintln!("limiter: existing connections keep their keepalive until they end");
        return;
    }
    let reached = enter_protected(instance, tables).and_then(|()| pulse::run(&instance.pins(), tables));
    let problem = match reached {
        Ok(Some(_)) => return,
        Ok(None) => "this kernel refused the program pulse".to_owned(),
        Err(problem) => format!("{problem:#}"),
    };
    eprintln!(
        "limiter: warning: the keepalive is in force for new connections only; existing ones keep theirs until they end: {problem}"
    );
}
