//! Warnings of a configuration: it is valid, and part of it does not do what it seems to do. Printed by `check`, logged at
//! the start and at each reload.

use goodgate_config::{Config, Loaded};
use log::warn;
use nix::sys::resource::{Resource, getrlimit};

/// All warnings of a configuration, those that depend on this machine included.
pub(crate) fn all(loaded: &Loaded) -> Vec<String> {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    loaded.warnings.iter().map(ToString::to_string).chain(too_few_files(&loaded.config, files)).collect()
}

/// Logs and returns them.
pub(crate) fn log(loaded: &Loaded) -> Vec<String> {
    let warnings = all(loaded);
    for warning in &warnings {
        warn!("{warning}");
    }
    warnings
}

/// Each connection of a client takes a file, and those of backends come on top.
fn too_few_files(config: &Config, files: u64) -> Option<String> {
    let connections = config.limits.connections_max as u64;
    (connections > files).then(|| {
        format!(
            "limits.max_connections: warning: {connections} connections need more open files than this process may have \
             ({files}): raise the limit (LimitNOFILE= of systemd, `ulimit -n`) or lower max_connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_open_files_are_warned_of() {
        let text = "upstreams: { a: [\"127.0.0.1:1\"] }\nroutes: [{ upstream: a }]\nlimits: { max_connections: 1000 }\n";
        let config = goodgate_config::parse("c.yaml", text, &|_| None).unwrap();
        assert!(too_few_files(&config, 1000).is_none());
        assert!(
            too_few_files(&config, 999)
                .unwrap()
                .starts_with("limits.max_connections: warning: 1000 connections")
        );
    }
}
