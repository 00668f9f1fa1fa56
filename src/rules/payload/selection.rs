//! What is kept of a JSON document: a tree of names, written as `id,user(name,address.city),items.*.sku`.

use std::fmt;

use smallvec::SmallVec;

/// A tree of the names that are kept. Below a name without further ones everything is kept. Arrays are transparent;
/// `*` is any name, or any element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The first is the root.
    nodes: Vec<SelectionNode>,
    /// Bits of the lengths of the names; the last is for all longer ones.
    lengths: u64,
    any: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SelectionNode {
    /// Sorted by length, and then by bytes.
    names: Vec<(Box<[u8]>, u16)>,
    any: Option<u16>,
    /// Whether everything here is kept.
    whole: bool,
    /// The place of its name in the expression, in characters from 1.
    at: usize,
}

/// The nodes that a place in a document has.
pub type SelectedNodes = SmallVec<[u16; 4]>;

/// What is kept of a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it is removed.
    Nothing,
    /// All of it.
    Whole,
    /// The members that these nodes name.
    Members(SelectedNodes),
}

/// The most that an expression may have.
#[derive(Clone, Copy, Debug)]
pub struct SelectionLimits {
    /// Names.
    pub names: usize,
    /// Names within each other.
    pub depth: usize,
}

impl SelectionLimits {
    /// The limits of expressions in the configuration, above which nothing can be set.
    pub const MOST: Self = Self { names: 1_024, depth: 32 };
}

/// Why an expression selects nothing, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectionError {
    /// The place in the expression, in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at character {}", self.why, self.at)
    }
}

impl Selection {
    /// Parses one expression.
    ///
    /// # Errors
    /// Returns what is wrong, and where.
    pub fn parse(text: &str, limits: SelectionLimits) -> Result<Self, SelectionError> {
        let mut selection = Self { nodes: vec![SelectionNode::default()], lengths: 0, any: false };
        selection.add(text, limits)?;
        selection.finish();
        Ok(selection)
    }

    /// Parses several expressions, whose union is kept.
    ///
    /// # Errors
    /// Returns the number of the first wrong one, with what is wrong and where.
    pub fn of_all<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        limits: SelectionLimits,
    ) -> Result<Self, (usize, SelectionError)> {
        let mut selection = Self { nodes: vec![SelectionNode::default()], lengths: 0, any: false };
        for (index, text) in texts.into_iter().enumerate() {
            selection.add(text, limits).map_err(|error| (index, error))?;
        }
        selection.finish();
        Ok(selection)
    }

    fn add(&mut self, text: &str, limits: SelectionLimits) -> Result<(), SelectionError> {
        let mut parser = Parser { rest: text, at: 1, limits, selection: self };
        parser.fields(0, 0)?;
        if parser.rest.is_empty() { Ok(()) } else { Err(parser.error("expected a comma or the end")) }
    }

    /// Removes what a node keeps anyway: all names of it are all of it.
    fn finish(&mut self) {
        // Children have higher numbers than their parents.
        for at in (0..self.nodes.len()).rev() {
            let any = self.nodes[at].any.is_some_and(|any| self.nodes[usize::from(any)].whole);
            self.nodes[at].whole |= any;
        }
    }

    /// Returns the child of that name, which is added where there is none.
    fn child(&mut self, node: u16, (name, any): (&[u8], bool), at: usize) -> u16 {
        let new = self.nodes.len() as u16;
        let parent = &mut self.nodes[usize::from(node)];
        let child = if any {
            self.any = true;
            *parent.any.get_or_insert(new)
        } else {
            match position(&parent.names, name) {
                Ok(place) => parent.names[place].1,
                Err(place) => {
                    parent.names.insert(place, (name.into(), new));
                    self.lengths |= 1 << name.len().min(63);
                    new
                }
            }
        };
        if child == new {
            self.nodes.push(SelectionNode { at, ..SelectionNode::default() });
        }
        child
    }

    /// Returns whether everything is kept.
    pub fn is_whole(&self) -> bool {
        self.nodes[0].whole
    }

    /// Returns whether all names are ASCII.
    pub fn is_ascii(&self) -> bool {
        self.nodes.iter().all(|node| node.names.iter().all(|(name, _)| name.is_ascii()))
    }

    /// Returns the nodes of the root.
    pub fn root() -> SelectedNodes {
        SmallVec::from_slice(&[0])
    }

    /// Returns what is kept of the member `name` of an object that has these nodes.
    pub fn enter(&self, nodes: &[u16], name: &[u8]) -> Kept {
        let known = self.lengths >> name.len().min(63) & 1 == 1;
        if !known && !self.any {
            return Kept::Nothing;
        }
        let mut below = SelectedNodes::new();
        for node in nodes {
            let node = &self.nodes[usize::from(*node)];
            below.extend(node.any);
            if known && let Ok(place) = position(&node.names, name) {
                below.push(node.names[place].1);
            }
        }
        if below.is_empty() {
            Kept::Nothing
        } else if below.iter().any(|node| self.nodes[usize::from(*node)].whole) {
            Kept::Whole
        } else {
            Kept::Members(below)
        }
    }

    /// Returns the nodes of an array's elements: those of the array, and what `*` names.
    pub fn elements(&self, mut nodes: SelectedNodes) -> SelectedNodes {
        if self.any {
            for at in 0..nodes.len() {
                nodes.extend(self.nodes[usize::from(nodes[at])].any);
            }
        }
        nodes
    }

    /// Checks that nothing is kept that `allowed` does not keep.
    ///
    /// # Errors
    /// Returns the first name that keeps more.
    pub fn check_within(&self, allowed: &Self) -> Result<(), SelectionError> {
        self.check_node(0, allowed, &Self::root())
    }

    fn check_node(&self, node: u16, allowed: &Self, nodes: &[u16]) -> Result<(), SelectionError> {
        let own = &self.nodes[usize::from(node)];
        if nodes.iter().any(|node| allowed.nodes[usize::from(*node)].whole) {
            return Ok(());
        }
        let error = |at: usize| SelectionError { at: at.max(1), why: "a field that may not be selected".to_owned() };
        if own.whole {
            return Err(error(own.any.map_or(own.at, |any| self.nodes[usize::from(any)].at)));
        }
        let any = nodes.iter().filter_map(|node| allowed.nodes[usize::from(*node)].any).collect::<SelectedNodes>();
        let children = own.names.iter().map(|(name, child)| (Some(name), *child));
        for (name, child) in children.chain(own.any.map(|child| (None, child))) {
            let mut below = any.clone();
            for node in nodes {
                let names = &allowed.nodes[usize::from(*node)].names;
                below.extend(name.and_then(|name| position(names, name).ok()).map(|place| names[place].1));
            }
            if below.is_empty() {
                return Err(error(self.nodes[usize::from(child)].at));
            }
            self.check_node(child, allowed, &below)?;
        }
        Ok(())
    }
}

/// Returns the place of a name, or the place for it.
fn position(names: &[(Box<[u8]>, u16)], name: &[u8]) -> Result<usize, usize> {
    names.binary_search_by(|(known, _)| (known.len(), &**known).cmp(&(name.len(), name)))
}

/// The parser of an expression.
struct Parser<'t, 's> {
    rest: &'t str,
    /// The place of the rest, in characters from 1.
    at: usize,
    limits: SelectionLimits,
    selection: &'s mut Selection,
}

impl Parser<'_, '_> {
    fn error(&self, why: &str) -> SelectionError {
        SelectionError { at: self.at, why: why.to_owned() }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        self.at += 1;
        Some(next)
    }

    /// Takes one of these characters, with the spaces around it.
    fn takes(&mut self, wanted: &[char]) -> bool {
        self.skip_spaces();
        let found = self.rest.starts_with(wanted);
        if found {
            self.next();
            self.skip_spaces();
        }
        found
    }

    fn skip_spaces(&mut self) {
        while self.rest.starts_with(|c: char| c.is_ascii_whitespace()) {
            self.next();
        }
    }

    /// Parses fields with commas between them.
    fn fields(&mut self, node: u16, depth: usize) -> Result<(), SelectionError> {
        loop {
            self.field(node, depth)?;
            if !self.takes(&[',']) {
                return Ok(());
            }
        }
    }

    /// Parses names with dots between them, and the fields in parentheses behind the last.
    fn field(&mut self, mut node: u16, mut depth: usize) -> Result<(), SelectionError> {
        loop {
            self.skip_spaces();
            let at = self.at;
            let (name, quoted) = self.name()?;
            if name == "**" && !quoted {
                return Err(SelectionError { at, why: "expected a name or *, found **".to_owned() });
            }
            depth += 1;
            if depth > self.limits.depth {
                return Err(SelectionError { at, why: format!("more than {} levels", self.limits.depth) });
            }
            node = self.selection.child(node, (name.as_bytes(), name == "*" && !quoted), at);
            if self.selection.nodes.len() > self.limits.names.min(SelectionLimits::MOST.names) + 1 {
                return Err(SelectionError { at, why: format!("more than {} names", self.limits.names) });
            }
            if self.takes(&['.', '/']) {
                continue;
            }
            if !self.takes(&['(']) {
                self.selection.nodes[usize::from(node)].whole = true;
                return Ok(());
            }
            self.fields(node, depth)?;
            return if self.takes(&[')']) {
                Ok(())
            } else {
                Err(self.error("expected a comma or a closing parenthesis"))
            };
        }
    }

    /// Parses a name, and returns whether it has a backslash, which takes the meaning from the character behind it.
    fn name(&mut self) -> Result<(String, bool), SelectionError> {
        let (at, mut name, mut quoted) = (self.at, String::new(), 0);
        while !self.rest.is_empty() && !self.rest.starts_with([',', '(', ')', '.', '/']) {
            match self.next() {
                Some('\\') => {
                    name.extend(self.next());
                    quoted = name.len();
                }
                next => name.extend(next),
            }
        }
        name.truncate(name.trim_ascii_end().len().max(quoted));
        if name.is_empty() {
            return Err(SelectionError { at, why: "expected a name".to_owned() });
        }
        Ok((name, quoted > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Selection {
        Selection::parse(text, SelectionLimits::MOST).expect("an expression")
    }

    #[test]
    fn expressions_that_are_equal() {
        for (one, other) in [
            ("user(name,mail)", "user.name,user.mail"),
            ("a/b", "a.b"),
            (" a ( b , c ) , d ", "a(b,c),d"),
            ("a(b(c.d))", "a.b.c.d"),
        ] {
            let names = |text: &str| {
                let selection = parse(text);
                selection.nodes.iter().map(|node| (node.names.clone(), node.any, node.whole)).collect::<Vec<_>>()
            };
            assert_eq!(names(one), names(other), "{one} and {other}");
        }
        let selection = parse(r"a\.b(c\,d),*.\(x");
        assert!(matches!(selection.enter(&[0], b"a.b"), Kept::Members(nodes) if nodes.len() == 2));
        assert!(parse("*").is_whole() && parse("a,*").is_whole() && !parse("*.a").is_whole());
        assert_eq!(parse("user(name),user").enter(&[0], b"user"), Kept::Whole);
        assert_eq!(parse(r"\*").enter(&[0], b"a"), Kept::Nothing);
        assert_eq!(parse("user.*").enter(&[0], b"user"), Kept::Whole);
    }

    #[test]
    fn errors_name_their_place() {
        for (text, at, why) in [
            ("", 1, "expected a name"),
            ("a,", 3, "expected a name"),
            ("a,,b", 3, "expected a name"),
            ("é(", 3, "expected a name"),
            ("a()", 3, "expected a name"),
            ("a(b", 4, "expected a comma or a closing"),
            ("a)", 2, "expected a comma or the end"),
            ("a(b)c", 5, "expected a comma or the end"),
            ("a..b", 3, "expected a name"),
            ("a.**", 3, "expected a name or *"),
            ("a.b.c.d", 7, "more than 3 levels"),
            ("a(b(c(d)))", 7, "more than 3 levels"),
            ("a,b,c,d,e,f", 11, "more than 5 names"),
        ] {
            let error = Selection::parse(text, SelectionLimits { names: 5, depth: 3 }).expect_err(text);
            assert!(error.at == at && error.why.starts_with(why), "{text}: {error}");
        }
        let deep = "a(".repeat(100_000);
        assert!(Selection::parse(&deep, SelectionLimits::MOST).is_err());
    }

    #[test]
    fn what_may_be_selected() {
        let allowed = parse("id,user(name,address),items.*.sku");
        for text in ["id", "id.x", "user.name,user.address(city)", "items.*.sku", "items.a.sku", "items.a.sku.b"] {
            assert_eq!(parse(text).check_within(&allowed), Ok(()), "{text}");
        }
        for (text, at) in [("id,user", 4), ("ssn", 1), ("user(ssn)", 6), ("user.*", 6), ("*", 1), ("items.*", 7)] {
            assert_eq!(parse(text).check_within(&allowed).map_err(|error| error.at), Err(at), "{text}");
        }
        assert_eq!(parse("a.b,*").check_within(&parse("*")), Ok(()));
    }
}
