//! A DNS server of one name: its addresses can be changed, and it can fall silent. It is always silent about
//! `silent.…` and never knows `missing.…`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UdpSocket;

/// What the server says.
#[derive(Clone, Debug)]
pub enum Zone {
    /// These addresses for every name, for so many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// Those of these records that are asked for, for so many seconds.
    Records(Vec<Record>, u32),
    /// The same, and silence about types of which there is none.
    Only(Vec<Record>, u32),
    /// FORMERR to queries with EDNS, and these addresses to those without.
    WithoutEdns(Vec<Ipv4Addr>),
    /// No such name.
    NoSuchName,
    /// Nothing at all.
    Silence,
}

/// A record of the name that is asked for: its type and its data (RFC 1035 section 3.2).
#[derive(Clone, Debug)]
pub struct Record(u16, Vec<u8>);

impl Record {
    pub fn a(address: Ipv4Addr) -> Self {
        Self(1, address.octets().to_vec())
    }

    pub fn aaaa(address: Ipv6Addr) -> Self {
        Self(28, address.octets().to_vec())
    }

    /// It is another name for itself.
    pub fn circle() -> Self {
        Self(5, vec![0xc0, 12])
    }

    /// A target for a service (RFC 2782); an empty one is the root.
    pub fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Self {
        let mut data = [priority, weight, port].map(u16::to_be_bytes).concat();
        for label in target.split('.').filter(|label| !label.is_empty()) {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend(label.as_bytes());
        }
        data.push(0);
        Self(33, data)
    }
}

/// A DNS server on a port of its own.
pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<u64>>,
}

impl Dns {
    pub async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::new(Mutex::new(0)));
        let (theirs, counter) = (Arc::clone(&zone), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                *counter.lock() += 1;
                let zone = theirs.lock().clone();
                if let Some(answer) = answer(&packet[..length], &zone) {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Self { address, zone, asked }
    }

    pub fn set(&self, zone: Zone) {
        *self.zone.lock() = zone;
    }

    /// Queries so far.
    pub fn asked(&self) -> u64 {
        *self.asked.lock()
    }
}

/// RFC 1035 section 4: the header and the question come back, then the records.
fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let question_end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let question = query.get(12..question_end)?;
    let asked = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let zone = match question.get(1..=usize::from(*question.first()?))? {
        b"silent" => &Zone::Silence,
        b"missing" => &Zone::NoSuchName,
        _ => zone,
    };
    let has_edns = query.get(11).is_some_and(|additional| *additional > 0);
    let (code, records, ttl) = match zone {
        Zone::Only(records, _) if records.iter().all(|Record(kind, _)| *kind != asked) => return None,
        Zone::Only(records, ttl) => (0, records.clone(), *ttl),
        Zone::WithoutEdns(_) if has_edns => (1, Vec::new(), 0),
        Zone::WithoutEdns(addresses) => (0, addresses.iter().copied().map(Record::a).collect(), 1),
        Zone::Silence => return None,
        Zone::NoSuchName => (3, Vec::new(), 0),
        Zone::Addresses(addresses, ttl) => (0, addresses.iter().copied().map(Record::a).collect(), *ttl),
        Zone::Records(records, ttl) => (0, records.clone(), *ttl),
    };
    const ALIAS: u16 = 5;
    let records: Vec<Record> =
        records.into_iter().filter(|Record(kind, _)| [asked, ALIAS].contains(kind)).collect();
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for Record(kind, data) in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
