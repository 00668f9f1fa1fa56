//! The Debian package and the container image, in a Debian system of their own: installed, used as the guides say,
//! upgraded, removed.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

mod harness;
#[path = "package/machine.rs"]
mod machine;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::eventually;
use harness::gateway::BINARY;
use machine::{Machine, script};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The time that the guide about the package may take.
const FIRST_HOUR: Duration = Duration::from_secs(300);

/// Makes a package of that version with the binary under test.
fn package(version: &str, folder: &Path) -> PathBuf {
    let out = folder.display().to_string();
    script(".ci/package", &["--binary", BINARY, "--version", version, "--out", &out]).trim().into()
}

fn guide(name: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/conf/guides/{name}")).expect("the guide")
}

#[test]
fn a_debian_system_is_served_from_the_first_installation_to_the_last() {
    let machine = Machine::boot();
    let home = machine.folder.path().join("root");
    package("1.0.0", &home);
    let begun = Instant::now();
    assert!(machine.follow(&guide("install.md")) >= 14);
    assert!(begun.elapsed() < FIRST_HOUR, "{:?}", begun.elapsed());
    machine.follow(&guide("service.md"));
    files_are_readable_by_whom_they_are_for(&machine);
    a_renewed_certificate_is_served(&machine);
    logs_are_rotated(&machine);
    an_upgrade_loses_nothing(&machine, &home);
    a_wrong_configuration_does_not_stop_the_service(&machine, &home);
    systemd_binds_the_ports(&machine);
    it_is_removed(&machine);
}

fn files_are_readable_by_whom_they_are_for(machine: &Machine) {
    let owner = |file: &str| machine.run(&format!("stat -c '%U:%G %a' {file}")).trim().to_owned();
    assert_eq!(owner("/etc/portcullis"), "root:portcullis 750");
    assert_eq!(owner("/etc/portcullis/portcullis.yaml"), "root:portcullis 640");
    assert_eq!(owner("/etc/portcullis/tls/key.pem"), "root:portcullis 640");
    assert_eq!(owner("/var/log/portcullis/access.log"), "portcullis:adm 640");
    machine.run("adduser --quiet --system shipper && adduser --quiet shipper adm");
    assert!(machine.run("runuser -u shipper -- head -1 /var/log/portcullis/access.log").contains("\"route\""));
    for file in ["/etc/portcullis/tls/key.pem", "/etc/portcullis/portcullis.yaml"] {
        assert!(!machine.output(&format!("runuser -u shipper -- cat {file}")).0, "{file}");
        assert!(!machine.output(&format!("runuser -u portcullis -- touch {file}")).0, "{file}");
    }
    assert!(
        machine.run("man_page=$(zcat /usr/share/man/man1/portcullis.1.gz); echo \"$man_page\"").contains(".SH NAME")
    );
    machine.run("bash -n /usr/share/bash-completion/completions/portcullis");
    let metrics = machine.run("curl -s http://127.0.0.1:9901/metrics");
    for family in ["process_start_time_seconds ", "process_open_fds ", "process_resident_memory_bytes "] {
        assert!(metrics.contains(&format!("\n{family}")), "{family} is missing under the unit's restrictions");
    }
}

/// The serial number of the certificate that is served.
fn serial(machine: &Machine) -> String {
    machine.run(
        "openssl s_client -connect 127.0.0.1:8443 -servername api.example.com </dev/null 2>/dev/null \
         | openssl x509 -noout -serial",
    )
}

fn a_renewed_certificate_is_served(machine: &Machine) {
    machine.run(
        "sed -i 's,tls/cert.pem,tls/api.example.com.pem,; s,tls/key.pem,tls/api.example.com.key,' \
         /etc/portcullis/portcullis.yaml && systemctl reload portcullis",
    );
    let before = serial(machine);
    machine.run(
        "cd /etc/letsencrypt/live/api.example.com && openssl req -x509 -newkey ec \
         -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=api.example.com -keyout privkey.pem -out fullchain.pem \
         && RENEWED_LINEAGE=$PWD /etc/letsencrypt/renewal-hooks/deploy/portcullis",
    );
    eventually("the new one is served", || serial(machine) != before);
}

fn logs_are_rotated(machine: &Machine) {
    machine.run("logrotate --force /etc/logrotate.d/portcullis");
    machine.run("grep -q token_missing /var/log/portcullis/access.log.1");
    eventually("the new file is written", || {
        machine.run("curl -sk -o /dev/null https://127.0.0.1:8443/rotated");
        machine.output("grep -q /rotated /var/log/portcullis/access.log").0
    });
    assert_eq!(machine.run("stat -c '%U:%G %a' /var/log/portcullis/access.log").trim(), "portcullis:adm 640");
}

fn main_process(machine: &Machine) -> String {
    machine.run("systemctl show -p MainPID --value portcullis").trim().to_owned()
}

fn an_upgrade_loses_nothing(machine: &Machine, home: &Path) {
    package("1.0.1", home);
    let old = main_process(machine);
    machine.start(
        "while [ ! -e done ]; do curl -sk -o /dev/null -w '%{http_code}\\n' https://127.0.0.1:8443/ >>statuses \
         || echo \"lost $?\" >>statuses; done",
    );
    let count = || machine.run("cat statuses 2>/dev/null | wc -l").trim().parse::<u32>().expect("a number");
    eventually("requests are sent", || count() > 5);
    machine.run("apt-get install -y ./portcullis_1.0.1_*.deb");
    assert_ne!(main_process(machine), old);
    let so_far = count();
    eventually("requests are sent to the new version", || count() > so_far + 5);
    let statuses = machine.run("touch done; sort statuses | uniq -c");
    assert!(statuses.trim().ends_with(" 404") && statuses.lines().count() == 1, "{statuses}");
}

fn a_wrong_configuration_does_not_stop_the_service(machine: &Machine, home: &Path) {
    package("1.0.2", home);
    let old = main_process(machine);
    machine.run("cp -p /etc/portcullis/portcullis.yaml right.yaml; echo 'rutes: []' >>/etc/portcullis/portcullis.yaml");
    let said = machine.run("apt-get install -y ./portcullis_1.0.2_*.deb");
    assert!(said.contains("the version that is running goes on"), "{said}");
    assert_eq!(main_process(machine), old);
    let (reloads, _) = machine.output("systemctl reload portcullis");
    assert!(!reloads);
    machine.run("systemctl is-active portcullis && cp -p right.yaml /etc/portcullis/portcullis.yaml");
    machine.run("systemctl reload portcullis");
}

fn systemd_binds_the_ports(machine: &Machine) {
    machine.run("systemctl stop portcullis && portcullis init starter.yaml");
    machine.run("cat starter.yaml >/etc/portcullis/portcullis.yaml && systemctl start portcullis.socket");
    assert!(!machine.output("systemctl is-active portcullis.service").0);
    assert!(machine.run("curl -s http://127.0.0.1:8080/").contains("Portcullis works"));
    machine.run("systemctl is-active portcullis.service");
}

fn it_is_removed(machine: &Machine) {
    machine.run("apt-get remove -y portcullis");
    assert!(!machine.output("systemctl is-active portcullis").0);
    machine.run("test -e /etc/portcullis/portcullis.yaml && test ! -e /usr/bin/portcullis");
    machine.run("apt-get purge -y portcullis");
    for folder in ["/etc/portcullis", "/var/log/portcullis", "/usr/share/doc/portcullis", "/run/portcullis"] {
        machine.run(&format!("test ! -e {folder}"));
    }
    assert!(!machine.output("getent passwd portcullis").0);
}

/// The arguments of an instruction of the Containerfile, in its form as JSON.
fn instruction(name: &str) -> String {
    let text = std::fs::read_to_string(format!("{ROOT}/conf/package/Containerfile")).expect("the file");
    let line = text.lines().rfind(|line| line.starts_with(&format!("{name} "))).expect("the instruction");
    let list = &line[line.find('[').expect("a list")..];
    serde_json::from_str::<Vec<String>>(list).expect("JSON").join(" ")
}

/// The files of the image alone, collected as its build does, run what the image runs.
#[test]
fn the_image_has_all_that_the_gateway_needs() {
    let machine = Machine::boot();
    package("1.0.0", &machine.folder.path().join("root"));
    std::fs::copy(format!("{ROOT}/conf/package/image"), machine.folder.path().join("root/image")).expect("copied");
    machine.run("apt-get install -y ./portcullis_*.deb && systemctl stop portcullis && ./image /image");
    machine.follow(&guide("container.md"));
    machine.run("test ! -e /image/bin/sh && test ! -e /image/usr/bin/sh");
    // What every runtime provides.
    machine.run("mkdir -p /image/proc /image/dev && mount -t proc proc /image/proc && mount --bind /dev /image/dev");
    let inside = "chroot --userspec=65532:65532 /image";
    let health = format!("{inside} {}", instruction("HEALTHCHECK"));
    assert!(!machine.output(&health).0, "nothing runs yet");
    machine.start(&format!("exec {inside} {} {} >log 2>&1", instruction("ENTRYPOINT"), instruction("CMD")));
    eventually("it is healthy", || machine.output(&health) == (true, "ready\n".to_owned()));
    assert!(machine.run("curl -s http://127.0.0.1:8080/").contains("Portcullis works"));
    assert!(machine.run("grep ^Uid: /proc/$(pidof portcullis)/status").contains("65532"));
    machine.run("kill $(pidof portcullis)");
    eventually("it ends", || !machine.output("pidof portcullis").0);
    assert!(machine.run("cat log").contains("drained: no connection is open"));
}
