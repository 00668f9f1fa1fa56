//! `log.access`.

use http::HeaderName;
use http::header::REFERER;

use super::folder::check_folder;
use crate::config::{AccessLog, Loaded, LogFormat, LogOutput};
use crate::exchange::{Edit, RequestValue, Template, TextForm, TextScope};
use crate::notation::{Mistakes, Place, carries_credentials, is_named_like_secret, nearest};
use crate::telemetry::{FieldSet, Format, LogField, LogLayout, LogWhen, Sink};

/// Compiles the access log: where it goes, and what is written of which requests.
pub fn compile(loaded: &Loaded, credentials: &[Edit], place: &Place, mistakes: &mut Mistakes) -> (Sink, LogLayout) {
    let access = &loaded.config.log.access;
    let sink = sink(loaded, access, place, mistakes);
    let format = match access.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
        LogFormat::Combined => Format::Combined,
    };
    if !access.add.is_empty() && format == Format::Combined {
        mistakes.add(&place.key("add"), "the combined format has no further fields; use format: json or text");
    }
    let has_settings = access.when.is_some() || access.fields.is_some() || !access.add.is_empty();
    if sink == Sink::Off && access.output == LogOutput::None && has_settings {
        mistakes.add(place, "nothing is logged with output: none, so when, fields and add have no effect");
    }
    let when = access.when.as_ref().map(|when| {
        if when.status.is_empty() && when.slower_than.is_none() && when.sample_percent <= 0.0 {
            mistakes.add(&place.key("when"), "nothing would be logged; `output: none` says so");
        }
        LogWhen {
            statuses: when.status.iter().flat_map(|statuses| statuses.0.clone()).collect(),
            slower_than: when.slower_than.as_ref().map(|limit| limit.0),
            sample: (when.sample_percent / 100.0 * f64::from(u32::MAX)).round() as u32,
        }
    });
    let colours = sink == Sink::Stdout && std::io::IsTerminal::is_terminal(&std::io::stdout());
    let layout = LogLayout {
        format,
        fields: fields(access, place, mistakes),
        extra: extra(access, credentials, &place.key("add"), mistakes),
        when,
        colours,
    };
    (sink, layout)
}

fn sink(loaded: &Loaded, access: &AccessLog, place: &Place, mistakes: &mut Mistakes) -> Sink {
    match (access.output, &access.file) {
        (LogOutput::File, Some(file)) => {
            let path = loaded.base.join(file);
            check_folder(&path, &place.key("file"), mistakes);
            Sink::File(path)
        }
        (LogOutput::File, None) => {
            mistakes.add(place, "output: file needs the key \"file\"");
            Sink::Off
        }
        (_, Some(_)) => {
            mistakes.add(&place.key("file"), "is only for output: file");
            Sink::Off
        }
        (LogOutput::Stdout, None) => Sink::Stdout,
        (LogOutput::Stderr, None) => Sink::Stderr,
        (LogOutput::None, None) => Sink::Off,
    }
}

/// Returns the chosen fields of a JSON line.
fn fields(access: &AccessLog, place: &Place, mistakes: &mut Mistakes) -> FieldSet {
    let Some(names) = &access.fields else { return FieldSet::default() };
    if access.format != LogFormat::Json {
        mistakes.add(&place.key("fields"), "only lines in JSON have fields to choose");
    }
    let field = |(index, name): (usize, &String)| {
        let found = LogField::ALL.iter().find(|(_, known, _)| known == name).map(|(field, ..)| *field);
        if found.is_none() {
            let known = || LogField::ALL.iter().map(|(_, name, _)| *name);
            let text = format!(
                "there is no field \"{name}\"{}; known: {}",
                nearest(name, known()),
                known().collect::<Vec<_>>().join(", ")
            );
            mistakes.add(&place.key("fields").index(index), text);
        }
        found
    };
    FieldSet::of(names.iter().enumerate().filter_map(field))
}

/// Returns the further fields. Values that are credentials are never logged.
fn extra(access: &AccessLog, credentials: &[Edit], place: &Place, mistakes: &mut Mistakes) -> Vec<(String, Template)> {
    let mut extra = Vec::new();
    for (name, text) in &access.add {
        let place = place.key(name.clone());
        if LogField::ALL.iter().any(|(_, known, _)| known == name) {
            mistakes.add(&place, format!("the log has a field \"{name}\" already"));
        }
        let Some(template) = mistakes.take(&place, Template::new(text, &TextScope::outside(TextForm::Plain))) else {
            continue;
        };
        if template.values().any(|value| is_secret(value, credentials)) {
            mistakes.add(&place, "this value may be a credential, which is never logged");
        }
        extra.push((LogLayout::key(name), template));
    }
    extra
}

/// Returns whether a value may be a credential: by its name, or because a filter reads it as one.
fn is_secret(value: &RequestValue, credentials: &[Edit]) -> bool {
    let is_read = |name: &HeaderName| credentials.iter().any(|edit| matches!(edit, Edit::Remove(read) if read == name));
    let is_parameter =
        |name: &str| credentials.iter().any(|edit| matches!(edit, Edit::RemoveParameter(read) if **read == *name));
    match value {
        RequestValue::Header(name) => {
            carries_credentials(name.as_str())
                || is_named_like_secret(name.as_str())
                || is_read(name)
                || name == REFERER
        }
        RequestValue::QueryParameter(name) => is_named_like_secret(name) || is_parameter(name),
        // Most are those of sessions, whatever their names are.
        RequestValue::Cookie(_) => true,
        // The masking of secrets is that of the fields `query` and `referer`.
        RequestValue::Query => true,
        _ => false,
    }
}
