//! A Debian system with systemd, in namespaces of its own, in which a package is installed as a user would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::eventually;
use super::harness::page::{Step, mismatch, steps};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const BOOT: &str = "tests/package/boot";

/// A running system; it ends with its handle.
pub struct Machine {
    /// Its files.
    pub folder: tempfile::TempDir,
    /// `unshare`, with which the whole system ends.
    boot: Child,
    /// The first process of the system, by its id outside.
    init: u32,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.boot.kill();
        let _ = self.boot.wait();
        let _ = Command::new(Path::new(ROOT).join(BOOT)).arg(self.folder.path()).arg("clean").status();
    }
}

/// The files of a fresh system.
pub fn fresh_system() -> tempfile::TempDir {
    let user = Command::new("id").arg("-u").output().expect("id").stdout;
    assert_eq!(user, b"0\n", "this test installs a package in a system of its own, which only root can start");
    script(".ci/setup", &["package"]);
    let folder = tempfile::tempdir().expect("a folder");
    let archive = Path::new(ROOT).join("target/package/debian.tar");
    let unpacked = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.expect("tar").success());
    // Not to be asked for outside.
    std::fs::write(folder.path().join("etc/resolv.conf"), "").expect("written");
    folder
}

/// Runs a script of this checkout, and returns what it prints.
pub fn script(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(Path::new(ROOT).join(name))
        .args(arguments)
        .env("DEB_COMPRESSION", "1")
        .output()
        .expect("the script");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    text(&output.stdout)
}

impl Machine {
    /// Boots a fresh system.
    pub fn boot() -> Self {
        let folder = fresh_system();
        let boot = Command::new(Path::new(ROOT).join(BOOT))
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare, which needs root");
        let mut machine = Self { folder, init: 0, boot };
        let children = PathBuf::from(format!("/proc/{0}/task/{0}/children", machine.boot.id()));
        eventually("the system boots", || {
            let ended = machine.boot.try_wait().expect("a status");
            assert!(ended.is_none(), "the system does not boot: {ended:?}");
            let child = std::fs::read_to_string(&children).ok().and_then(|text| text.trim().parse().ok());
            machine.init = child.unwrap_or(0);
            machine.is_up()
        });
        machine
    }

    /// Whether the system has started what it starts.
    fn is_up(&self) -> bool {
        self.init != 0 && self.output("systemctl is-system-running").1.contains("running")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-u", "-i", "-n", "-p", "-r", "--", "/usr/bin/env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"])
            .args(["bash", "-c", &format!("cd /root && {{ {line}\n}} 2>&1")])
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as root in the home of root: whether it succeeds, and what it prints.
    pub fn output(&self, line: &str) -> (bool, String) {
        let output = self.command(line).output().expect("nsenter");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let (succeeds, printed) = self.output(line);
        assert!(succeeds, "{line}: {printed}\n{}", self.journal());
        printed
    }

    /// The journal of the service.
    pub fn journal(&self) -> String {
        self.output("journalctl --no-pager -u portcullis -u portcullis-upgrade | tail -40").1
    }

    /// Starts a command in the background; it ends with the system.
    pub fn start(&self, line: &str) {
        let child = self.command(line).stdout(Stdio::null()).spawn().expect("nsenter");
        std::thread::spawn(move || child.wait_with_output());
    }

    /// Follows a page: writes its files, runs its commands and looks for what they are said to print.
    pub fn follow(&self, page: &str) -> usize {
        let mut made = 0;
        for step in steps(page) {
            match step {
                Step::File { name, text } => {
                    // As an editor does, in the file that is there.
                    let file = Path::new("/root").join(name);
                    let below = file.strip_prefix("/").expect("an absolute path");
                    std::fs::write(self.folder.path().join(below), text).expect("written");
                }
                Step::Command { line, prints } => {
                    let line = line.replace("sudo ", "");
                    made += 1;
                    match line.strip_suffix(" &") {
                        Some(line) => {
                            self.start(line);
                            let address = prints.rsplit(' ').next().expect("an address").replace(':', "/");
                            let connects = format!("exec 3<>/dev/tcp/{address}");
                            eventually(line, || self.output(&connects).0);
                        }
                        // The log is written by a thread of its own.
                        None if line.starts_with("cat ") => {
                            eventually(&line, || mismatch(&self.output(&line).1, &prints).is_none());
                        }
                        None => {
                            let (succeeds, printed) = self.output(&line);
                            assert!(succeeds || !prints.is_empty(), "{line}: {printed}\n{}", self.journal());
                            if let Some(wrong) = mismatch(&printed, &prints) {
                                panic!("{line}: {wrong}\n{}", self.journal());
                            }
                        }
                    }
                }
            }
        }
        made
    }
}
