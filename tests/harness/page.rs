//! A page of the documentation, as steps that can be executed.

/// A part of a page, in the order of the page.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// A block of YAML, whose first line names the file.
    File { name: String, text: String },
    /// A line of a shell block, with the comment below it: what it prints.
    Command { line: String, prints: String },
}

/// The steps of a page.
pub fn steps(page: &str) -> Vec<Step> {
    let (mut out, mut lines) = (Vec::new(), page.lines());
    while let Some(line) = lines.next() {
        let block: Vec<&str> = match line {
            "```sh" | "```yaml" | "```html" | "```graphql" | "```proto" | "```xml" => {
                lines.by_ref().take_while(|l| *l != "```").collect()
            }
            _ => continue,
        };
        if line != "```sh" {
            // The first line is a comment with the name of the file.
            let first = block[0];
            let comment = first.strip_prefix("# ").or_else(|| first.strip_prefix("// "));
            let comment = comment.or_else(|| first.strip_prefix("<!-- ")?.strip_suffix(" -->"));
            let name = comment.unwrap_or("portcullis.yaml").to_owned();
            out.push(Step::File { name, text: block.join("\n") + "\n" });
            continue;
        }
        for line in block.into_iter().filter(|l| !l.is_empty()) {
            match (line.strip_prefix("# "), out.last_mut()) {
                (Some(comment), Some(Step::Command { prints, .. })) => prints.push_str(comment),
                (Some(comment), _) => panic!("no command before: {comment}"),
                _ => out.push(Step::Command {
                    line: line.split("  # ").next().unwrap_or(line).trim().to_owned(),
                    prints: String::new(),
                }),
            }
        }
    }
    out
}

/// Looks for what a command is said to print: the parts between the ellipses, in their order. Returns what is wrong.
pub fn mismatch(printed: &str, prints: &str) -> Option<String> {
    let mut rest = printed;
    for part in prints.split('…').map(str::trim).filter(|p| !p.is_empty()) {
        match (part.strip_prefix("and no "), rest.find(part)) {
            (Some(gone), _) if printed.contains(gone) => return Some(format!("{gone} is in {printed}")),
            (Some(_), _) => {}
            (None, Some(at)) => rest = &rest[at + part.len()..],
            (None, None) => return Some(format!("{part:?} is not in {printed}")),
        }
    }
    None
}
