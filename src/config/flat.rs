//! A configuration as a list of paths and values, to compare two of them without revealing secrets.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::facts::{self, Type, read_at_start};
use super::redact::Redactor;
use super::tree::{Node, Value};
use crate::tls::{MAX_MATERIAL, read_file};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaf {
    /// A plain value, as it is written.
    Plain(String),
    /// The SHA-256 digest of a secret. It is never shown, and only used for comparison.
    Hidden([u8; 32]),
    /// The SHA-256 digest of a file's content.
    File([u8; 32]),
    /// The names of a list whose order matters.
    Order(Vec<String>),
}

impl std::fmt::Display for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) if text.contains(char::is_control) => write!(f, "{text:?}"),
            Self::Plain(text) => f.write_str(text),
            Self::Hidden(_) => f.write_str("(secret)"),
            Self::Order(names) => f.write_str(&names.join(", ")),
            Self::File(digest) => {
                write!(f, "(content {:02x}{:02x}{:02x}{:02x}…)", digest[0], digest[1], digest[2], digest[3])
            }
        }
    }
}

/// Every value of a configuration by its path. An entry with a name stands under it, and not under its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flat(BTreeMap<String, Leaf>);

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The path.
    pub path: String,
    /// The value before.
    pub before: Option<String>,
    /// The value after.
    pub after: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {}: {after}", self.path),
            (Some(before), None) => write!(f, "- {}: {before}", self.path),
            (before, after) => {
                write!(
                    f,
                    "~ {}: {} -> {}",
                    self.path,
                    before.as_deref().unwrap_or_default(),
                    after.as_deref().unwrap_or_default()
                )
            }
        }?;
        read_at_start(&self.path).map_or(Ok(()), |when| write!(f, " (from the next {when})"))
    }
}

impl Flat {
    /// Returns the values of a tree, in which everything is included and substituted.
    pub(super) fn of(tree: &Node) -> Self {
        let mut flat = Self::default();
        flat.add(tree, &Type::root(), &mut String::new());
        flat
    }

    /// Returns the settings that are read only at the start, in their normalised form.
    pub(super) fn at_start(tree: &Node, base: &Path) -> Self {
        let leaf = |(value, hidden): (String, bool)| {
            if hidden { Leaf::Hidden(sha256(value.as_bytes())) } else { Leaf::Plain(value) }
        };
        let values = facts::at_start()
            .iter()
            .filter_map(|setting| Some((setting.path.clone(), leaf(setting.value(tree, base)?))));
        Self(values.collect())
    }

    /// Replaces its values by those of another one.
    pub(super) fn overlay(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Adds a list that follows from several values: the filters that a route has in the end.
    pub(super) fn add_list(&mut self, path: String, list: Vec<String>) {
        self.0.insert(path, Leaf::Order(list));
    }

    /// Adds the content of a file that the configuration names; nothing for one that cannot be read.
    pub(super) fn add_file(&mut self, path: &Path, redactor: &Redactor) {
        if let Ok(content) = read_file(path, MAX_MATERIAL) {
            let name = redactor.redact(&format!("file {}", path.display()));
            self.0.insert(name, Leaf::File(sha256(&content)));
        }
    }

    fn add(&mut self, node: &Node, at: &Type, path: &mut String) {
        let length = path.len();
        match &node.value {
            Value::Map(members) if !members.is_empty() => {
                for (key, below) in members {
                    step(path, &key.text);
                    self.add(below, &at.key(&key.text), path);
                    path.truncate(length);
                }
            }
            Value::List(items) if !items.is_empty() => {
                if path == "routes" {
                    // Where nothing else decides, the first of them does.
                    self.0.insert(ORDER.to_owned(), Leaf::Order(items.iter().filter_map(name).collect()));
                }
                let item = at.item();
                for (index, below) in items.iter().enumerate() {
                    step(path, &name(below).unwrap_or_else(|| index.to_string()));
                    self.add(below, &item, path);
                    path.truncate(length);
                }
            }
            value => {
                let text = value.text();
                let hidden = node.written.is_some() || at.is_secret(&text);
                let leaf = if hidden { Leaf::Hidden(sha256(text.as_bytes())) } else { Leaf::Plain(text) };
                self.0.insert(path.clone(), leaf);
            }
        }
    }

    /// Returns the differences in `after`. A route or an upstream that is new or gone as a whole is one change. The
    /// settings that are read only at the start are compared with those of then ([`Self::at_start`]), however often
    /// it was loaded since.
    pub fn changes(&self, after: &Self, started: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let paths: std::collections::BTreeSet<&String> =
            self.0.keys().chain(after.0.keys()).chain(started.0.keys()).collect();
        let mut whole: Option<String> = None;
        let mut lists = 0;
        for path in paths {
            if whole.as_ref().is_some_and(|head| path.starts_with(head.as_str())) {
                continue;
            }
            let in_use = if read_at_start(path).is_some() { started } else { self };
            let (before, now) = (in_use.0.get(path), after.0.get(path));
            if before == now {
                continue;
            }
            if path == ORDER {
                changes.extend(moved(before, now));
                continue;
            }
            if matches!(before.or(now), Some(Leaf::Order(_))) {
                lists += 1;
                if lists > MAX_LISTS {
                    continue;
                }
            }
            let entry =
                entry(path).filter(|head| before.is_none() && !self.has(head) || now.is_none() && !after.has(head));
            let size = |flat: &Self, head: &str| format!("{} keys", flat.below(head).count());
            let text = |leaf: Option<&Leaf>| leaf.map(ToString::to_string);
            changes.push(match entry {
                Some(head) => {
                    whole = Some(head.to_owned());
                    let path = head.trim_end_matches('.').to_owned();
                    Change {
                        path,
                        before: now.is_none().then(|| size(self, head)),
                        after: now.map(|_| size(after, head)),
                    }
                }
                None => Change { path: path.clone(), before: text(before), after: text(now) },
            });
        }
        if lists > MAX_LISTS {
            let path = format!("filters of {} further routes", lists - MAX_LISTS);
            changes.push(Change {
                path,
                before: Some("(not shown)".to_owned()),
                after: Some("(not shown)".to_owned()),
            });
        }
        changes
    }

    fn below<'f>(&'f self, head: &'f str) -> impl Iterator<Item = &'f String> {
        self.0.range(head.to_owned()..).map(|(path, _)| path).take_while(move |path| path.starts_with(head))
    }

    fn has(&self, head: &str) -> bool {
        self.below(head).next().is_some()
    }
}

/// The path of the order of the routes.
const ORDER: &str = "routes, their order";

/// The most lists that are shown: a default is in those of all routes.
const MAX_LISTS: usize = 20;

/// The most names of an order that are shown.
const MAX_SHOWN_NAMES: usize = 8;

/// Returns the change of order of those that are in both.
fn moved(before: Option<&Leaf>, after: Option<&Leaf>) -> Option<Change> {
    let (Some(Leaf::Order(before)), Some(Leaf::Order(after))) = (before, after) else { return None };
    let both = |list: &[String], other: &[String]| -> Vec<String> {
        let known: std::collections::HashSet<&String> = other.iter().collect();
        list.iter().filter(|name| known.contains(name)).cloned().collect()
    };
    let (before, after) = (both(before, after), both(after, before));
    let first = before.iter().zip(&after).position(|(b, a)| b != a)?;
    let last = before.iter().zip(&after).rposition(|(b, a)| b != a)?;
    let text = |list: &[String]| {
        let names = &list[first..=last];
        let more = if names.len() > MAX_SHOWN_NAMES { ", …" } else { "" };
        format!("{}{more}", names[..names.len().min(MAX_SHOWN_NAMES)].join(", "))
    };
    Some(Change { path: ORDER.to_owned(), before: Some(text(&before)), after: Some(text(&after)) })
}

/// Returns the digest of a text.
fn sha256(text: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text).as_ref());
    out
}

/// Returns the section and the entry that a path is in, if it is below one: `routes.users.`
fn entry(path: &str) -> Option<&str> {
    let (section, rest) = path.split_once('.')?;
    if !matches!(
        section,
        "routes" | "streams" | "listeners" | "upstreams" | "consumers" | "plans" | "filter_sets" | "caches"
    ) {
        return None;
    }
    rest.find('.').map(|end| &path[..section.len() + end + 2])
}

/// Adds a step to a path. A point in a name would read as a step.
fn step(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if name.contains('.') {
        path.push_str(&format!("\"{name}\""));
    } else {
        path.push_str(name);
    }
}

fn name(node: &Node) -> Option<String> {
    let Value::Map(members) = &node.value else { return None };
    let named = members.iter().find(|(key, _)| key.text == "name").map(|(_, node)| node)?;
    // What a reference stands for is shown nowhere.
    Some(named.written.as_deref().map_or_else(|| named.value.text(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Flat {
        Flat::of(&super::super::tree::parse(text, 0).expect("YAML"))
    }

    fn shown(before: &str, after: &str) -> Vec<String> {
        flat(before).changes(&flat(after), &flat(before)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_are_told_by_name() {
        let before = "routes: [{name: a, action: {forward: x}}, {name: b, action: {forward: y}}]\nadmin: {token: old}";
        let after = "routes: [{name: c, match: {path: /}, action: {forward: z}}, {name: b, action: {forward: \
            x}}]\nadmin: {token: new}";
        let expected = [
            "~ admin.token: (secret) -> (secret)",
            "- routes.a: 2 keys",
            "~ routes.b.action.forward: y -> x",
            "+ routes.c: 3 keys",
        ];
        assert_eq!(shown(before, after), expected);
        assert!(shown(before, before).is_empty());
        let with = |value: &str| {
            format!(
                "routes: [{{name: a, filters: [{{headers: {{request: {{set: {{Authorization: {value}, x-a: \
                {value}}}}}}}}}]}}]"
            )
        };
        assert_eq!(
            shown(&with("one"), &with("two")),
            [
                "~ routes.a.filters.0.headers.request.set.Authorization: (secret) -> (secret)",
                "~ routes.a.filters.0.headers.request.set.x-a: one -> two"
            ]
        );
        let moved = "routes: [{name: b, action: {forward: y}}, {name: a, action: {forward: x}}]\nadmin: {token: old}";
        assert_eq!(shown(before, moved), ["~ routes, their order: a, b -> b, a"]);
        assert_eq!(
            shown("upstreams: {ab: {targets: [\"h:1\"]}}", "upstreams: {}"),
            ["+ upstreams: {}", "- upstreams.ab: 1 keys"]
        );
        assert_eq!(
            shown("process: {threads: 1}", "process: {threads: 2}"),
            ["~ process.threads: 1 -> 2 (from the next start or upgrade)"]
        );
    }
}
