//! `health`: tests whether a gateway is ready.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::operator::{CommandFailed, Operator, print_error};
use crate::notation::AdminAddress;
use crate::telemetry::say;

/// The maximum number of bytes that are read of a response.
const MAX_RESPONSE: u64 = 64 << 10;

/// Test whether a gateway is ready: exit code 0 if it accepts requests, 1 if not
#[derive(Debug, Args)]
#[command(
    after_help = "Requests /readyz from the admin listener, which needs no token. With --admin no configuration \
        is read."
)]
pub struct Health {
    #[command(flatten)]
    operator: Operator,
    /// The time-out in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Health {
    /// Tests the gateway.
    pub fn execute(self) -> u8 {
        self.test().err().unwrap_or(0)
    }

    fn test(&self) -> Result<(), CommandFailed> {
        let loaded = self.operator.load()?;
        let address = self.operator.admin_address(loaded.as_ref());
        let response = request(&address, Duration::from_secs(self.timeout))
            .map_err(|error| print_error(format!("{address}: {error}; is the gateway running?")))?;
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        match serde_json::from_str::<Value>(body).unwrap_or_default()["ready"].as_bool() {
            Some(true) => {
                say!("ready");
                Ok(())
            }
            Some(false) => Err(print_error(format!("{address}: not ready"))),
            None => Err(print_error(format!("{address}: this is not the admin listener of a gateway"))),
        }
    }
}

/// Returns the response to a request for the readiness.
fn request(address: &AdminAddress, timeout: Duration) -> std::io::Result<String> {
    match address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(stream)
        }
        AdminAddress::None => {
            Err(std::io::Error::other("this configuration has no admin listener, so that its readiness is not known"))
        }
    }
}

fn exchange(mut stream: impl Read + Write) -> std::io::Result<String> {
    // A response to HTTP/1.0 has no chunks.
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}
