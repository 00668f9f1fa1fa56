//! The first commands of a new user: `proxy`, `init`, `demo --write`, `health`, `version`, `man`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete, run};
use super::harness::target::Target;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Starts `proxy` with these arguments.
fn proxy(arguments: &[&str]) -> Gateway {
    let mut command = Command::new(BINARY);
    command.args(["proxy", "--from", "127.0.0.1:0"]).args(arguments);
    Gateway::start_by(tempfile::tempdir().expect("a folder"), command)
}

#[test]
fn a_proxy_needs_no_file() {
    let (one, two) = (Target::named("echo", "one"), Target::named("echo", "two"));
    let gateway = proxy(&["--to", &one.address.to_string(), "--to", &format!("http://{}/", two.address)]);
    (0..4).for_each(|_| assert_eq!(gateway.get("/path").status, 200));
    let counts = [&one, &two].map(|target| target.requests.load(Ordering::Acquire));
    assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
    let (code, said, error) = run(&["health", "--admin", &gateway.admin.to_string()], None);
    assert_eq!((code, said.as_str()), (0, "ready\n"), "{error}");
}

#[test]
fn a_second_proxy_is_not_in_the_way_of_the_first() {
    let target = Target::named("echo", "one");
    let gateways = [(); 2].map(|()| proxy(&["--to", &target.address.to_string()]));
    gateways.iter().for_each(|gateway| assert_eq!(gateway.get("/").status, 200));
}

#[test]
fn a_proxy_accepts_tls_and_runs_what_it_prints() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("it's a cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let (code, yaml, error) =
        run(&["proxy", "--to", "https://example.com", "--tls", &cert, &key, "--from", ":8443", "--print"], None);
    assert_eq!((code, error.as_str()), (0, ""));
    for part in ["address: 0.0.0.0:8443", "it''s a cert.pem", "- example.com:443", "tls: {}", "host: target"] {
        assert!(yaml.contains(part), "{part}: {yaml}");
    }
    std::fs::write(folder.path().join("p.yaml"), &yaml).expect("written");
    let (code, _, error) = run(&["check", "-c", "p.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{error}");
    let gateway = proxy(&["--to", "127.0.0.1:1", "--tls", &cert, &key]);
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]);
    let status = curl.arg(format!("https://{}/", gateway.address())).output().expect("curl").stdout;
    assert_eq!(String::from_utf8_lossy(&status), "502");
}

#[test]
fn the_admin_listener_of_a_proxy_is_on_this_machine_unless_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for (given, written) in
        [(":9901", "127.0.0.1:9901"), ("[::1]:9901", "'[::1]:9901'"), ("none", "none"), ("unix:a.sock", "unix:a.sock")]
    {
        let (code, yaml, error) = run(&["proxy", "--to", "127.0.0.1:1", "--admin", given, "--print"], None);
        assert!(code == 0 && yaml.contains(&format!("admin:\n  address: {written}\n")), "{given}: {yaml}{error}");
        std::fs::write(folder.path().join("p.yaml"), &yaml).expect("written");
        let (code, _, error) = run(&["check", "-c", "p.yaml"], Some(folder.path()));
        assert_eq!(code, 0, "{given}: {error}");
    }
    let (_, yaml, _) = run(&["proxy", "--to", "127.0.0.1:1", "--print"], None);
    assert!(yaml.contains("address: 127.0.0.1:0\n"), "{yaml}");
}

#[test]
fn a_gateway_without_a_file_reloads_none() {
    let gateway = proxy(&["--to", "127.0.0.1:1"]);
    let process = client::get(gateway.admin, "/process").json();
    assert!(process["file"].is_null() && process["source"] == "command line, which is no file", "{process}");
    let file = gateway.folder.path().join("c.yaml");
    std::fs::write(&file, complete("routes: [{name: all, action: {respond: {body: one}}}]")).expect("written");
    let admin = gateway.admin.to_string();
    let (file, admin) = (file.to_str().expect("a path"), admin.as_str());
    let (code, out, error) = run(&["reload", "-c", file, "--admin", admin], None);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    assert!(error.contains("runs no file") && error.contains("demo --write FILE"), "{error}");
    let (code, out, error) = run(&["diff", "-c", file, "--admin", admin], None);
    assert!(code == 0 && out.contains("routes.all.action"), "{out}{error}");
    assert!(error.contains("the gateway runs no file, so that changes of ") && error.contains(file), "{error}");
    for arguments in [&["reload", "--admin", admin][..], &["reload", "-c", file, "--admin", admin, "--any-file"]] {
        let (code, out, error) = run(arguments, None);
        assert_eq!((code, out.as_str()), (0, "reloaded command line, which is no file\n"), "{error}");
    }
}

#[test]
fn wrong_options_of_a_proxy_are_rejected() {
    for (arguments, part) in [
        (&["--to", "app"][..], "the port is missing: app:PORT"),
        (&["--to", "tcp://app:1"], "http:// and https:// are"),
        (&["--to", "http://app/path"], "expected a host and a port"),
        (&["--to", "app:1", "--to", "https://app"], "either all targets have https://"),
        (&["--to", "app:1", "--from", "nowhere:x"], "expected an address such as :8080"),
        (&["--to", "app:1", "--admin", "nowhere:x"], "unix:/run/portcullis/admin.sock, or none"),
        (&["--to", "127.0.0.1:1", "--tls", "/none/cert.pem", "/none/key.pem"], "cannot read /none/cert.pem"),
        (&[], "--to"),
    ] {
        let (code, _, error) = run(&[&["proxy"], arguments].concat(), None);
        assert!(code != 0 && error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn a_starter_is_written_and_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, said, error) = run(&["init"], Some(folder.path()));
    assert!(code == 0 && said.contains("portcullis run -c portcullis.yaml"), "{said}{error}");
    let (code, _, error) = run(&["check", "-c", "portcullis.yaml"], Some(folder.path()));
    assert_eq!((code, error.as_str()), (0, ""));
    std::fs::write(folder.path().join("mine.yaml"), "mine").expect("written");
    let (code, _, error) = run(&["init", "mine.yaml"], Some(folder.path()));
    assert!(code == 1 && error.contains("the file exists and is not overwritten"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path().join("mine.yaml")).expect("the file"), "mine");
    let (code, _, error) = run(&["init", "none/mine.yaml"], Some(folder.path()));
    assert!(code == 1 && error.contains("none/mine.yaml: No such file"), "{error}");
}

/// Everything in the starter that is commented out is right once the comment sign is removed.
#[test]
fn every_line_of_the_starter_can_take_effect() {
    let starter = std::fs::read_to_string(format!("{ROOT}/conf/package/starter.yaml")).expect("the starter");
    let on: Vec<&str> = starter
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(" ") || rest.starts_with("  ")).unwrap_or(line)
        })
        .filter(|line| !line.trim_start().starts_with("portcullis "))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::create_dir(folder.path().join("tls")).expect("created");
    std::fs::write(folder.path().join("tls/cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("tls/key.pem"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(folder.path().join("jwt.secret"), "only-for-this-test-32-bytes-or-more").expect("written");
    std::fs::write(
        folder.path().join("p.yaml"),
        on.join("\n").replace("/var/log/portcullis/", "").replace("/run/portcullis/", ""),
    )
    .expect("written");
    let (code, said, error) = run(&["check", "-c", "p.yaml"], Some(folder.path()));
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("2 listeners, 3 routes, 1 upstream"), "{said}");
}

#[test]
fn the_demo_is_written_and_can_be_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(BINARY)
        .args(["demo", "--port", "0", "--admin-port", "0", "--write", "demo.yaml"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let _demo = super::harness::gateway::Orphan(child.id());
    let mut after = |word: &str| lines.find(|l| l.trim_start().starts_with(word)).expect("the line");
    let gateway = after("gateway").rsplit("//").next().and_then(|a| a.parse().ok()).expect("an address");
    let command = after("Edit demo.yaml").split("portcullis ").last().expect("a command").to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(client::get(gateway, "/").text(), "Welcome to Portcullis.\n");
    let file = folder.path().join("demo.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("Welcome to", "Changed in")).expect("written");
    let (code, _, error) = run(&command.split(' ').collect::<Vec<_>>(), Some(folder.path()));
    assert_eq!(code, 0, "{command}: {error}");
    eventually("the change serves", || client::get(gateway, "/").text() == "Changed in Portcullis.\n");
    let again = ["demo", "--port", "0", "--admin-port", "0", "--write", "demo.yaml"];
    let (code, _, error) = run(&again, Some(folder.path()));
    assert!(code == 1 && error.contains("not overwritten"), "{error}");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn health_is_an_exit_code() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {}}}]\nprocess: {readiness_time: 1h}");
    let admin = gateway.admin.to_string();
    let health = |more: &[&str]| run(&[&["health"], more].concat(), None);
    assert_eq!(health(&["--admin", &admin]).0, 0);
    let file = gateway.folder.path().join("other.yaml");
    // The secrets of the service are not needed.
    let text = format!("admin: {{address: \"{admin}\", token: \"${{file:/none}}\"}}\nroutes: []\n");
    std::fs::write(&file, text).expect("written");
    let (code, _, error) = health(&["-c", &file.display().to_string()]);
    assert_eq!(code, 0, "{error}");
    gateway.signal("-TERM");
    eventually("it is not ready any more", || health(&["--admin", &admin]).0 == 1);
    let (code, _, error) = health(&["--admin", &admin]);
    assert!(code == 1 && error.contains("not ready"), "{error}");
    let (code, _, error) = health(&["--admin", "127.0.0.1:1"]);
    assert!(code == 1 && error.contains("is the gateway running"), "{error}");
    let (code, _, error) = health(&["--admin", &gateway.address().to_string()]);
    assert!(code == 1 && error.contains("this is not "), "{error}");
    assert_eq!(health(&["-c", "/none/portcullis.yaml"]).0, 2);
}

#[test]
fn health_is_known_where_the_admin_listener_is_a_socket_or_none() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {}}}]\nadmin: {address: \"unix:admin.sock\"}");
    let config = gateway.config().display().to_string();
    assert_eq!(run(&["health", "-c", &config], None).0, 0);
    std::fs::write(gateway.config(), "admin: none\n").expect("written");
    let (code, _, error) = run(&["health", "-c", &config], None);
    assert!(code == 1 && error.contains("no admin listener"), "{error}");
}

#[test]
fn the_version_says_what_was_built() {
    let (code, said, _) = run(&["version"], None);
    assert_eq!(code, 0);
    for part in ["portcullis ", "(commit ", "features: ", "build: ", "rustc "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(run(&["--version"], None).1, said);
    assert_eq!(run(&["-V"], None).1.lines().next(), said.lines().next());
}

#[test]
fn man_pages_are_written_for_every_subcommand() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, error) = run(&["man", &folder.path().display().to_string()], None);
    assert_eq!(code, 0, "{error}");
    let (_, help, _) = run(&["--help"], None);
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = listed.filter_map(|l| l.split([' ', ',']).find(|word| !word.is_empty())).filter(|name| *name != "help");
    let pages: Vec<_> = names.map(|name| folder.path().join(format!("portcullis-{name}.1"))).collect();
    assert!(pages.len() >= 14 && pages.iter().all(|page| page.exists()), "{pages:?}");
    assert!(run(&["man"], None).1.contains(".SH NAME\nportcullis"));
    assert_eq!(run(&["man", "/none/at/all"], None).0, 1);
}
