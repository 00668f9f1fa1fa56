//! A writer of small databases in MaxMind's format (MaxMind DB file format, version 2.0).

/// A database of IPv4 networks and the countries in which they are used.
pub fn countries(networks: &[(&str, &str)]) -> Vec<u8> {
    // Nodes of two records; a record is a node, a place in the data, or empty.
    #[derive(Clone, Copy)]
    enum Record {
        Empty,
        Node(usize),
        Data(usize),
    }
    let mut nodes = vec![[Record::Empty; 2]];
    let mut data = Vec::new();
    for (network, country) in networks {
        let (address, length) = network.split_once('/').expect("a network");
        let bits = u32::from(address.parse::<std::net::Ipv4Addr>().expect("an address"));
        let length: u32 = length.parse().expect("a length");
        let place = data.len();
        // {"country": {"iso_code": COUNTRY}}
        data.push(0b1110_0001);
        text("country", &mut data);
        data.push(0b1110_0001);
        text("iso_code", &mut data);
        text(country, &mut data);
        let mut at = 0;
        for depth in 0..length {
            let side = (bits >> (31 - depth) & 1) as usize;
            if depth + 1 == length {
                nodes[at][side] = Record::Data(place);
            } else if let Record::Node(next) = nodes[at][side] {
                at = next;
            } else {
                nodes.push([Record::Empty; 2]);
                nodes[at][side] = Record::Node(nodes.len() - 1);
                at = nodes.len() - 1;
            }
        }
    }
    let mut out = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match record {
            Record::Empty => nodes.len(),
            Record::Node(node) => *node,
            Record::Data(place) => nodes.len() + 16 + place,
        };
        out.extend_from_slice(&u32::try_from(value).expect("a small database").to_be_bytes());
    }
    out.extend_from_slice(&[0; 16]);
    out.extend(data);
    metadata(u32::try_from(nodes.len()).expect("a small database"), &mut out);
    out
}

fn metadata(nodes: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    out.push(0b1110_0000 | 9);
    number("binary_format_major_version", 5, &[2], out);
    number("binary_format_minor_version", 5, &[], out);
    text("build_epoch", out);
    // An extended type: the second byte is the type less 7.
    out.extend_from_slice(&[4, 2]);
    out.extend_from_slice(&1_700_000_000_u32.to_be_bytes());
    text("database_type", out);
    text("Test-Country", out);
    text("description", out);
    out.push(0b1110_0001);
    text("en", out);
    text("a test", out);
    number("ip_version", 5, &[4], out);
    text("languages", out);
    out.extend_from_slice(&[0, 4]);
    number("node_count", 6, &nodes.to_be_bytes(), out);
    number("record_size", 5, &[32], out);
}

fn number(name: &str, kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    text(name, out);
    out.push(kind << 5 | bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn text(text: &str, out: &mut Vec<u8>) {
    assert!(text.len() < 29, "a short text");
    out.push(2 << 5 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
