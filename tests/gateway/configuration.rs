//! Configurations: mistakes as a conversation, the documented default, the schema, the examples.

use std::path::Path;

use super::harness::gateway::run;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Golden pairs: NAME.yaml and NAME.txt, which is what `check` says of it. `BLESS=1` writes them anew.
#[test]
fn every_mistake_is_told_with_its_place() {
    let folder = Path::new(ROOT).join("tests/compile");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() >= 8, "golden pairs are missing");
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        let (code, _, told) = run(&["check", "-c", name], Some(&folder));
        assert_eq!(code, 2, "{name}: {told}");
        let golden = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&golden, &told).expect("written");
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(told, wanted, "{name} (BLESS=1 takes this as right)");
    }
}

#[test]
fn the_schema_is_current() {
    let (code, schema, _) = run(&["schema"], None);
    assert_eq!(code, 0);
    let path = Path::new(ROOT).join("conf/schema.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &schema).expect("written");
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), schema, "run: portcullis schema > conf/schema.json");
}

#[test]
fn the_documented_default_loads_and_names_every_key() {
    let (code, _, told) = run(&["check", "-c", "conf/portcullis.yaml"], None);
    assert_eq!(code, 0, "{told}");
    let text = std::fs::read_to_string(Path::new(ROOT).join("conf/portcullis.yaml")).expect("the file");
    let schema = portcullis::parts::schema();
    let mut missing = Vec::new();
    let mut look = |schema: &serde_json::Value| {
        for key in schema["properties"].as_object().into_iter().flat_map(|p| p.keys()) {
            let named = text.lines().any(|l| l.trim_start_matches([' ', '#', '-', '{']).contains(&format!("{key}:")));
            if !named {
                missing.push(key.clone());
            }
        }
    };
    look(&schema);
    for definition in schema["$defs"].as_object().expect("definitions").values() {
        look(definition);
        for branch in definition["oneOf"].as_array().into_iter().flatten() {
            look(branch);
        }
    }
    assert!(missing.is_empty(), "conf/portcullis.yaml does not document {missing:?}");
}

#[test]
fn every_example_is_right() {
    let folder = Path::new(ROOT).join("conf/examples");
    let mut count = 0;
    // An example with files of its own is a folder.
    let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    for path in entries.map(|path| if path.is_dir() { path.join("portcullis.yaml") } else { path }) {
        if path.exists() && path.extension().is_some_and(|e| e == "yaml") {
            let (code, _, told) = run(&["check", "-c", &path.display().to_string()], None);
            assert_eq!((code, told.as_str()), (0, ""), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 10);
}

#[test]
fn the_demo_makes_its_own_calls() {
    let (code, out, told) = run(&["demo", "--check"], None);
    assert_eq!(code, 0, "{out}{told}");
    assert!(out.contains("0 wrong"));
}

#[test]
fn explain_tells_the_route_and_the_runner_up() {
    let explain = |arguments: &[&str]| run(&[&["explain", "-c", "conf/examples/demo.yaml"], arguments].concat(), None);
    let (code, out, _) = explain(&["GET", "http://localhost/api/v1/users/profile"]);
    assert_eq!(code, 0);
    for part in [
        "route: users",
        "filter: cors",
        "filter: jwt (who is it?)",
        "filter: rate_limit",
        "forward: users (round_robin, 2 targets)",
    ] {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    let (code, out, _) = explain(&["DELETE", "/api/v1/users/profile"]);
    assert_eq!(code, 1);
    assert!(out.contains("405"), "{out}");
    assert_eq!(explain(&["GET", "/nowhere"]).0, 1);
    assert_eq!(explain(&["GET", "/%zz"]).0, 2);
    assert_eq!(explain(&["GET", "localhost/x"]).0, 2);
}

#[test]
fn files_include_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::fs::create_dir(folder.path().join("routes")).expect("made");
    write("main.yaml", "include: [routes/*.yaml]\nlisteners: [{name: a, address: 127.0.0.1:0}]\nroutes: []\n");
    write("routes/a.yaml", "routes:\n  - {name: a, match: {path: /a}, action: {respond: {}}}\n");
    write(
        "routes/b.yaml",
        "routes:\n  - {name: b, match: {path: /b}, action: {forward: nobody}}\nupstreams: {some: {targets: [a:1]}}\n",
    );
    let (code, _, told) = run(&["check", "-c", "main.yaml"], Some(folder.path()));
    assert_eq!(code, 2);
    assert!(told.contains("routes/b.yaml:2:52: routes[1].action.forward: there is no upstream \"nobody\""), "{told}");
    write("routes/b.yaml", "routes:\n  - {name: b, match: {path: /b}, action: {respond: {}}}\n");
    let (code, out, told) = run(&["check", "-c", "main.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{told}");
    assert!(out.contains("2 routes") && out.contains("in 3 files"), "{out}");
    // Beside the main file, which is called by its bare name.
    write("extra-a.yaml", "routes: [{name: c, match: {path: /c}, action: {respond: {}}}]\n");
    write("main.yaml", "include: [extra-*.yaml]\nlisteners: [{name: a, address: 127.0.0.1:0}]\n");
    let (code, out, told) = run(&["check", "-c", "main.yaml"], Some(folder.path()));
    assert!(code == 0 && out.contains("in 2 files"), "{out}{told}");
}

#[test]
fn help_teaches_and_completions_complete() {
    let (code, help, _) = run(&["--help"], None);
    assert_eq!(code, 0);
    for word in ["run", "check", "explain", "demo", "schema", "completions", "Exit codes"] {
        assert!(help.contains(word), "{word}");
    }
    let (code, script, _) = run(&["completions", "bash"], None);
    assert!(code == 0 && script.contains("portcullis"));
    assert_eq!(run(&["run"], None).0, 2);
    assert_eq!(run(&["run", "-c", "/nonexistent.yaml"], None).0, 2);
}

#[test]
fn secrets_come_from_elsewhere_and_are_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let rest = "listeners: [{name: a, address: 127.0.0.1:0}]\nroutes: [{name: a, filters: [{jwt: {secret: \"SECRET\"}}], action: {respond: {}}}]\n";
    write("c.yaml", &rest.replace("SECRET", "${file:missing.key}"));
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(code == 2 && told.contains("cannot read the file missing.key"), "{told}");
    write("c.yaml", &rest.replace("SECRET", "${env:SURELY_NOT_SET}"));
    let (_, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(told.contains("SURELY_NOT_SET is not set"), "{told}");
    write("c.yaml", &rest.replace("\"SECRET\"", "12345"));
    let (_, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(told.contains("at least 32 bytes") && !told.contains("12345"), "{told}");
    write("short.key", "too-short-a-secret\n");
    write("c.yaml", &rest.replace("SECRET", "${file:short.key}"));
    let (_, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(told.contains("at least 32 bytes") && !told.contains("too-short-a-secret"), "{told}");
}

#[test]
fn a_link_that_leads_nowhere_is_no_configuration_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "include: ['*.part.yaml']\nlisteners: [{name: a, address: 127.0.0.1:0}]\nroutes: [{name: a, action: {respond: {}}}]\n";
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    std::fs::create_dir(folder.path().join("folder.part.yaml")).expect("a folder");
    assert_eq!(run(&["check", "-c", "c.yaml"], Some(folder.path())).0, 0);
    // What an editor has open, and what it keeps.
    std::os::unix::fs::symlink("somebody@somewhere.1234", folder.path().join(".#a.part.yaml")).expect("a link");
    assert_eq!(run(&["check", "-c", "c.yaml"], Some(folder.path())).0, 0);
    std::os::unix::fs::symlink("away.yaml", folder.path().join("one.part.yaml")).expect("a link");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(code == 2 && told.contains("one.part.yaml"), "{told}");
}

#[test]
fn what_is_most_likely_not_meant_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "listeners: [{name: main, address: '127.0.0.1:0'}]
upstreams:
  used: {targets: ['127.0.0.1:1'], backup: spare}
  spare: {targets: ['127.0.0.1:2']}
  copy: {targets: ['127.0.0.1:3']}
  idle: {targets: ['127.0.0.1:4']}
routes:
  - {name: a, match: {path: '/api/*'}, action: {forward: {upstream: used, strip_prefix: /api/v1, mirror: {upstream: copy, percent: 1}}}}
  - {name: b, match: {path: '/{tenant}/b'}, action: {forward: {upstream: used, strip_prefix: /acme}}}
  - {name: c, match: {path: [/c, '/d/*']}, action: {forward: {upstream: used, strip_prefix: /v1}}}
  - {name: e, match: {path: /e}, action: {forward: {upstream: used, strip_prefix: /e/f}}}
";
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{told}");
    let nothing = "no path of this route begins with it: nothing is stripped";
    assert_eq!(
        told,
        format!(
            "warning: c.yaml:6:3: upstreams.idle: nothing uses this upstream
warning: c.yaml:10:93: routes[2].action.forward.strip_prefix: {nothing}
warning: c.yaml:11:83: routes[3].action.forward.strip_prefix: {nothing}
"
        )
    );
}

/// What is small as a text and large as a tree is refused before it is one: a reload must not end the process.
#[test]
fn aliases_do_not_make_a_configuration_endless() {
    let folder = tempfile::tempdir().expect("a folder");
    let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(60), "]".repeat(60));
    let mut deep = String::from("routes:\n  - &a0 x\n");
    (1..400).for_each(|n| deep.push_str(&format!("  - &a{n} {}\n", nested(&format!("*a{}", n - 1)))));
    let mut large = format!("routes:\n  - &a {}\n", "x".repeat(100_000));
    (0..20_000).for_each(|_| large.push_str("  - *a\n"));
    for (text, why) in [(deep, "too deep: at most 64"), (large, "too large: at most 4000000 values and 256 MiB")] {
        std::fs::write(folder.path().join("c.yaml"), text).expect("written");
        let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(why), "{}", &told[..told.len().min(300)]);
    }
}
