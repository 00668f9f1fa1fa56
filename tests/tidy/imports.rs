//! Which file uses which, through groups, `super` and re-exports.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Used};

/// The modules of a crate, each with the names that it re-exports.
pub struct Modules<'s> {
    files: BTreeMap<Vec<String>, &'s Source>,
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
    globs: BTreeMap<Vec<String>, Vec<Vec<String>>>,
}

/// One file uses another one.
#[derive(Clone, Debug)]
pub struct Edge {
    pub line: usize,
    /// What was written, from the root of the crate on.
    pub written: Vec<String>,
    /// The module of the file where it is.
    pub to: Vec<String>,
    /// Whether it is in code for tests.
    pub in_test: bool,
}

impl<'s> Modules<'s> {
    pub fn of(sources: &'s [Source]) -> Self {
        let files = sources.iter().filter(|s| s.path.to_str() != Some("main.rs")).map(|s| (s.module(), s)).collect();
        let mut modules = Self { files, exports: BTreeMap::new(), globs: BTreeMap::new() };
        for source in sources {
            for used in source.used().into_iter().filter(|u| u.exported && u.within.is_empty()) {
                let Some(path) = modules.absolute(source, &used) else { continue };
                match used.imported.as_deref() {
                    Some("*") => modules.globs.entry(source.module()).or_default().push(path),
                    Some(name) => _ = modules.exports.insert((source.module(), name.to_owned()), path),
                    None => {}
                }
            }
        }
        modules
    }

    /// A path from the root of the crate on; `None` where it leads out of the crate or is no path of modules.
    fn absolute(&self, source: &Source, used: &Used) -> Option<Vec<String>> {
        let mut module = source.module();
        module.extend(used.within.iter().cloned());
        let mut segments = used.segments.iter().peekable();
        match segments.peek()?.as_str() {
            "crate" => {
                segments.next();
                module.clear();
            }
            "self" => _ = segments.next(),
            "super" => {
                while segments.next_if(|s| *s == "super").is_some() {
                    module.pop()?;
                }
            }
            "portcullis" => {
                segments.next();
                module.clear();
            }
            first => {
                let mut child = module.clone();
                child.push(first.to_owned());
                if !self.files.contains_key(&child) {
                    return None;
                }
            }
        }
        module.extend(segments.cloned());
        Some(module)
    }

    /// The file that a path from the root leads to, through re-exports.
    fn file_of(&self, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        // A re-export may be of a re-export.
        for _ in 0..8 {
            let depth = (0..=path.len()).rev().find(|n| self.files.contains_key(&path[..*n]))?;
            let Some(name) = path.get(depth) else { return Some(path) };
            let module = path[..depth].to_vec();
            let next = self.exports.get(&(module.clone(), name.clone())).cloned().or_else(|| self.glob(&module, name));
            match next {
                Some(mut next) => {
                    next.extend(path[depth + 1..].iter().cloned());
                    path = next;
                }
                None => return Some(module),
            }
        }
        None
    }

    /// What a name is by the globs of a module, if it is one of theirs.
    fn glob(&self, module: &[String], name: &str) -> Option<Vec<String>> {
        self.globs.get(module)?.iter().find_map(|from| {
            self.exports.get(&(from.clone(), name.to_owned())).cloned().or_else(|| {
                let declares = self.files.get(from).is_some_and(|file| declares(file, name));
                declares.then(|| from.iter().cloned().chain([name.to_owned()]).collect())
            })
        })
    }

    /// What a file uses, but for itself.
    pub fn edges(&self, source: &Source) -> Vec<Edge> {
        let own = source.module();
        let edge = |used: Used| {
            let written = self.absolute(source, &used)?;
            let to = self.file_of(&written)?;
            let in_test = source.is_test() || used.within.iter().any(|m| m.contains("test"));
            Some(Edge { line: used.line, written, to, in_test })
        };
        source.used().into_iter().filter_map(edge).filter(|edge| edge.to != own).collect()
    }
}

/// Whether a file declares an item of that name.
fn declares(source: &Source, name: &str) -> bool {
    let kinds = ["struct", "enum", "trait", "fn", "type", "const", "static", "union", "mod"];
    source.tokens.windows(2).any(|pair| kinds.contains(&pair[0].text.as_str()) && pair[1].text == name)
}

/// The circles in a graph: sets of more than one node that all reach each other.
pub fn circles<N: Clone + Ord>(graph: &BTreeMap<N, BTreeSet<N>>) -> Vec<BTreeSet<N>> {
    let reach = |from: &N| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(node) = next.pop() {
            for to in graph.get(&node).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&N, BTreeSet<N>> = graph.keys().map(|node| (node, reach(node))).collect();
    let circle = |node: &N| -> BTreeSet<N> {
        let there = &reached[node];
        let back = |other: &&N| reached.get(other).is_some_and(|r| r.contains(node));
        there.iter().filter(back).cloned().chain([node.clone()]).collect()
    };
    let all: BTreeSet<BTreeSet<N>> = graph.keys().map(circle).filter(|c| c.len() > 1).collect();
    all.into_iter().collect()
}
