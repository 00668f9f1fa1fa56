//! `reference`: prints the page of all metrics, fields of the access log, reasons, endpoints and commands.

use std::fmt::Write;

use clap::{Args, CommandFactory};
use prometheus::proto::MetricType;

use super::Arguments;
use crate::admin::ENDPOINTS;
use crate::exchange::Reason;
use crate::telemetry::LogField;
use crate::telemetry::catalogue::{CATALOGUE, MetricFacts, OF_PROCESS};

/// Print the reference page: metrics, fields of the access log, reasons, admin endpoints, commands
#[derive(Debug, Args)]
pub struct Reference {}

impl Reference {
    /// Prints the page.
    pub fn execute(self) -> u8 {
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text().as_bytes());
        0
    }
}

const HEAD: &str = "# Reference

This page is generated from the code: `portcullis reference > conf/reference.md`. The keys of the configuration are in
[portcullis.yaml](portcullis.yaml) and [schema.json](schema.json).
";

/// Returns the page.
fn text() -> String {
    let mut page = HEAD.to_owned();
    metrics(&mut page);
    log_fields(&mut page);
    reasons(&mut page);
    endpoints(&mut page);
    commands(&mut page);
    page
}

/// Begins a section with a table.
fn section(page: &mut String, title: &str, text: &str, columns: &[&str]) {
    let _ = write!(page, "\n## {title}\n\n{text}\n\n| {} |\n", columns.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(columns.len()));
}

/// Adds a row; what would end a cell is escaped.
fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn code(word: &str) -> String {
    if word.is_empty() { String::new() } else { format!("`{word}`") }
}

fn metrics(page: &mut String) {
    let text = "`/metrics` of the admin listener has them in the text format of Prometheus. A histogram has the series \
                `_bucket`, `_sum` and `_count`. At most 2000 routes and upstreams have series of their own, the others \
                share `(other)`; requests without a route have `(none)`. At most 5000 targets have series.\n\n\
                [observe/](observe) has a dashboard for Grafana and alert rules for Prometheus.";
    section(page, "Metrics", text, &["metric", "kind", "labels", "meaning"]);
    CATALOGUE.iter().chain(OF_PROCESS).for_each(|facts| metric(page, facts));
}

fn metric(page: &mut String, facts: &MetricFacts) {
    let kind = match facts.kind {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    let labels: Vec<String> = facts.labels.iter().map(|label| code(label)).collect();
    row(page, &[&code(facts.name), kind, &labels.join(", "), &format!("{}.", facts.help)]);
}

fn log_fields(page: &mut String) {
    let text = "Of the access log in JSON; `log.access.fields` chooses among them, and `log.access.add` adds values of \
                the request. A field without a value is left out. A session at layer 4 has those of these that it \
                can have, with the bytes that were carried, and beside them `listener`, `stream` (its rule), `alpn`, \
                `connect_ms`, and of datagrams `datagrams_in` and `datagrams_out`. For `log.access.when` it has the \
                status of its reason.";
    section(page, "Fields of the access log", text, &["field", "meaning"]);
    LogField::ALL.iter().for_each(|(_, name, about)| row(page, &[&code(name), about]));
}

fn reasons(page: &mut String) {
    let text = "Every request ends with one of these reasons: in the access log, in the metric \
                `portcullis_requests_ended_total`, and in the response where the gateway gives it itself. \
                `proxy_error` is that of the header `Proxy-Status` (RFC 9209).";
    section(page, "Reasons", text, &["reason", "status", "gRPC status", "`proxy_error`", "meaning"]);
    for reason in Reason::ALL {
        let status = if reason.status() > 0 { reason.status().to_string() } else { "the target's".to_owned() };
        let proxy = code(reason.proxy_error().unwrap_or_default());
        row(page, &[&code(reason.code()), &status, &reason.grpc_status().to_string(), &proxy, reason.meaning()]);
    }
}

fn endpoints(page: &mut String) {
    let text = "Of the admin listener (`admin.address`). All but those that are open need the admin token, where there \
                is one: `Authorization: Bearer TOKEN`. `?pretty` indents JSON, and times are RFC 3339.";
    section(page, "Admin endpoints", text, &["methods", "path", "open", "what it does"]);
    for one in ENDPOINTS {
        row(page, &[one.methods, &code(one.path), if one.open { "yes" } else { "" }, one.text]);
    }
}

fn commands(page: &mut String) {
    let text = "`portcullis COMMAND --help` describes the options of each.";
    section(page, "Commands", text, &["command", "what it does"]);
    for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        row(page, &[&code(command.get_name()), &about]);
    }
}
