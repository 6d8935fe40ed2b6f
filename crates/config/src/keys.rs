//! Every key there is, section by section: those that are read, and those that are documented for later
//! and refused by name until then.

/// The keys of one section.
pub(crate) struct Keys {
    /// Keys that are read.
    pub(crate) built: &'static [&'static str],
    /// Keys that are documented and not built yet.
    pub(crate) later: &'static [&'static str],
}

pub(crate) const TOP: Keys = Keys {
    built: &[
        "server",
        "listeners",
        "admin",
        "limits",
        "trusted_proxies",
        "defaults",
        "upstreams",
        "caches",
        "routes",
        "access_log",
        "tracing",
    ],
    later: &["include"],
};

pub(crate) const SERVER: Keys = Keys {
    built: &["threads", "shutdown", "upstream_keepalive", "resolver", "spool", "state_dir"],
    later: &[],
};

pub(crate) const SHUTDOWN: Keys = Keys { built: &["delay", "drain"], later: &[] };

pub(crate) const SPOOL: Keys = Keys { built: &["path", "size"], later: &[] };

pub(crate) const LISTENER: Keys =
    Keys { built: &["address", "proxy_protocol", "redirect_to_https", "http2", "tls"], later: &[] };

pub(crate) const LISTENER_TLS: Keys =
    Keys { built: &["certificates", "min_version", "client_ca", "client_auth"], later: &[] };

pub(crate) const CERTIFICATE: Keys = Keys { built: &["cert", "key"], later: &[] };

pub(crate) const ADMIN: Keys = Keys { built: &["address", "token_file", "hosts"], later: &[] };

pub(crate) const LIMITS: Keys = Keys {
    built: &[
        "header_timeout",
        "body_timeout",
        "min_body_rate",
        "write_timeout",
        "keepalive_timeout",
        "handshake_timeout",
        "max_connections",
        "max_connections_per_ip",
        "max_requests_per_connection",
        "max_header_bytes",
        "max_headers",
        "max_uri_bytes",
        "max_body_bytes",
        "max_response_header_bytes",
        "max_passages",
    ],
    later: &[],
};

pub(crate) const DEFAULTS: Keys = Keys { built: &["upstream", "route"], later: &[] };

pub(crate) const UPSTREAM: Keys = Keys {
    built: &[
        "balance",
        "hash_on",
        "hash_balance_factor",
        "sticky",
        "slow_start",
        "host",
        "max_fails",
        "fail_timeout",
        "fail_timeout_max",
        "fail_on",
        "min_fail_share",
        "max_ejected",
        "outliers",
        "fail_open",
        "drain_header",
        "backends",
        "health_check",
        "breaker",
        "timeouts",
        "dns",
        "tls",
    ],
    later: &["http"],
};

pub(crate) const OUTLIERS: Keys =
    Keys { built: &["interval", "min_requests", "success_rate", "first_byte"], later: &[] };
pub(crate) const DNS: Keys =
    Keys { built: &["resolver", "search", "family", "ttl_min", "ttl_max", "keep"], later: &[] };
pub(crate) const BREAKER: Keys =
    Keys { built: &["max_requests", "max_pending", "pending_timeout", "ramp"], later: &[] };

pub(crate) const STICKY: Keys = Keys { built: &["cookie", "ttl", "key_file"], later: &[] };

pub(crate) const TLS: Keys =
    Keys { built: &["sni", "ca", "verify", "client_cert", "client_key"], later: &[] };

pub(crate) const BACKEND: Keys =
    Keys { built: &["address", "weight", "max_conns", "max_fails", "fail_timeout", "backup"], later: &[] };

pub(crate) const HEALTH_CHECK: Keys = Keys {
    built: &["http", "tcp", "port", "tls", "interval", "interval_down", "timeout", "rise", "fall", "initial"],
    later: &[],
};

pub(crate) const PROBE_HTTP: Keys = Keys {
    built: &[
        "path",
        "method",
        "host",
        "headers",
        "expect_status",
        "expect_headers",
        "expect_body",
        "expect_body_regex",
        "drain_on_404",
    ],
    later: &[],
};

pub(crate) const PROBE_TLS: Keys = Keys { built: &["sni", "ca", "verify"], later: &[] };

pub(crate) const PROBE_TCP: Keys = Keys { built: &[], later: &[] };

pub(crate) const TIMEOUTS: Keys =
    Keys { built: &["connect", "first_byte", "read", "write", "idle", "tunnel"], later: &[] };

pub(crate) const STORE: Keys =
    Keys { built: &["memory", "max_object", "last_good_share", "disk"], later: &[] };

pub(crate) const DISK: Keys = Keys { built: &["path", "size", "max_object", "refresh"], later: &[] };

pub(crate) const ROUTE: Keys = Keys {
    built: &[
        "name",
        "match",
        "upstream",
        "split",
        "mirror",
        "redirect",
        "respond",
        "timeout",
        "retry",
        "cache",
        "max_body_bytes",
        "errors",
        "pass_headers",
        "method_override",
        "merge_slashes",
        "rewrite",
        "request_headers",
        "response_headers",
        "allow",
        "deny",
        "rate_limit",
        "basic_auth",
        "maintenance",
    ],
    later: &["backup_upstream"],
};

pub(crate) const RATE_LIMIT: Keys = Keys { built: &["per", "rate", "burst", "exempt"], later: &[] };

pub(crate) const BASIC_AUTH: Keys = Keys { built: &["users_file", "realm"], later: &[] };

pub(crate) const MAINTENANCE: Keys =
    Keys { built: &["page", "retry_after", "allow", "use_stale"], later: &[] };

pub(crate) const SPLIT: Keys = Keys { built: &["shares", "by"], later: &[] };

pub(crate) const MIRROR: Keys = Keys { built: &["upstream", "share", "max_body_bytes"], later: &[] };

pub(crate) const REDIRECT: Keys = Keys { built: &["to", "status"], later: &[] };

pub(crate) const RESPOND: Keys = Keys { built: &["status", "body", "type"], later: &[] };

pub(crate) const REWRITE: Keys = Keys { built: &["strip_prefix", "add_prefix"], later: &[] };

pub(crate) const HEADERS: Keys = Keys { built: &["set", "remove"], later: &[] };

pub(crate) const MATCH: Keys = Keys { built: &["host", "path", "methods"], later: &["headers"] };

pub(crate) const RETRY: Keys = Keys {
    built: &["tries", "max_connect_failures", "on", "replay", "budget", "max_body_bytes"],
    later: &[],
};

pub(crate) const ERRORS: Keys = Keys { built: &["html", "contact", "replace", "next_hop"], later: &[] };

pub(crate) const CACHE: Keys = Keys {
    built: &[
        "store",
        "mode",
        "last_good",
        "use_stale",
        "stale_for",
        "ttl",
        "heuristic",
        "key",
        "cookies",
        "bypass",
        "override",
        "purge",
        "status_header",
    ],
    later: &[],
};

pub(crate) const KEY: Keys = Keys { built: &["query", "headers", "cookies"], later: &[] };

pub(crate) const QUERY: Keys = Keys { built: &["only", "without"], later: &[] };

pub(crate) const COOKIES: Keys =
    Keys { built: &["ignore", "personal", "serve_anonymous", "drop_set"], later: &[] };

pub(crate) const BYPASS: Keys = Keys { built: &["headers"], later: &[] };
pub(crate) const PURGE: Keys = Keys { built: &["allow"], later: &[] };

pub(crate) const ACCESS_LOG: Keys = Keys { built: &["path", "format", "sample_ok", "mask"], later: &[] };

pub(crate) const MASK: Keys = Keys { built: &["query", "client_ip"], later: &[] };

pub(crate) const TRACING: Keys = Keys { built: &["otlp", "sample"], later: &[] };

/// Every section, with its place as the reference writes it.
#[cfg(test)]
pub(crate) const ALL: [(&str, &Keys); 47] = [
    ("", &TOP),
    ("server", &SERVER),
    ("server.shutdown", &SHUTDOWN),
    ("server.spool", &SPOOL),
    ("listeners[]", &LISTENER),
    ("listeners[].tls", &LISTENER_TLS),
    ("listeners[].tls.certificates[]", &CERTIFICATE),
    ("admin", &ADMIN),
    ("limits", &LIMITS),
    ("defaults", &DEFAULTS),
    ("upstreams.*", &UPSTREAM),
    ("upstreams.*.sticky", &STICKY),
    ("upstreams.*.outliers", &OUTLIERS),
    ("upstreams.*.backends[]", &BACKEND),
    ("upstreams.*.health_check", &HEALTH_CHECK),
    ("upstreams.*.health_check.http", &PROBE_HTTP),
    ("upstreams.*.health_check.tcp", &PROBE_TCP),
    ("upstreams.*.health_check.tls", &PROBE_TLS),
    ("upstreams.*.breaker", &BREAKER),
    ("upstreams.*.timeouts", &TIMEOUTS),
    ("upstreams.*.dns", &DNS),
    ("upstreams.*.tls", &TLS),
    ("caches.*", &STORE),
    ("caches.*.disk", &DISK),
    ("routes[]", &ROUTE),
    ("routes[].match", &MATCH),
    ("routes[].split", &SPLIT),
    ("routes[].mirror", &MIRROR),
    ("routes[].rate_limit", &RATE_LIMIT),
    ("routes[].basic_auth", &BASIC_AUTH),
    ("routes[].maintenance", &MAINTENANCE),
    ("routes[].redirect", &REDIRECT),
    ("routes[].respond", &RESPOND),
    ("routes[].rewrite", &REWRITE),
    ("routes[].request_headers", &HEADERS),
    ("routes[].response_headers", &HEADERS),
    ("routes[].retry", &RETRY),
    ("routes[].errors", &ERRORS),
    ("routes[].cache", &CACHE),
    ("routes[].cache.key", &KEY),
    ("routes[].cache.key.query", &QUERY),
    ("routes[].cache.cookies", &COOKIES),
    ("routes[].cache.bypass", &BYPASS),
    ("routes[].cache.purge", &PURGE),
    ("access_log", &ACCESS_LOG),
    ("access_log.mask", &MASK),
    ("tracing", &TRACING),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(name: &str) -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::read_to_string(root.join(name)).unwrap()
    }

    fn paths(section: &str, keys: &[&str]) -> Vec<String> {
        let dot = if section.is_empty() { "" } else { "." };
        keys.iter().map(|key| format!("`{section}{dot}{key}`")).collect()
    }

    #[test]
    fn the_reference_has_every_key_in_its_own_list() {
        let text = shipped("docs/configuration.md");
        let (built, later) = text.split_once("## Documented for later").unwrap();
        for (section, keys) in ALL {
            for path in paths(section, keys.built) {
                assert!(built.contains(&path), "{path} is not in docs/configuration.md");
            }
            for path in paths(section, keys.later) {
                assert!(later.contains(&path), "{path} is not in the list of what is for later");
                assert!(!built.contains(&format!("| {path} |")), "{path} is not built");
            }
        }
    }

    #[test]
    fn the_complete_file_has_every_key() {
        let text = shipped("conf/goodgate.yaml");
        for (section, keys) in ALL {
            for key in keys.built {
                let is_there = text
                    .lines()
                    .any(|line| line.trim_start_matches([' ', '#', '-']).starts_with(&format!("{key}:")));
                assert!(is_there, "{section}.{key} is not in conf/goodgate.yaml");
            }
        }
    }

    /// Each default as the reference must show it, from the constant that the reader uses.
    fn defaults() -> Vec<(&'static str, String)> {
        use crate::defaults::*;
        use crate::quantity::{show_duration as time, show_size as size};
        let bytes = |bytes: usize| size(bytes as u64);
        vec![
            ("server.shutdown.delay", time(SHUTDOWN_DELAY)),
            ("server.shutdown.drain", time(SHUTDOWN_DRAIN)),
            ("server.upstream_keepalive", "auto".to_owned()),
            ("server.spool.path", SPOOL_PATH.to_owned()),
            ("server.spool.size", size(SPOOL_BYTES_MAX)),
            ("listeners[].address", LISTENER.to_string()),
            ("admin.address", ADMIN.to_string()),
            ("admin.hosts", "[]".to_owned()),
            ("limits.header_timeout", time(HEADER_TIMEOUT)),
            ("limits.body_timeout", time(BODY_TIMEOUT)),
            ("limits.min_body_rate", size(u64::from(BODY_RATE_MIN))),
            ("limits.write_timeout", time(CLIENT_WRITE_TIMEOUT)),
            ("limits.keepalive_timeout", time(KEEPALIVE_TIMEOUT)),
            ("limits.handshake_timeout", time(HANDSHAKE_TIMEOUT)),
            ("limits.max_connections", CONNECTIONS_MAX.to_string()),
            ("limits.max_requests_per_connection", REQUESTS_PER_CONNECTION_MAX.to_string()),
            ("limits.max_header_bytes", bytes(HEADER_BYTES_MAX)),
            ("limits.max_headers", HEADERS_MAX.to_string()),
            ("limits.max_uri_bytes", bytes(URI_BYTES_MAX)),
            ("limits.max_body_bytes", size(BODY_BYTES_MAX)),
            ("limits.max_response_header_bytes", bytes(RESPONSE_HEADER_BYTES_MAX)),
            ("limits.max_passages", PASSAGES_MAX.to_string()),
            ("upstreams.*.max_fails", MAX_FAILS.to_string()),
            ("upstreams.*.fail_timeout", time(FAIL_TIMEOUT)),
            ("upstreams.*.fail_on", words(FAIL_ON)),
            ("upstreams.*.min_fail_share", format!("{MIN_FAIL_SHARE_PERCENT}%")),
            ("upstreams.*.balance", "round_robin".to_owned()),
            ("upstreams.*.hash_on", "uri".to_owned()),
            ("upstreams.*.hash_balance_factor", "off".to_owned()),
            ("upstreams.*.backends[].weight", WEIGHT.to_string()),
            ("upstreams.*.backends[].max_conns", MAX_CONNS.to_string()),
            ("upstreams.*.health_check.interval", time(PROBE_INTERVAL)),
            ("upstreams.*.health_check.interval_down", time(PROBE_INTERVAL_DOWN)),
            ("upstreams.*.health_check.timeout", time(PROBE_TIMEOUT)),
            ("upstreams.*.health_check.rise", RISE.to_string()),
            ("upstreams.*.health_check.fall", FALL.to_string()),
            ("upstreams.*.timeouts.connect", time(CONNECT_TIMEOUT)),
            ("upstreams.*.timeouts.first_byte", time(FIRST_BYTE_TIMEOUT)),
            ("upstreams.*.timeouts.read", time(READ_TIMEOUT)),
            ("upstreams.*.timeouts.write", time(WRITE_TIMEOUT)),
            ("upstreams.*.timeouts.idle", time(IDLE_TIMEOUT)),
            ("upstreams.*.timeouts.tunnel", time(TUNNEL_TIMEOUT)),
            ("upstreams.*.dns.family", family()),
            ("upstreams.*.dns.ttl_min", time(DNS.ttl_min)),
            ("upstreams.*.dns.ttl_max", time(DNS.ttl_max)),
            ("upstreams.*.dns.keep", time(DNS.keep)),
            ("caches.*.memory", size(MEMORY_BYTES)),
            ("caches.*.max_object", size(OBJECT_BYTES_MAX)),
            ("caches.*.last_good_share", format!("{LAST_GOOD_PERCENT}%")),
            ("caches.*.disk.refresh", time(DISK_REFRESH)),
            ("access_log.format", format!("{LOG_FORMAT:?}").to_lowercase()),
            ("access_log.sample_ok", format!("{SAMPLE_OK:?}")),
            ("access_log.mask.query", format!("[{}]", MASK_QUERY.join(", "))),
            ("tracing.sample", format!("{TRACE_SAMPLE:?}")),
            ("access_log.mask.client_ip", (if MASK_CUTS_CLIENT { "/24" } else { "none" }).to_owned()),
        ]
    }

    fn defaults_of_health() -> Vec<(&'static str, String)> {
        use crate::defaults::*;
        use crate::quantity::show_duration as time;
        vec![
            ("upstreams.*.breaker.max_requests", BREAKER_REQUESTS_MAX.to_string()),
            ("upstreams.*.breaker.max_pending", BREAKER_PENDING_MAX.to_string()),
            ("upstreams.*.breaker.pending_timeout", time(BREAKER_PENDING_TIMEOUT)),
            ("upstreams.*.breaker.ramp", time(BREAKER_RAMP)),
            ("upstreams.*.slow_start", time(SLOW_START)),
            ("upstreams.*.max_ejected", format!("{MAX_EJECTED_PERCENT}%")),
            ("upstreams.*.fail_open", FAIL_OPEN.to_string()),
            ("upstreams.*.outliers.interval", time(OUTLIER_INTERVAL)),
            ("upstreams.*.outliers.min_requests", OUTLIER_REQUESTS_MIN.to_string()),
            ("upstreams.*.outliers.success_rate", format!("{OUTLIER_SUCCESS_PERCENT}%")),
            ("upstreams.*.outliers.first_byte", OUTLIER_FIRST_BYTE.to_string()),
            ("upstreams.*.health_check.initial", "up".to_owned()),
            ("upstreams.*.health_check.http.drain_on_404", "false".to_owned()),
            ("upstreams.*.health_check.http.method", PROBE_METHOD.to_string()),
        ]
    }

    fn defaults_of_routes() -> Vec<(&'static str, String)> {
        use crate::defaults::*;
        use crate::quantity::{show_duration as time, show_size as size};
        vec![
            ("routes[].match.path", PATH.to_owned()),
            ("routes[].split.by", "request".to_owned()),
            ("routes[].mirror.share", format!("{MIRROR_SHARE_PERCENT}%")),
            ("routes[].mirror.max_body_bytes", size(MIRROR_BODY_BYTES_MAX)),
            ("routes[].redirect.status", REDIRECT_STATUS.as_u16().to_string()),
            ("routes[].respond.status", RESPOND_STATUS.as_u16().to_string()),
            ("routes[].respond.type", RESPOND_TYPE.to_owned()),
            ("routes[].timeout", time(ROUTE_TIMEOUT)),
            ("routes[].pass_headers", "[]".to_owned()),
            ("routes[].method_override", "pass".to_owned()),
            ("routes[].merge_slashes", "false".to_owned()),
            ("routes[].request_headers.set", "{}".to_owned()),
            ("routes[].request_headers.remove", "[]".to_owned()),
            ("routes[].response_headers.set", "{}".to_owned()),
            ("routes[].response_headers.remove", "[]".to_owned()),
            ("routes[].allow", "[]".to_owned()),
            ("routes[].deny", "[]".to_owned()),
            ("routes[].rate_limit.per", RATE_LIMIT_PER.to_string()),
            ("routes[].rate_limit.exempt", "[]".to_owned()),
            ("routes[].basic_auth", "off".to_owned()),
            ("routes[].basic_auth.realm", REALM.to_owned()),
            ("routes[].maintenance", "false".to_owned()),
            ("routes[].maintenance.retry_after", time(MAINTENANCE_RETRY_AFTER)),
            ("routes[].maintenance.allow", "[]".to_owned()),
            ("routes[].maintenance.use_stale", MAINTENANCE_USE_STALE.to_string()),
            ("routes[].errors.next_hop", "false".to_owned()),
            ("routes[].errors.replace", words(&[])),
            ("routes[].retry.tries", TRIES.to_string()),
            ("routes[].retry.max_connect_failures", CONNECT_FAILURES_MAX.to_string()),
            ("routes[].retry.on", words(RETRY_ON)),
            ("routes[].retry.budget", format!("{BUDGET_PERCENT}%")),
            ("routes[].retry.max_body_bytes", size(RETRY_BODY_BYTES_MAX)),
            ("routes[].cache.store", STORE.to_owned()),
            ("routes[].cache.use_stale", words(USE_STALE)),
            ("routes[].cache.stale_for", time(STALE_FOR)),
            ("routes[].cache.heuristic", "off".to_owned()),
            ("routes[].cache.cookies.drop_set", "false".to_owned()),
            ("routes[].cache.key.query", "all".to_owned()),
            ("routes[].cache.key.headers", "[]".to_owned()),
            ("routes[].cache.key.cookies", "[]".to_owned()),
            ("routes[].cache.status_header", STATUS_HEADER.to_string()),
        ]
    }

    fn family() -> String {
        use crate::defaults::{DNS, DNS_FAMILIES};
        let known = DNS_FAMILIES.iter().find(|(_, family)| *family == DNS.family);
        known.unwrap().0.to_owned()
    }

    fn words(words: &[goodgate_failure::Word]) -> String {
        let names: Vec<_> = words.iter().map(|word| word.name()).collect();
        format!("[{}]", names.join(", "))
    }

    #[test]
    fn the_reference_shows_the_defaults_that_are_used() {
        let text = shipped("docs/configuration.md");
        for (path, default) in defaults().into_iter().chain(defaults_of_health()).chain(defaults_of_routes())
        {
            let row = format!("| `{path}` | `{default}` |");
            assert!(text.contains(&row), "{row} is not in docs/configuration.md");
        }
    }
}
