//! What is known of a request to a GraphQL service, for the log and the metrics.

/// The facts about the operations of a request.
#[derive(Clone, Debug)]
pub struct GraphqlNote {
    /// The name of the first.
    pub name: Option<Box<str>>,
    /// The kinds of all: `query`, `mutation`, `subscription`, or `rejected`.
    pub kinds: Vec<&'static str>,
}

impl GraphqlNote {
    /// Returns the note of a request whose first operation has that name.
    pub fn new(name: Option<&str>) -> Self {
        Self { name: name.map(Into::into), kinds: Vec::new() }
    }

    /// Adds an operation.
    pub fn add(&mut self, kind: &'static str) {
        self.kinds.push(kind);
    }
}
