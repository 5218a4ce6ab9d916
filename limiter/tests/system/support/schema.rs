// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `--json` prints, held against the schemas in the docs.

use std::path::Path;

use serde_json::Value;

/// Fails unless a document of a verb is as `docs/schema` says.
#[track_caller]
pub fn is_as_its_schema_says(verb: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(format!("{verb}.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let wrong: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(wrong.is_empty(), "{verb}: {wrong:#?} in {document:#}");
}
