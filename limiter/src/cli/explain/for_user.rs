// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter explain ADDR --for-user`: a text that an administrator sends to a mail user.

use super::view::{AtService, Explanation};
use crate::{
    cli::output,
    diagnose::{Diagnosis, Paragraph},
    user_text::{About, Texts, WHATS},
};

/// As wide as mail is written (RFC 3676, 4.2, has 78 for the most).
const WIDTH: usize = 72;

/// What the text is of: the service that refuses, or the one with the likeliest finding.
pub fn concern(explanation: &Explanation) -> Option<&AtService> {
    let sure =
        |at: &AtService| at.diagnosis.as_ref().and_then(Diagnosis::first).map(|first| first.confidence);
    // Of equals the first.
    explanation.services.iter().rev().max_by_key(|at| (at.reason.is_some(), sure(at), at.connections))
}

/// Which parts are said where nobody could tell why.
fn unknown(at: &AtService) -> Vec<Paragraph> {
    let of_senders = at.protocol_name() == "smtp";
    let mut parts = vec![Paragraph::TooMany, Paragraph::CloseOthers];
    parts.push(if of_senders { Paragraph::Submission } else { Paragraph::CachedConnections });
    parts.extend([Paragraph::Router, Paragraph::TellProvider]);
    parts
}

/// The text, in lines.
pub fn text(texts: &Texts, explanation: &Explanation, at: &AtService, hostname: &str) -> String {
    let found = at.diagnosis.as_ref().filter(|diagnosis| !diagnosis.cannot_tell()).and_then(Diagnosis::first);
    let parts = found.map_or_else(|| unknown(at), |found| found.for_user.clone());
    let about = About {
        address: explanation.address.clone(),
        connections: at.connections,
        limit: at.limit,
        hostname: hostname.to_owned(),
        what: what(at),
    };
    let paragraphs = texts.paragraphs(&about, &parts);
    let mut text = String::new();
    for (index, paragraph) in paragraphs.iter().enumerate() {
        let is_item = paragraph.starts_with("- ");
        let follows_item = index
            .checked_sub(1)
            .and_then(|before| paragraphs.get(before))
            .is_some_and(|it| it.starts_with("- "));
        if index > 0 && !(is_item && follows_item) {
            text.push('\n');
        }
        // What goes on in the next line stands below the item's words.
        let hung = paragraph.strip_prefix("- ").map_or_else(|| paragraph.clone(), |item| format!("  {item}"));
        for (number, line) in output::wrapped(&hung, Some(WIDTH)).iter().enumerate() {
            match line.strip_prefix("  ") {
                Some(item) if is_item && number == 0 => {
                    text.push_str("- ");
                    text.push_str(item);
                }
                _ => text.push_str(line),
            }
            text.push('\n');
        }
    }
    text
}

/// What the service is for.
fn what(at: &AtService) -> &'static str {
    let of_protocol = if at.service.starts_with("submission") { "submission" } else { at.protocol_name() };
    WHATS.into_iter().find(|what| *what == of_protocol).unwrap_or("imap")
}
