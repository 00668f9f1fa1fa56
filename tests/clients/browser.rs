//! Cross-origin rules as a browser enforces them.

use std::process::Command;

use super::harness::gateway::Gateway;

/// A page that sends three requests to the address in its query, and shows how each ended.
const PAGE: &str = r#"<!doctype html><pre id="out">none</pre><script>
(async () => {
  const lines = [];
  for (const [method, credentials] of [["PUT", "include"], ["GET", "omit"], ["POST", "include"]]) {
    try {
      const response = await fetch("http://" + location.search.slice(1) + "/api", {
        method, credentials, headers: {"x-custom": "1"}, body: method === "GET" ? undefined : "{}"});
      lines.push([method, response.status, response.headers.get("x-seen"), await response.text()].join(" "));
    } catch (error) {
      lines.push(method + " blocked");
    }
  }
  document.getElementById("out").textContent = lines.join(", ");
})();
</script>"#;

/// Returns what the page shows at the end.
pub fn shown(page: &Gateway, api: &Gateway) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("chromium-headless-shell");
    command.args(["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--virtual-time-budget=20000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", folder.path().display()));
    command.arg(format!("http://{}/?{}", page.address(), api.address()));
    let run = command.output().unwrap_or_else(|e| panic!("no browser can be run ({e}): run `.ci/setup clients`"));
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let begin = text.split_once("id=\"out\">").map(|(_, rest)| rest.to_owned());
    begin.and_then(|rest| Some(rest.split_once("</pre>")?.0.to_owned())).unwrap_or(text)
}

/// Starts a gateway that serves a page.
pub fn serve(page: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("page.html"), page).expect("written");
    let yaml = "routes: [{name: page, action: {respond: {file: page.html}}}]\nlisteners: [{name: main, address: \
                127.0.0.1:0}]\n";
    Gateway::start_in(folder, yaml, &[])
}

fn api(cors: &str) -> Gateway {
    Gateway::start(&format!(
        "routes: [{{name: api, match: {{path: /api}}, filters: [{{cors: {cors}}}], action: {{respond: {{body: \"{{method}}\", \
         headers: {{x-seen: \"yes\"}}}}}}}}]\nlisteners: [{{name: main, address: 127.0.0.1:0}}]\n"
    ))
}

#[test]
fn a_browser_lets_pages_of_allowed_origins_read_responses() {
    let page = serve(PAGE);
    let all = api(r"{origins: ['~http://127\.0\.0\.1:[0-9]+'], credentials: true, methods: ['*'], expose: [x-seen]}");
    assert_eq!(shown(&page, &all), "PUT 200 yes PUT, GET 200 yes GET, POST 200 yes POST");
    let echoed = api("{origins: ['*'], credentials: true, any_origin_with_credentials: true, methods: ['*']}");
    assert_eq!(shown(&page, &echoed), "PUT 200  PUT, GET 200  GET, POST 200  POST");
    let anonymous = api("{origins: ['*'], methods: [GET], expose: ['*']}");
    assert_eq!(shown(&page, &anonymous), "PUT blocked, GET 200 yes GET, POST blocked");
    let others = api("{origins: ['https://app.example.com']}");
    assert_eq!(shown(&page, &others), "PUT blocked, GET blocked, POST blocked");
}
