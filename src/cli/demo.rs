//! `demo`: runs a gateway with sample targets, to try it.

mod calls;
mod targets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::init::write_new;
use crate::process::{self, ConfigSource, Options, StartError, Started};
use crate::telemetry::{complain, say};

/// The configuration of the demo; its addresses are replaced with free ones.
const CONFIG: &str = include_str!("../../conf/examples/demo.yaml");

/// Run a gateway with sample targets, to try it
#[derive(Debug, Args)]
pub struct Demo {
    /// The port of the gateway; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// The port of the admin listener; 0 takes a free one
    #[arg(long, default_value_t = 9901)]
    pub admin_port: u16,
    /// Make the calls that it would print, on free ports, and exit with 0 if all responses are right
    #[arg(long)]
    pub check: bool,
    /// Write the configuration to this new file and serve that, to edit and reload it
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub write: Option<PathBuf>,
}

impl Demo {
    /// Runs until a signal, or checks.
    pub fn execute(self) -> u8 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        match runtime {
            Ok(runtime) => {
                let code = runtime.block_on(self.work());
                runtime.shutdown_background();
                code
            }
            Err(error) => print_error(&error.to_string()),
        }
    }

    async fn work(self) -> u8 {
        let sample = match targets::start().await {
            Ok(sample) => sample,
            Err(error) => return print_error(&format!("the sample targets cannot be started: {error}")),
        };
        let (port, admin) = if self.check { (0, 0) } else { (self.port, self.admin_port) };
        let mut text = CONFIG
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:9901", &format!("127.0.0.1:{admin}"));
        for (written, running) in &sample {
            text = text.replace(written, &running.to_string());
        }
        if self.check {
            text = text.replace("output: stdout", "output: none");
        }
        let source = match &self.write {
            Some(file) => match write_new(file, &text) {
                Ok(()) => ConfigSource::File(file.clone()),
                Err(code) => return code,
            },
            None => ConfigSource::Text { text, name: "conf/examples/demo.yaml".to_owned(), base: PathBuf::from(".") },
        };
        let started = match process::start(Options { source, upgrade: false }).await {
            Ok(started) => started,
            Err(StartError::Other(text)) => {
                return print_error(&format!(
                    "{text}\nAnother program may have the port: try `portcullis demo --port 0 --admin-port 0`"
                ));
            }
            Err(other) => return print_error(&other.to_string()),
        };
        let Some((_, gateway)) = started.supervisor.addresses().into_iter().next() else {
            return print_error("no listener came up");
        };
        let calls = calls::all(gateway);
        if self.check {
            return check(&calls).await;
        }
        show(&calls, gateway, &sample, &started);
        if let Some(file) = &self.write {
            let (file, admin) = (file.display(), started.supervisor.admin_address());
            say!("Edit {file}, then: portcullis reload -c {file} --admin {admin}\n");
        }
        say!("Ctrl-C ends it. The access log:\n");
        let supervisor = Arc::clone(&started.supervisor);
        let ended = tokio::spawn(process::listen_for_signals(process::Signals::new(), supervisor));
        started.until_end().await;
        ended.abort();
        0
    }
}

fn print_error(text: &str) -> u8 {
    complain!("portcullis: {text}");
    1
}

async fn check(calls: &[calls::Call]) -> u8 {
    let mut wrong = 0;
    for call in calls {
        let verdict = call.make().await;
        let text = match &verdict {
            Ok(()) => "ok".to_owned(),
            Err(why) => {
                wrong += 1;
                format!("WRONG: {why}")
            }
        };
        say!("{:<58} {text}", call.title);
    }
    say!("\n{} calls, {wrong} wrong", calls.len());
    u8::from(wrong > 0)
}

fn show(calls: &[calls::Call], gateway: SocketAddr, sample: &[(String, SocketAddr)], started: &Started) {
    say!("\nPortcullis is running.\n");
    say!("  {:<14} http://{gateway}", "gateway");
    say!("  {:<14} http://{}/metrics", "admin", started.supervisor.admin_address());
    for ((_, address), name) in sample.iter().zip(targets::NAMES) {
        say!("  {name:<14} {address}");
    }
    say!("\nCalls to paste:\n");
    for call in calls {
        say!("  # {}\n  {}\n", call.title, call.curl());
    }
}
