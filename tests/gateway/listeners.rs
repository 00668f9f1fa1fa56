//! Listeners: what each is known by, and what is known of its clients.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use portcullis::parts::{Message, send};

use super::handover::{Impostor, socket};
use super::harness::gateway::{BINARY, Gateway, complete};
use super::tls::{block, certificate, get, write};
use super::upgrade::PROCESS;

/// A later version may hand over sockets that this one has no use for.
#[test]
fn a_socket_of_another_transport_is_not_taken_for_a_listeners() {
    let folder = tempfile::tempdir().expect("a folder");
    let (other, configured) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        if let Ok(other) = UdpSocket::bind(address) {
            break (other, address);
        }
    };
    let yaml = format!(
        "routes: [{{name: all, action: {{respond: {{body: new}}}}}}]\nlisteners: [{{name: main, address: \"{configured}\"}}]"
    );
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&format!("{yaml}{PROCESS}"))).expect("written");
    let awaited = UnixListener::bind(socket(&folder)).expect("the upgrade socket");
    let mut command = Command::new(BINARY);
    command.args(["run", "--upgrade", "-c"]).arg(config);
    let predecessor = std::thread::spawn(move || {
        let heir = Impostor::on(awaited.accept().expect("a successor").0);
        assert!(matches!(heir.hears(), Message::Take { .. }));
        let message = Message::Socket { name: "main".to_owned(), configured };
        send(&heir.0, &message, Some(other.as_raw_fd())).expect("sent");
        heir.says(&Message::Complete);
        let ready = heir.hears();
        assert!(matches!(&ready, Message::Ready { takes, .. } if takes.is_empty()), "{ready:?}");
        heir.says(&Message::Complete);
        assert!(matches!(heir.hears(), Message::Serving));
        heir
    });
    let new = Gateway::start_by(folder, command);
    let _heir = predecessor.join().expect("the predecessor");
    assert_eq!(new.address(), configured);
    assert_eq!(new.get("/").text(), "new");
}

#[test]
fn the_log_has_what_the_handshake_has_established() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = certificate(&["one.example"]);
    write(folder.path(), "one", &pair);
    let yaml = "routes: [{name: all, action: {respond: {body: ok}}}]
listeners:
  - {name: secure, address: 127.0.0.1:0, tls: {certificates: [{cert: one.pem, key: one.key}]}}
  - {name: plain, address: 127.0.0.1:0}";
    let gateway = Gateway::start_in(folder, yaml, &[]);
    let address = |name: &str| gateway.listeners.iter().find(|(n, _)| n == name).expect("the listener").1;
    block(get(address("secure"), "one.example", &[b"http/1.1"], &[&pair.0])).expect("a response");
    let lines = gateway.access_log(1);
    assert_eq!((&lines[0]["tls"], &lines[0]["server_name"]), (&"1.3".into(), &"one.example".into()), "{lines:?}");
    super::harness::client::get(address("plain"), "/");
    let lines = gateway.access_log(2);
    let plain = &lines[1];
    assert!(plain.get("tls").is_none() && plain.get("server_name").is_none(), "{lines:?}");
}
