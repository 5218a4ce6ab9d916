// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `docs/schema`: what the documents of `--json` look like, made of the types that they are printed from.
//!
//! A verb is a line in [`DOCUMENTS`]. `LIMITER_DOCS=renew cargo test -p limiter schemas` writes the files anew.

use std::{fs, path::PathBuf};

use schemars::{Schema, generate::SchemaSettings};

use super::{advise, check, close, connections, explain, history};

/// The schema of a document.
type Make = fn() -> Schema;

/// Each verb whose document has a schema.
const DOCUMENTS: [(&str, Make); 7] = [
    ("advise", of::<advise::Document>),
    ("check", of::<check::Document>),
    ("close", of::<close::Closed>),
    ("connections", of::<connections::Connections>),
    ("doctor", of::<crate::doctor::Report>),
    ("explain", of::<explain::Document>),
    ("history", of::<history::History>),
];

/// As it is printed: what has a value by default is there all the same.
fn of<T: schemars::JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// The file of a verb.
fn file(verb: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{verb}.json"))
}

/// Whether a document is as the schema of its verb says, and else where it is not.
pub fn check(verb: &str, document: &serde_json::Value) {
    let (_, make) = DOCUMENTS.iter().find(|(known, _)| *known == verb).expect("a verb with a schema");
    let validator = jsonschema::validator_for(make().as_value()).expect("a schema");
    let wrong: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(wrong.is_empty(), "{verb}: {wrong:#?} in {document:#}");
}

#[test]
fn the_schemas_in_the_docs_are_those_of_the_documents() {
    let renew = std::env::var("LIMITER_DOCS").is_ok_and(|word| word == "renew");
    for (verb, make) in DOCUMENTS {
        let text = serde_json::to_string_pretty(&make()).expect("memory") + "\n";
        let path = file(verb);
        if renew {
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(&path, &text).expect("space for a file");
        }
        let before = fs::read_to_string(&path).unwrap_or_default();
        assert!(before == text, "{}: LIMITER_DOCS=renew writes it anew", path.display());
    }
    for left in fs::read_dir(file("x").parent().expect("a directory")).expect("schemas").flatten() {
        let name = left.file_name();
        let is_known = DOCUMENTS.iter().any(|(verb, _)| name.to_str() == Some(&format!("{verb}.json")));
        assert!(is_known, "{} is of no verb any more: remove it", left.path().display());
    }
}
