//! The expressions of attacks, each with the level from which on it is used. They are matched against values in lower
//! case.

use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::AttackKinds;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// SQL in a value (CWE-89), and operators of document stores (CWE-943).
    SqlInjection,
    /// Script or markup in a value (CWE-79).
    CrossSiteScripting,
    /// A path that leads out of its folder (CWE-22).
    PathTraversal,
    /// A command for a shell (CWE-78).
    CommandInjection,
    /// Files of a system, and inclusion of files by URL (CWE-98, CWE-538).
    FileAccess,
    /// Code of a template, an expression or a language (CWE-94, CWE-917), and serialised objects (CWE-502).
    CodeInjection,
    /// Lines that would be headers of their own (CWE-113).
    HeaderInjection,
    /// Programs that look for weaknesses, by the name that they give themselves.
    Scanner,
}

impl AttackKind {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SqlInjection => "sql_injection",
            Self::CrossSiteScripting => "cross_site_scripting",
            Self::PathTraversal => "path_traversal",
            Self::CommandInjection => "command_injection",
            Self::FileAccess => "file_access",
            Self::CodeInjection => "code_injection",
            Self::HeaderInjection => "header_injection",
            Self::Scanner => "scanner",
        }
    }
}

/// How much is taken for an attack: more is found at a higher level, and more that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paranoia {
    /// What is hardly ever anything else.
    One,
    /// What is seldom anything else.
    Two,
    /// What is often anything else.
    Three,
}

/// An expression: its name, the kind of attack, the level from which on it is used.
type Row = (&'static str, AttackKind, Paranoia, &'static str);

use AttackKind::{
    CodeInjection, CommandInjection, CrossSiteScripting, FileAccess, HeaderInjection, PathTraversal, SqlInjection,
};
use Paranoia::{One, Three, Two};

/// Commands that attacks begin with.
macro_rules! commands {
    () => {
        r"(?:cat|ls|id|whoami|uname|wget|curl|nc|ncat|bash|sh|zsh|python[23]?|perl|ruby|php|ping|nslookup|dig|rm|chmod|echo|sleep|env|printenv|ifconfig|netstat|powershell|cmd|certutil)"
    };
}

const ROWS: &[Row] = &[
    // SQL, beside the tokens.
    ("sql_union", SqlInjection, One, r"\bunion\b(?:\s|/\*.*?\*/)+(?:all(?:\s|/\*.*?\*/)+)?\bselect\b"),
    ("sql_comment_tricks", SqlInjection, One, r"/\*!\d*\s*(?:union|select|or|and|sleep|benchmark)\b"),
    (
        "sql_time",
        SqlInjection,
        One,
        r"\b(?:sleep|pg_sleep|benchmark|dbms_lock\.sleep)\s*\(\s*['0-9.]+\s*[),]|\bdbms_pipe\.receive_message\b|\bwaitfor\s+delay\s*'",
    ),
    (
        "sql_schema",
        SqlInjection,
        One,
        r"\binformation_schema\b\s*\.|\bpg_catalog\b\s*\.|\bsysobjects\b|\bsqlite_master\b",
    ),
    ("sql_stacked", SqlInjection, One, r"['0-9)]\s*;\s*(?:drop|truncate|alter|create|shutdown|exec|declare)\s+[a-z_@]"),
    ("sql_files", SqlInjection, One, r"\binto\s+(?:out|dump)file\b|\bload_file\s*\(|\bxp_cmdshell\b"),
    (
        "nosql_operator",
        SqlInjection,
        One,
        r"^\s*\{\s*.?\$(?:ne|gt|gte|lt|lte|in|nin|where|regex|or|and|exists)\b|\[\$(?:ne|gt|gte|lt|lte|in|nin|where|regex|exists)\]",
    ),
    (
        "sql_tautology",
        SqlInjection,
        Two,
        r"['\x22)]\s*(?:or|and|xor|\|\||&&)\s*\(?\s*(?:['\x22]?\w+['\x22]?)\s*(?:=|<|>|like\b|in\b|is\b)",
    ),
    ("sql_select", SqlInjection, Two, r"\bselect\b.{1,100}\bfrom\b.{0,50}(?:--|#|\bwhere\b|\blimit\b|;|$)"),
    ("sql_quote_comment", SqlInjection, Three, r"['\x22].{0,30}(?:--|#|/\*)"),
    (
        "sql_function",
        SqlInjection,
        Three,
        r"\b(?:concat|char|ascii|substring|hex|unhex|cast|convert|if|version|user|database)\s*\(",
    ),
    // Script.
    (
        "script_tag",
        CrossSiteScripting,
        One,
        r"<\s*/?\s*script\b|<\s*(?:iframe|object|embed|svg|math|base|meta|link|form)\b[^>]*(?:on\w+\s*=|src\s*=|href\s*=|http-equiv|action\s*=)",
    ),
    (
        "script_url",
        CrossSiteScripting,
        One,
        r"(?:^|[\s\x22'=(])(?:j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t|vbscript)\s*:\s*[^\s/]|data\s*:\s*text/html",
    ),
    ("script_handler", CrossSiteScripting, One, r"<\w[^>]{0,200}\son[a-z]{3,25}\s*="),
    (
        "script_attribute",
        CrossSiteScripting,
        Two,
        r"[\x22'`\s/]on(?:error|load|click|mouse\w+|focus|blur|key\w+|submit|toggle|pointer\w+|animation\w+)\s*=",
    ),
    (
        "script_call",
        CrossSiteScripting,
        Two,
        r"\b(?:alert|confirm|prompt|eval|settimeout|setinterval|fetch)\s*[(`]|document\s*\.\s*(?:cookie|domain|write|location)|window\s*\.\s*(?:location|name|open)",
    ),
    ("markup", CrossSiteScripting, Three, r"<[a-z!/?]"),
    // Paths.
    (
        "parent_folder",
        PathTraversal,
        One,
        r"(?:^|[\\/=])\.\.[\\/]\.?|(?:\.\.;/)|(?:^|[\\/])\.\.(?:$|[\\/?])|\.\.%(?:2f|5c)",
    ),
    ("overlong_slash", PathTraversal, One, r"\xc0\xae|\xc0\xaf|\xe0\x80\xaf|%c0%a[ef]|%c1%9c"),
    ("parent_folder_anywhere", PathTraversal, Two, r"\.\.[\\/]|[\\/]\.\."),
    // Files.
    (
        "unix_files",
        FileAccess,
        One,
        r"/etc/(?:passwd|shadow|group|hosts|sudoers|ssh/|crontab)|/proc/(?:self|\d+)/(?:environ|cmdline|maps|fd)|/root/\.|\.ssh/(?:id_|authorized)|/var/log/(?:auth|apache|nginx)",
    ),
    ("windows_files", FileAccess, One, r"[a-z]:[\\/]+(?:windows|winnt|boot\.ini|inetpub)|\bwin\.ini\b|\bboot\.ini\b"),
    (
        "hidden_files",
        FileAccess,
        One,
        r"(?:^|/)\.(?:git/|svn/|hg/|env(?:$|[./\s])|htpasswd|htaccess|aws/credentials|npmrc|dockerenv|bash_history)",
    ),
    (
        "stream_wrapper",
        FileAccess,
        One,
        r"\b(?:php|phar|zip|expect|glob|ogg|rar|ssh2|gopher|dict|jar|netdoc)://|^file:/",
    ),
    ("metadata_host", FileAccess, One, r"169\.254\.169\.254|metadata\.google\.internal|100\.100\.100\.200"),
    ("url_of_address", FileAccess, Three, r"^(?:https?|ftp)://\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"),
    // Commands.
    (
        "command_after",
        CommandInjection,
        One,
        concat!(
            r"(?:[;|`\n]|&&|\|\|)\s*(?:/(?:usr/)?(?:s?bin|local/bin)/)?",
            commands!(),
            r"(?:\.exe)?(?:\s+[-/\w.~$\x22'<>:]|\s*$|\s*[;|`&)]|\$\{?ifs)"
        ),
    ),
    (
        "command_substitution",
        CommandInjection,
        One,
        concat!(
            r"\$\(\s*(?:/(?:usr/)?s?bin/)?",
            commands!(),
            r"\b|`\s*(?:/(?:usr/)?s?bin/)?",
            commands!(),
            r"(?:\s[^`]{0,200})?`"
        ),
    ),
    (
        "shell_path",
        CommandInjection,
        One,
        r"/(?:usr/)?bin/(?:ba|z|da|k|c)?sh\b|/dev/(?:tcp|udp)/|\bcmd(?:\.exe)?\s*/c\b|powershell(?:\.exe)?\s+-(?:e|enc|c|nop|w)",
    ),
    ("shellshock", CommandInjection, One, r"\(\s*\)\s*\{.{0,20};\s*\}\s*;"),
    ("shell_variable", CommandInjection, Two, r"\$\{?(?:ifs|path|home|shell|@)\b"),
    ("shell_operator", CommandInjection, Three, r"[;|&`]\s*[a-z]{2,}\s|\$\(|>\s*/"),
    // Code.
    ("jndi", CodeInjection, One, r"\$\{[^}]{0,60}?(?:jndi|\$\{|lower:|upper:|env:|sys:|::-)"),
    (
        "template",
        CodeInjection,
        One,
        r"\{\{.{0,100}?(?:__\w+__|\.constructor|config\b|self\b|request\.|lipsum|cycler|\d\s*\*\s*\d).{0,100}?\}\}|<%=?.{1,100}%>|#\{.{0,40}\d\s*\*\s*\d",
    ),
    (
        "expression_language",
        CodeInjection,
        One,
        r"(?:\$|#|%)\{.{0,100}?(?:java\.lang|runtime|processbuilder|getclass|classloader|@[a-z]+\.|t\(java)",
    ),
    (
        "php",
        CodeInjection,
        One,
        r"<\?(?:php\b|=)|\b(?:system|passthru|shell_exec|proc_open|popen|assert|call_user_func|base64_decode|file_get_contents)\s*\(\s*[\$'\x22]",
    ),
    (
        "class_loader",
        CodeInjection,
        One,
        r"\bclass\.module\.classloader\b|\bjava\.lang\.(?:runtime|processbuilder|system)\b",
    ),
    ("prototype", CodeInjection, One, r"__proto__\s*[\]\[.=:\x22]|constructor\s*[\]\[.]+\s*prototype"),
    (
        "serialised_object",
        CodeInjection,
        One,
        r"^\s*ro0ab|^\s*aced0005|(?:^|[;{:])o:\d+:\x22\w+\x22:\d+:\{|!!python/(?:object|name|module)|!!javax?\.",
    ),
    (
        "node",
        CodeInjection,
        One,
        r"\brequire\s*\(\s*['\x22](?:child_process|fs|net|os|vm)['\x22]|\bprocess\s*\.\s*(?:mainmodule|binding|env)\b|_\$\$nd_func\$\$_",
    ),
    ("xml_entity", CodeInjection, One, r"<!(?:entity|doctype)\b[^>]{0,200}(?:system|public|%)"),
    ("template_anywhere", CodeInjection, Two, r"\{\{[^}]{1,100}\}\}|\$\{[^}]{1,100}\}"),
    // Lines.
    (
        "header_line",
        HeaderInjection,
        One,
        r"[\r\n]\s*(?:set-cookie|location|content-(?:type|length|disposition)|transfer-encoding|host|x-[a-z-]{1,30}|http/\d)\s*[:.]",
    ),
    ("line_break", HeaderInjection, Three, r"\r\n"),
];

/// The names of members by which a document store takes a value for a condition.
pub const STORE_OPERATORS: &[&str] = &[
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$not",
    "$nor",
    "$or",
    "$and",
    "$exists",
    "$regex",
    "$where",
    "$expr",
    "$function",
    "$accumulator",
    "$mod",
    "$elemMatch",
    "$lookup",
];

/// The names of programs that look for weaknesses.
const SCANNERS: &str = r"(?i)\b(?:sqlmap|nikto|nessus|openvas|acunetix|netsparker|w3af|dirbuster|gobuster|wpscan|masscan|zgrab|nuclei|havij|arachni|jaeles|fimap|commix|xsser|joomscan|whatweb|skipfish|nmap scripting engine)\b";

/// The expressions of a level.
#[derive(Debug)]
pub struct PatternSet {
    rows: Vec<&'static Row>,
    set: RegexSet,
    scanners: RegexSet,
}

impl PatternSet {
    /// Compiles the expressions of that level.
    pub fn of(paranoia: Paranoia) -> Self {
        let rows: Vec<&Row> = ROWS.iter().filter(|(_, _, from, _)| *from <= paranoia).collect();
        let build = |all: Vec<&str>| {
            // Values are octets, and may be no text. A test compiles every expression.
            RegexSetBuilder::new(all)
                .unicode(false)
                .dot_matches_new_line(true)
                .build()
                .unwrap_or_else(|_| RegexSet::empty())
        };
        Self { set: build(rows.iter().map(|row| row.3).collect()), rows, scanners: build(vec![SCANNERS]) }
    }

    /// Returns kind and name of the first expression of one of these kinds that matches.
    pub fn find(&self, lower: &[u8], kinds: AttackKinds) -> Option<(AttackKind, &'static str)> {
        let matching = self.set.matches(lower).into_iter().filter_map(|index| self.rows.get(index));
        matching.map(|(name, kind, ..)| (*kind, *name)).find(|(kind, _)| kinds.has(*kind))
    }

    /// Returns the name of the rule, if the client calls itself one of these programs.
    pub fn scanner(&self, value: &[u8]) -> Option<&'static str> {
        self.scanners.is_match(value).then_some("scanner_name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles() {
        for paranoia in [One, Two, Three] {
            let set = PatternSet::of(paranoia);
            assert_eq!(set.set.len(), set.rows.len());
            assert!(!set.rows.is_empty() && set.scanners.len() == 1);
        }
    }
}
