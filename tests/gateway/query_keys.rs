//! Keys in the query, as the clients that people have encode them.

use std::process::Command;

use super::harness::gateway::Gateway;

/// Everything that some encoder treats in its own way.
const KEY: &str = "a+b/c=d e%20&ü*~'";

fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap_or_else(|e| panic!("{command} is needed: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_key_is_the_same_from_every_client() {
    let gateway = Gateway::start(&format!(
        "consumers: {{one: {{credentials: [{{api_key: {{value: \"{KEY}\"}}}}]}}}}\n\
         routes: [{{name: a, filters: [{{api_key: {{query: 'api key'}}}}], action: {{respond: {{body: ok}}}}}}]"
    ));
    let url = format!("http://{}/x", gateway.address());
    // It encodes the value, and leaves the name as it is.
    let curl = output("curl", &["-s", "-G", "--data-urlencode", &format!("api+key={KEY}"), &url]);
    assert_eq!(curl, "ok");
    let script = "import sys, urllib.parse, urllib.request\n\
        encode = {'form': urllib.parse.urlencode({'api key': sys.argv[2]}), 'path': 'api%20key=' + urllib.parse.quote(sys.argv[2], safe='')}\n\
        [print(urllib.request.urlopen(sys.argv[1] + '?' + query).read().decode()) for query in encode.values()]";
    assert_eq!(output("python3", &["-c", script, &url, KEY]), "ok\nok");
    if Command::new("node").arg("--version").output().is_ok() {
        let script = "const [url, key] = process.argv.slice(1);\
            fetch(url + '?' + new URLSearchParams({'api key': key})).then(r => r.text()).then(t => console.log(t));";
        assert_eq!(output("node", &["-e", script, &url, KEY]), "ok");
    }
}
