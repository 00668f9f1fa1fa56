//! Rust files as the checks see them: tokens without comments and texts, the paths in them, functions and doc comments.

use std::path::{Path, PathBuf};

/// The folder of the checkout.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A word or a sign of the code, with its line. Comments, literals and lifetimes are left out.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A file.
#[derive(Debug)]
pub struct Source {
    /// Its path below the folder that was asked for.
    pub path: PathBuf,
    pub text: String,
    pub tokens: Vec<Token>,
}

/// A path in the code, such as `crate::edge::listeners::Bound`; of a group each member is one.
#[derive(Clone, Debug)]
pub struct Used {
    pub line: usize,
    pub segments: Vec<String>,
    /// The names of the inline modules around it.
    pub within: Vec<String>,
    /// The name that it gets, where it is imported.
    pub imported: Option<String>,
    /// Whether others may import it from here.
    pub exported: bool,
}

/// A function: its name, its first line and how many it has, signature included.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// All Rust files below a folder of the checkout, in the order of their paths.
pub fn sources(folder: &str) -> Vec<Source> {
    let base = Path::new(ROOT).join(folder);
    let (mut out, mut folders) = (Vec::new(), vec![base.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("the file");
                let path = path.strip_prefix(&base).expect("below the folder").to_path_buf();
                out.push(Source { path, tokens: tokens(&text), text });
            }
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!out.is_empty(), "no files in {folder}");
    out
}

/// The tokens of a text.
pub fn tokens(text: &str) -> Vec<Token> {
    let bytes: Vec<char> = text.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let from = at;
        let next = |n: usize| bytes.get(from + n).copied().unwrap_or('\0');
        at = match bytes[at] {
            '/' if next(1) == '/' => until(&bytes, at, |rest| rest.starts_with(&['\n'])),
            '/' if next(1) == '*' => block_comment(&bytes, at),
            '"' => text_literal(&bytes, at),
            'r' if (next(1) == '"' || next(1) == '#') && raw_literal(&bytes, at).is_some() => {
                raw_literal(&bytes, at).unwrap_or(at)
            }
            'b' if next(1) == '"' => text_literal(&bytes, at + 1),
            'b' if next(1) == 'r' && raw_literal(&bytes, at + 1).is_some() => raw_literal(&bytes, at + 1).unwrap_or(at),
            'b' if next(1) == '\'' => character(&bytes, at + 1),
            '\'' => character(&bytes, at),
            c if c.is_alphanumeric() || c == '_' => {
                let end = until(&bytes, at, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_'));
                out.push(Token { text: bytes[at..end].iter().collect(), line });
                end
            }
            ':' if next(1) == ':' => {
                out.push(Token { text: "::".to_owned(), line });
                at + 2
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token { text: c.to_string(), line });
                }
                at + 1
            }
        };
        line += bytes[from..at].iter().filter(|c| **c == '\n').count();
    }
    out
}

fn until(bytes: &[char], from: usize, ends: impl Fn(&[char]) -> bool) -> usize {
    (from..bytes.len()).find(|at| ends(&bytes[*at..])).unwrap_or(bytes.len())
}

fn block_comment(bytes: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from + 2, 1);
    while at < bytes.len() && depth > 0 {
        let pair = (bytes[at], bytes.get(at + 1).copied().unwrap_or('\0'));
        (at, depth) = match pair {
            ('/', '*') => (at + 2, depth + 1),
            ('*', '/') => (at + 2, depth - 1),
            _ => (at + 1, depth),
        };
    }
    at
}

/// The place behind a text whose first quotation mark is at `from`.
fn text_literal(bytes: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != '"' {
        at += if bytes[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The place behind a raw text whose `r` is at `from`, if it is one.
fn raw_literal(bytes: &[char], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|c| **c == '#').count();
    let begin = from + 1 + hashes;
    if bytes.get(begin) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    Some((until(bytes, begin + 1, |rest| rest.starts_with(&end)) + end.len()).min(bytes.len()))
}

/// The place behind a character or a lifetime whose mark is at `from`.
fn character(bytes: &[char], from: usize) -> usize {
    match (bytes.get(from + 1), bytes.get(from + 2)) {
        (Some('\\'), _) => until(bytes, from + 3, |rest| rest[0] == '\'') + 1,
        (Some(_), Some('\'')) => from + 3,
        _ => until(bytes, from + 1, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_')),
    }
}

/// Follows the braces of a file and knows the inline modules around each place.
#[derive(Default)]
struct Nesting {
    depth: usize,
    modules: Vec<(String, usize)>,
}

impl Nesting {
    fn follow(&mut self, tokens: &[Token], at: usize) {
        match tokens[at].text.as_str() {
            "{" => {
                let before = |n: usize| at.checked_sub(n).map_or("", |i| tokens[i].text.as_str());
                if before(2) == "mod" {
                    self.modules.push((before(1).to_owned(), self.depth));
                }
                self.depth += 1;
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.modules.last().is_some_and(|(_, depth)| *depth == self.depth) {
                    self.modules.pop();
                }
            }
            _ => {}
        }
    }
}

impl Source {
    /// Its place in the tree of modules; `main.rs` and `lib.rs` are the root.
    pub fn module(&self) -> Vec<String> {
        let mut segments: Vec<String> =
            self.path.with_extension("").components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        if segments.last().is_some_and(|l| l == "mod")
            || matches!(segments[..], [ref only] if only == "lib" || only == "main")
        {
            segments.pop();
        }
        segments
    }

    /// The folder below `src` that it belongs to; of a file in `src` itself its name.
    pub fn room(&self) -> String {
        let first = self.path.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned());
        first.unwrap_or_default().trim_end_matches(".rs").to_owned()
    }

    /// Whether all of it is compiled for tests only.
    pub fn is_test(&self) -> bool {
        let stem = self.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        stem.ends_with("tests")
    }

    /// The paths in it, those of `use` and all others.
    pub fn used(&self) -> Vec<Used> {
        let (mut out, mut nesting, mut at) = (Vec::new(), Nesting::default(), 0);
        while at < self.tokens.len() {
            nesting.follow(&self.tokens, at);
            let within = || nesting.modules.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            if self.tokens[at].text == "use" && self.text_at(at + 1) != "<" {
                let exported = self.is_exported(at);
                at = self.tree(at + 1, Vec::new(), exported, &within(), &mut out);
                continue;
            }
            let begins =
                is_name(self.text_at(at)) && self.text_at(at + 1) == "::" && (at == 0 || self.text_at(at - 1) != "::");
            if begins {
                let (line, mut segments) = (self.tokens[at].line, vec![self.tokens[at].text.clone()]);
                while self.text_at(at + 1) == "::" && is_name(self.text_at(at + 2)) {
                    segments.push(self.tokens[at + 2].text.clone());
                    at += 2;
                }
                out.push(Used { line, segments, within: within(), imported: None, exported: false });
            }
            at += 1;
        }
        out
    }

    fn text_at(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text.as_str())
    }

    /// Whether the `use` at this place is behind `pub` or `pub(…)`.
    fn is_exported(&self, at: usize) -> bool {
        let mut before = at;
        if before > 0 && self.text_at(before - 1) == ")" {
            while before > 0 && self.text_at(before) != "(" {
                before -= 1;
            }
        }
        before > 0 && self.text_at(before - 1) == "pub"
    }

    /// Reads a tree of imports; the place behind it.
    fn tree(
        &self,
        mut at: usize,
        mut segments: Vec<String>,
        exported: bool,
        within: &[String],
        out: &mut Vec<Used>,
    ) -> usize {
        let line = self.tokens.get(at).map_or(0, |t| t.line);
        let add = |segments: Vec<String>, name: Option<String>, out: &mut Vec<Used>| {
            out.push(Used { line, segments, within: within.to_vec(), imported: name, exported });
        };
        loop {
            match self.text_at(at) {
                "::" => at += 1,
                "{" => {
                    at += 1;
                    while !matches!(self.text_at(at), "}" | "") {
                        at = self.tree(at, segments.clone(), exported, within, out);
                        at += usize::from(self.text_at(at) == ",");
                    }
                    return at + 1;
                }
                "*" => {
                    add(segments, Some("*".to_owned()), out);
                    return at + 1;
                }
                name if is_name(name) => {
                    if name != "self" || segments.is_empty() {
                        segments.push(name.to_owned());
                    }
                    at += 1;
                    if self.text_at(at) == "as" {
                        add(segments, Some(self.text_at(at + 1).to_owned()), out);
                        return at + 2;
                    }
                    if self.text_at(at) != "::" {
                        let name = segments.last().cloned();
                        add(segments, name, out);
                        return at;
                    }
                }
                _ => return at + 1,
            }
        }
    }

    /// The functions in it, those within others included.
    pub fn functions(&self) -> Vec<Function> {
        let mut out = Vec::new();
        for at in 0..self.tokens.len() {
            if self.tokens[at].text != "fn" || !is_name(self.text_at(at + 1)) {
                continue;
            }
            let Some(end) = self.end_of_body(at) else { continue };
            let line = self.tokens[at].line;
            out.push(Function { name: self.text_at(at + 1).to_owned(), line, lines: self.tokens[end].line - line + 1 });
        }
        out
    }

    /// The place of the brace that ends the body of the function at `at`; `None` of one without a body.
    fn end_of_body(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        let begin = (at..self.tokens.len()).find(|i| {
            match self.text_at(*i) {
                "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(self.text_at(*i), "{" | ";")
        })?;
        if self.text_at(begin) == ";" {
            return None;
        }
        let mut braces = 0_usize;
        (begin..self.tokens.len()).find(|i| {
            match self.text_at(*i) {
                "{" => braces += 1,
                "}" => braces -= 1,
                _ => {}
            }
            braces == 0
        })
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
