//! Texts with `{names}` that are filled in.

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<TemplatePart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Name(String),
}

impl Template {
    /// Compiles a text in which only these names may stand in braces.
    ///
    /// # Errors
    /// Names the unknown name.
    pub fn new(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("expected a } behind {")?;
            if !known.contains(&name) {
                let near = super::nearest(name, known.iter().copied());
                return Err(format!("nothing here is called {{{name}}}{near}; known: {}", known.join(", ")));
            }
            parts.push(TemplatePart::Text(before.to_owned()));
            parts.push(TemplatePart::Name(name.to_owned()));
            rest = after;
        }
        parts.push(TemplatePart::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Returns an empty template, which replaces one that did not compile until the error is reported.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Returns whether that name stands in it.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|part| matches!(part, TemplatePart::Name(n) if n == name))
    }

    /// Returns the text with its names filled in.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                TemplatePart::Text(text) => out.push_str(text),
                TemplatePart::Name(name) => out.push_str(value(name).unwrap_or_default()),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_it_knows() {
        let template = Template::new("/v2/{id}/x{*}", &["id", "*"]).expect("fine");
        assert_eq!(template.fill(|n| Some(if n == "id" { "7" } else { "/rest" })), "/v2/7/x/rest");
        assert!(Template::new("/{ib}", &["id"]).is_err_and(|e| e.contains("did you mean \"id\"")));
        assert!(Template::new("/{", &[]).is_err());
    }
}
