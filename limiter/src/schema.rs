// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Schemas of what the types of `limiter-common` look like in JSON, which knows nothing of schemas itself.

use limiter_common::{Action, Reason};
use schemars::{Schema, SchemaGenerator, json_schema};

/// One of the reasons for a refusal, or none.
pub fn reason_or_null(_: &mut SchemaGenerator) -> Schema {
    let names = Reason::ALL.map(Reason::name);
    json_schema!({ "anyOf": [{ "type": "string", "enum": names }, { "type": "null" }] })
}

/// One of the actions of a rule.
pub fn action(_: &mut SchemaGenerator) -> Schema {
    let names = Action::ALL.map(Action::name);
    json_schema!({ "type": "string", "enum": names })
}
