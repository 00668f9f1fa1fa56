//! Password hashes of other people's programs.

use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::target::Target;

#[test]
fn hashes_of_htpasswd_are_taken() {
    let output = Command::new("htpasswd").args(["-nbBC", "6", "ada", "of htpasswd"]).output();
    let line = String::from_utf8(output.expect("htpasswd, which .ci/setup clients installs").stdout).expect("text");
    let (_, made) = line.trim().split_once(':').expect("a name and a hash");
    let target = Target::echo("echo");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: ['{}']}}}}\nconsumers: {{ada: {{credentials: [{{basic: {{username: ada, hash: '{made}'}}}}]}}}}\n\
         routes: [{{name: all, filters: [{{basic: {{}}}}], action: {{forward: echo}}}}]",
        target.address
    ));
    let curl = |user: &str| {
        let url = format!("http://{}/", gateway.address());
        let output =
            Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", user, &url]).output();
        String::from_utf8(output.expect("curl").stdout).expect("text")
    };
    assert_eq!(curl("ada:of htpasswd"), "200");
    assert_eq!(curl("ada:of htpasswd2"), "401");
}
