//! The schema in the validators of others: python jsonschema, and ajv in strict mode.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::harness::gateway::run;
use super::programs::{finish, script};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns for each file whether both validators accept it; they must agree.
#[track_caller]
fn verdicts(files: &[PathBuf]) -> Vec<bool> {
    let schema = Path::new(ROOT).join("conf/schema.json").display().to_string();
    let mut all = Vec::new();
    for program in ["schema.py", "schema.js"] {
        let mut command = script(program, &[&schema]);
        let done = finish(command.args(files), b"");
        assert_eq!((done.code, done.errors.as_str()), (0, ""), "{program}");
        all.push(done.json());
        assert_eq!(all.last().map(Vec::len), Some(files.len()), "{program}");
    }
    let pairs = all[0].iter().zip(&all[1]);
    pairs
        .map(|(python, ajv)| {
            let text = || std::fs::read_to_string(python["file"].as_str().unwrap_or_default()).unwrap_or_default();
            assert_eq!(python["valid"], ajv["valid"], "{}\njsonschema: {python}, ajv: {ajv}", text());
            python["valid"] == Value::Bool(true)
        })
        .collect()
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(ROOT).join(folder)).expect("the folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    files
}

/// Writes the YAML of the guides that is a whole configuration into a folder.
fn of_guides(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("conf/guides")).expect("the guides") {
        let path = entry.expect("an entry").path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)) {
            if block.lines().any(|line| line.starts_with("listeners:")) {
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
                files.push(folder.join(format!("{name}-{}.yaml", files.len())));
                std::fs::write(files.last().expect("a file"), block).expect("written");
            }
        }
    }
    files
}

#[test]
fn the_schema_accepts_every_example() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = yaml_files("conf/examples");
    files.extend(yaml_files("conf/examples/routes.d"));
    let folders = ["from-kong", "from-nginx"].iter();
    files.extend(folders.map(|name| Path::new(ROOT).join("conf/examples").join(name).join("portcullis.yaml")));
    files.push(Path::new(ROOT).join("conf/portcullis.yaml"));
    for file in &files {
        let text = std::fs::read_to_string(file).expect("the file");
        let first = text.lines().next().unwrap_or_default();
        let schema = first.strip_prefix("# yaml-language-server: $schema=").expect("a line for editors");
        let path = file.parent().expect("a folder").join(schema).canonicalize().expect("the schema");
        assert_eq!(path, Path::new(ROOT).join("conf/schema.json").canonicalize().expect("the schema"));
    }
    let guides = of_guides(folder.path());
    assert!(files.len() > 8 && guides.len() > 8, "{} and {}", files.len(), guides.len());
    files.extend(guides);
    for (file, is_valid) in files.iter().zip(verdicts(&files)) {
        assert!(is_valid, "{}", file.display());
    }
}

/// A configuration with one value, and whether it is right.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    (
        "listeners: {name: a, address: VALUE}",
        &["127.0.0.1:0", "'[::1]:0'", "'${env:HOME}'"],
        &["':80'", "localhost", "8080"],
    ),
    ("admin: {address: VALUE}", &["127.0.0.1:9901", "none", "unix:/tmp/a.sock"], &["off", "9901", "[]"]),
    ("shield: {requests_per_address: VALUE}", &["100/s", "20/10s"], &["100", "fast", "10r/s", "PT5S"]),
    ("process: {drain_time: VALUE}", &["30s", "1.5m", "500ms"], &["30", "PT30S", "30 seconds", "true"]),
    ("process: {body_memory: VALUE}", &["256MiB", "1GB"], &["256", "256m", "1gb"]),
    ("process: {threads: VALUE}", &["0", "4", "'${env:SURELY_NOT_SET:-2}'"], &["-1", "2000", "many", "'4'"]),
    ("log: {access: {output: VALUE}}", &["stdout", "none"], &["off", "nowhere", "5"]),
    ("log: {access: {format: VALUE}}", &["json"], &["xml"]),
    ("defaults: {filters: VALUE}", &["[]", "{compress: {}}", "[{compress: {}}]"], &["gzip", "[{gzip: {}}]", "[5]"]),
    ("defaults: {filters: {compress: {level: VALUE}}}", &["fast", "best"], &["9", "slow"]),
    ("defaults: {filters: {compress: {codings: VALUE}}}", &["gzip", "[br, gzip]"], &["deflate", "[brotli]", "[]"]),
    ("defaults: {filters: {compress: {min_size: VALUE}}}", &["1KiB"], &["1k", "-1B", "{}"]),
    ("defaults: {filters: {rate_limit: {limit: VALUE}}}", &["5/s", "10/m", "7/2h"], &["5", "five/s", "5/w"]),
    ("defaults: {filters: {rate_limit: {limit: 5/s, burst: VALUE}}}", &["1", "100"], &["0", "all", "1.5"]),
    ("defaults: {filters: {rate_limit: {limit: 5/s, by: VALUE}}}", &["address", "[address, route]"], &["ip", "5"]),
    (
        "defaults: {filters: {headers: {request: {set: {x-a: VALUE}}}}}",
        &["b", "5", "1.10", "true"],
        &["[]", "{}", "\"a\\nb\""],
    ),
    ("defaults: {filters: {headers: {request: {remove: VALUE}}}}", &["x-a", "[x-a, x-b]"], &["'x a'", "{}"]),
    ("defaults: {filters: {strip_fields: {response: VALUE}}}", &["ssn", "[a.b, '**.c', $.a, /a]"], &["$", "$a", ".a"]),
    ("defaults: {filters: {cors: {origins: '*', max_age: VALUE}}}", &["10m"], &["600", "ten"]),
    (
        "upstreams: {u: {targets: VALUE}}",
        &["a:80", "['[::1]:80']", "{address: a:80, weight: 2}"],
        &["a", "'a:0'", "http://a:80"],
    ),
    ("upstreams: {u: {targets: {address: 'a:80', weight: VALUE}}}", &["1", "1000"], &["0", "1001", "heavy"]),
    (
        "upstreams: {u: {targets: a:80, balance: VALUE}}",
        &["random", "{hash: {by: path}}"],
        &["ip_hash", "5", "{hash: {by: ip}}"],
    ),
    ("upstreams: {u: {targets: a:80, retry: {when: VALUE}}}", &["connect", "[reset, timeout]"], &["5xx", "[always]"]),
    (
        "upstreams: {u: {targets: a:80, retry: {statuses: VALUE}}}",
        &["503", "502-504", "'5xx,404'"],
        &["all", "5", "[503]"],
    ),
    ("upstreams: {u: {targets: a:80, retry: {attempts: VALUE}}}", &["1", "10"], &["0", "11", "three"]),
    ("upstreams: {u: {targets: a:80, protocol: VALUE}}", &["http1", "http2"], &["https", "h2"]),
    ("upstreams: {u: {targets: a:80, tls: {verify: VALUE}}}", &["true", "false", "True"], &["5", "'yes'", "maybe"]),
    ("upstreams: {u: {targets: a:80, health: {active: {path: /, status: VALUE}}}}", &["200", "200-299"], &["ok", "20"]),
    ("consumers: {c: {credentials: {api_key: {value: VALUE}}}}", &["key", "12345"], &["''", "[]"]),
    ("consumers: {c: {credentials: {api_key: {sha256: VALUE}}}}", &["VALID"], &["abc", "5"]),
    ("routes: {name: VALUE, match: {path: /x}, action: {respond: {}}}", &["users", "5", "true"], &["my api", "''"]),
    (
        "routes: {name: x, match: {path: VALUE}, action: {respond: {}}}",
        &["/x", "'/{id}/*'", "~^/v"],
        &["x", "/x/:id", "'/a?b'"],
    ),
    (
        "routes: {name: x, match: {path: /x, host: VALUE}, action: {respond: {}}}",
        &["a.b", "'*.a'"],
        &[".a.b", "'a:80'", "_"],
    ),
    (
        "routes: {name: x, match: {path: /x, methods: VALUE}, action: {respond: {}}}",
        &["GET", "[PUT]"],
        &["get", "[]", "5"],
    ),
    (
        "routes: {name: x, match: {path: /x, headers: {x-a: VALUE}}, action: {respond: {}}}",
        &["b", "2"],
        &["[]", "{regx: a}"],
    ),
    (
        "routes: {name: x, match: {path: /x, client: VALUE}, action: {respond: {}}}",
        &["10.0.0.0/8"],
        &["localhost", "any"],
    ),
    (
        "routes: {name: x, match: {path: /x}, action: VALUE}",
        &["{respond: {status: 204}}"],
        &["{}", "{proxy: a}", "respond"],
    ),
    ("routes: {name: x, match: {path: /x}, body: VALUE, action: {respond: {}}}", &["1MiB"], &["1", "1m"]),
    ("colour: VALUE", &[], &["blue"]),
    ("x-colour: VALUE", &["blue", "{a: [b]}"], &[]),
    ("include: VALUE", &["[]"], &["{a: b}"]),
];

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The gateway and both validators agree about each value.
#[test]
fn the_schema_accepts_and_rejects_what_the_gateway_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut files, mut expected) = (Vec::new(), Vec::new());
    for (template, right, wrong) in VALUES {
        let values = right.iter().map(|value| (value, true)).chain(wrong.iter().map(|value| (value, false)));
        for (value, is_right) in values {
            let mut text = template.replace("VALUE", &value.replace("VALID", DIGEST));
            for (section, usual) in [
                ("listeners:", "listeners: {name: a, address: 127.0.0.1:0}"),
                ("routes:", "routes: {name: all, action: {respond: {}}}"),
            ] {
                if !text.starts_with(section) {
                    text = format!("{text}\n{usual}");
                }
            }
            files.push(folder.path().join(format!("{}.yaml", files.len())));
            std::fs::write(files.last().expect("a file"), &text).expect("written");
            expected.push((text, is_right));
        }
    }
    assert!(expected.iter().filter(|(_, is_right)| !is_right).count() > 80);
    let mut differences = Vec::new();
    for ((file, (text, is_right)), accepted) in files.iter().zip(&expected).zip(verdicts(&files)) {
        if accepted != *is_right {
            differences.push(format!("the validators: {text}"));
        }
        // ${env:HOME} is no address: a reference is right as far as a schema knows.
        let (code, _, errors) = run(&["check", &file.display().to_string()], None);
        if (code == 0) != *is_right && !text.contains("${env:HOME}") {
            differences.push(format!("the gateway: {text}: {errors}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// YAML 1.1 reads these words as booleans, so that no key and no word of the configuration may be one.
#[test]
fn no_word_is_a_boolean_in_yaml_1_1() {
    fn look(schema: &Value, found: &mut Vec<String>) {
        let mut note = |word: &str| {
            if ["on", "off", "yes", "no", "y", "n"].contains(&word.to_ascii_lowercase().as_str()) {
                found.push(word.to_owned());
            }
        };
        schema["properties"].as_object().into_iter().flatten().for_each(|(key, _)| note(key));
        schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(&mut note);
        schema["const"].as_str().into_iter().for_each(&mut note);
        match schema {
            Value::Object(members) => members.values().for_each(|below| look(below, found)),
            Value::Array(items) => items.iter().for_each(|below| look(below, found)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(Path::new(ROOT).join("conf/schema.json")).expect("the schema");
    let mut found = Vec::new();
    look(&serde_json::from_str(&text).expect("JSON"), &mut found);
    assert_eq!(found, Vec::<String>::new());
}
