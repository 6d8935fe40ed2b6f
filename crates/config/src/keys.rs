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
    ],
    later: &["tracing", "include"],
};

pub(crate) const SERVER: Keys =
    Keys { built: &["threads", "shutdown", "upstream_keepalive", "resolver"], later: &["state_dir"] };

pub(crate) const SHUTDOWN: Keys = Keys { built: &["delay", "drain"], later: &[] };

pub(crate) const LISTENER: Keys =
    Keys { built: &["address"], later: &["tls", "http2", "redirect_to_https", "proxy_protocol"] };

pub(crate) const ADMIN: Keys = Keys { built: &["address", "token_file"], later: &[] };

pub(crate) const LIMITS: Keys = Keys {
    built: &[
        "header_timeout",
        "body_timeout",
        "keepalive_timeout",
        "max_header_bytes",
        "max_headers",
        "max_uri_bytes",
        "max_body_bytes",
        "max_response_header_bytes",
    ],
    later: &["max_connections", "max_connections_per_ip"],
};

pub(crate) const DEFAULTS: Keys = Keys { built: &["upstream", "route"], later: &[] };

pub(crate) const UPSTREAM: Keys = Keys {
    built: &[
        "balance",
        "host",
        "max_fails",
        "fail_timeout",
        "fail_on",
        "min_fail_share",
        "backends",
        "health_check",
        "timeouts",
    ],
    later: &["hash_on", "sticky", "slow_start", "breaker", "http", "tls"],
};

pub(crate) const BACKEND: Keys =
    Keys { built: &["address", "weight", "max_fails", "fail_timeout", "backup"], later: &["max_conns"] };

pub(crate) const HEALTH_CHECK: Keys = Keys {
    built: &["http", "tcp", "port", "interval", "interval_down", "timeout", "rise", "fall"],
    later: &[],
};

pub(crate) const PROBE_HTTP: Keys =
    Keys { built: &["path", "host", "expect_status"], later: &["expect_body"] };

pub(crate) const PROBE_TCP: Keys = Keys { built: &[], later: &[] };

pub(crate) const TIMEOUTS: Keys =
    Keys { built: &["connect", "first_byte", "read", "write", "idle", "tunnel"], later: &[] };

pub(crate) const STORE: Keys = Keys { built: &["memory", "max_object"], later: &["disk"] };

pub(crate) const ROUTE: Keys = Keys {
    built: &["name", "match", "upstream", "timeout", "retry", "cache", "max_body_bytes"],
    later: &[
        "redirect",
        "respond",
        "backup_upstream",
        "rewrite",
        "request_headers",
        "response_headers",
        "rate_limit",
        "allow",
        "deny",
        "errors",
    ],
};

pub(crate) const MATCH: Keys = Keys { built: &["host", "path", "methods"], later: &["headers"] };

pub(crate) const RETRY: Keys = Keys { built: &["tries", "on", "replay", "budget"], later: &[] };

pub(crate) const CACHE: Keys = Keys {
    built: &[
        "store",
        "mode",
        "last_good",
        "use_stale",
        "stale_for",
        "ttl",
        "cookies",
        "bypass",
        "status_header",
    ],
    later: &["key"],
};

pub(crate) const COOKIES: Keys = Keys { built: &["ignore", "serve_anonymous"], later: &[] };

pub(crate) const BYPASS: Keys = Keys { built: &["headers"], later: &[] };

pub(crate) const ACCESS_LOG: Keys = Keys { built: &["path", "format"], later: &["sample_ok", "mask"] };

/// Every section, with its place as the reference writes it.
#[cfg(test)]
pub(crate) const ALL: [(&str, &Keys); 21] = [
    ("", &TOP),
    ("server", &SERVER),
    ("server.shutdown", &SHUTDOWN),
    ("listeners[]", &LISTENER),
    ("admin", &ADMIN),
    ("limits", &LIMITS),
    ("defaults", &DEFAULTS),
    ("upstreams.*", &UPSTREAM),
    ("upstreams.*.backends[]", &BACKEND),
    ("upstreams.*.health_check", &HEALTH_CHECK),
    ("upstreams.*.health_check.http", &PROBE_HTTP),
    ("upstreams.*.health_check.tcp", &PROBE_TCP),
    ("upstreams.*.timeouts", &TIMEOUTS),
    ("caches.*", &STORE),
    ("routes[]", &ROUTE),
    ("routes[].match", &MATCH),
    ("routes[].retry", &RETRY),
    ("routes[].cache", &CACHE),
    ("routes[].cache.cookies", &COOKIES),
    ("routes[].cache.bypass", &BYPASS),
    ("access_log", &ACCESS_LOG),
];
