//! The file `/etc/hosts`. Container runtimes and Kubernetes change it while a process runs (`extra_hosts`,
//! `hostAliases`), so that it is looked at before it is used.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::Hosts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use log::warn;

/// Where the machine has names of its own.
pub(crate) const HOSTS: &str = "/etc/hosts";
/// More of it is not read.
const HOSTS_BYTES_MAX: u64 = 4 << 20;

/// What tells one state of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    modified: (i64, i64),
    length: u64,
    file: (u64, u64),
}

impl FileStamp {
    /// None: there is no such file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self {
            modified: (facts.mtime(), facts.mtime_nsec()),
            length: facts.len(),
            file: (facts.dev(), facts.ino()),
        })
    }
}

/// The names in the file; none if it cannot be read.
pub(crate) fn read(path: &Path) -> Arc<Hosts> {
    let mut hosts = Hosts::default();
    match goodgate_files::read_bounded(path, HOSTS_BYTES_MAX) {
        Ok(text) => {
            if let Err(error) = hosts.read_hosts_conf(text.as_slice()) {
                warn!(file:% = path.display(), error:% = error; "the hosts file cannot be read to its end");
            }
        }
        Err(error) => warn!(file:% = path.display(), error:% = error; "the hosts file cannot be read"),
    }
    Arc::new(hosts)
}

/// The addresses that the file has for a name, however short.
pub(crate) fn addresses(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
    let addresses =
        |lookup: Lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    found.flat_map::<Vec<IpAddr>, _>(addresses).collect()
}
