//! Broken settings and exactly what is said about them: every problem of the file, each in its place.
//! A table of cases, so longer than a file of code should be.

/// What is said about a text: one line for each problem.
fn told(text: &str) -> String {
    let env = |name: &str| match name {
        "WORDS" => Some("many".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    goodgate_config::parse("c.yaml", text, &env)
        .map_or_else(|problems| problems.to_string(), |_| "nothing".to_owned())
}

/// The keys of an upstream, as a problem lists them.
const UPSTREAM: &str = "balance, hash_on, hash_balance_factor, sticky, slow_start, host, max_fails, fail_timeout, \
    fail_timeout_max, fail_on, min_fail_share, max_ejected, outliers, fail_open, drain_header, backends, \
    health_check, breaker, timeouts, dns, tls";

#[test]
fn upstreams_and_routes_are_needed() {
    let text = "server: {}
";
    let problems = "c.yaml:1:1: `upstreams` is missing
c.yaml:1:1: `routes` is missing";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let text = "upstreams:
  app:
    max_fail: 3
    fail-timeout: 5s
    colour: red
    backends: ['10.0.0.1:80']
routes: [{ upstream: app }]
";
    let problems = format!(
        "c.yaml:3:5: upstreams.app.max_fail: unknown key, did you mean `max_fails`?
c.yaml:4:5: upstreams.app.fail-timeout: unknown key, did you mean `fail_timeout`?
c.yaml:5:5: upstreams.app.colour: unknown key; allowed: {UPSTREAM}"
    );
    assert_eq!(told(text), problems);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let text = "upstreams:
  app:
    backends: ['10.0.0.1:80']
    http: auto
include: []
routes: [{ upstream: app }]
";
    let problems = "c.yaml:4:5: upstreams.app.http: not supported by this build yet
c.yaml:5:1: include: not supported by this build yet";
    assert_eq!(told(text), problems);
}

#[test]
fn a_key_without_a_value_is_refused() {
    let text = "listeners:
upstreams:
  app:
    timeouts:
    backends: ['10.0.0.1:80', ]
routes:
  - upstream: app
    cache:
";
    let problems = "c.yaml:1:1: listeners: has no value; give it one or leave the key out
c.yaml:4:5: upstreams.app.timeouts: has no value; give it one or leave the key out
c.yaml:8:5: routes[0].cache: has no value; give it one or leave the key out";
    assert_eq!(told(text), problems);
}

#[test]
fn lists_are_no_maps_and_maps_no_lists() {
    let text = "server: []
limits: 3
listeners: {}
caches: []
trusted_proxies: 10.0.0.0/8
upstreams: []
routes: {}
";
    let problems = r#"c.yaml:1:9: server: found a list; allowed: a map
c.yaml:2:9: limits: found 3; allowed: a map
c.yaml:3:12: listeners: found a map; allowed: a list
c.yaml:4:9: caches: found a list; allowed: a map
c.yaml:5:18: trusted_proxies: found "10.0.0.0/8"; allowed: a list
c.yaml:6:12: upstreams: found a list; allowed: a map
c.yaml:7:9: routes: found a map; allowed: a list"#;
    assert_eq!(told(text), problems);
}

#[test]
fn an_unknown_balance_lists_those_there_are() {
    let text = "upstreams: { app: { balance: round-robin, backends: ['10.0.0.1:80'] } }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:1:30: upstreams.app.balance: found "round-robin" (did you mean `round_robin`?); allowed: round_robin, least_conn, random_two, least_time, consistent_hash"#;
    assert_eq!(told(text), problems);
}

#[test]
fn what_is_kept_of_bodies_is_checked_to_the_letter() {
    let text = "server: { spool: { path: missing, size: -1, max: 3 } }
upstreams: { a: ['10.0.0.1:80'] }
routes:
  - { upstream: a, retry: { max_body_bytes: 63KiB } }
";
    let problems = r#"c.yaml:1:26: server.spool.path: found "missing"; allowed: a folder that is there
c.yaml:1:41: server.spool.size: found -1; allowed: a size, like `64KiB` or `10MB`
c.yaml:1:45: server.spool.max: unknown key; allowed: path, size
c.yaml:4:45: routes[0].retry.max_body_bytes: found "63KiB"; allowed: 64KiB to 1TiB"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_breaker_is_checked_to_the_letter() {
    let text = "upstreams:
  a:
    breaker: { max_requests: 0, max_pending: 1000000, pending_timeout: 0s, ramp: 2h, max_retries: 3 }
    backends: ['10.0.0.1:80']
  b:
    breaker: on
    backends: ['10.0.0.1:80']
routes: [{ upstream: a }]
";
    let problems = r#"c.yaml:3:30: upstreams.a.breaker.max_requests: found 0; allowed: a whole number from 1 to 1000000
c.yaml:3:46: upstreams.a.breaker.max_pending: found 1000000; allowed: a whole number from 0 to 100000
c.yaml:3:72: upstreams.a.breaker.pending_timeout: found "0s"; allowed: 1ms to 24h
c.yaml:3:82: upstreams.a.breaker.ramp: found "2h"; allowed: 0s to 1h
c.yaml:3:86: upstreams.a.breaker.max_retries: unknown key; allowed: max_requests, max_pending, pending_timeout, ramp
c.yaml:6:14: upstreams.b.breaker: found "on"; allowed: a map"#;
    assert_eq!(told(text), problems);
}

#[test]
fn what_balancing_is_told_is_checked_to_the_letter() {
    let text = "upstreams:
  a:
    balance: least_conn
    hash_on: uri
    hash_balance_factor: 125%
    slow_start: 2h
    backends: [{ address: '10.0.0.1:80', max_conns: -1 }]
  b:
    balance: consistent_hash
    hash_on: header
    hash_balance_factor: 100%
    sticky: { cookie: 'a b', ttl: 0, key_file: missing }
    backends: ['10.0.0.1:80']
  c:
    balance: consistent_hash
    hash_on: 'cookie:a*'
    hash_balance_factor: 1.25
    sticky: {}
    backends: ['10.0.0.1:80']
routes: [{ upstream: a }]
";
    let problems = r#"c.yaml:4:5: upstreams.a.hash_on: has no meaning without `balance: consistent_hash`
c.yaml:5:5: upstreams.a.hash_balance_factor: has no meaning without `balance: consistent_hash`
c.yaml:6:17: upstreams.a.slow_start: found "2h"; allowed: 0s to 1h
c.yaml:7:53: upstreams.a.backends[0].max_conns: found -1; allowed: a whole number from 0 to 1000000
c.yaml:10:14: upstreams.b.hash_on: found "header"; allowed: uri, path, header:NAME, cookie:NAME, client_ip
c.yaml:11:26: upstreams.b.hash_balance_factor: found "100%"; allowed: off, or 101% to 1000%
c.yaml:12:23: upstreams.b.sticky.cookie: found "a b"; allowed: a cookie's name, like `lang`
c.yaml:12:35: upstreams.b.sticky.ttl: found 0; allowed: 1s to 365d
c.yaml:12:48: upstreams.b.sticky.key_file: missing cannot be read: No such file or directory (os error 2)
c.yaml:16:14: upstreams.c.hash_on: found "cookie:a*"; allowed: uri, path, header:NAME, cookie:NAME, client_ip
c.yaml:17:26: upstreams.c.hash_balance_factor: found 1.25; allowed: off, or 101% to 1000%
c.yaml:18:5: upstreams.c.sticky: `cookie` is missing"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_split_names_other_upstreams_and_shares_that_fit() {
    let text = "upstreams: { app: ['10.0.0.1:80'], next: ['10.0.0.2:80'], old: ['10.0.0.3:80'] }
routes:
  - { name: a, upstream: app, split: { shares: { app: 5%, nexd: 5%, zebra: 1%, old: 0% }, by: uri } }
  - { name: b, match: { path: /b }, upstream: app, split: { shares: { next: 60%, old: 41% } } }
  - { name: c, match: { path: /c }, upstream: app, split: { shares: {} } }
  - { name: d, match: { path: /d }, upstream: app, split: {} }
  - { name: e, match: { path: /e }, redirect: { to: / }, split: { shares: { next: 5% } } }
";
    let problems = r#"c.yaml:3:50: routes[0].split.shares.app: is the upstream that has the rest anyway
c.yaml:3:59: routes[0].split.shares.nexd: unknown upstream, did you mean `next`?
c.yaml:3:69: routes[0].split.shares.zebra: unknown upstream; allowed: app, next, old
c.yaml:3:85: routes[0].split.shares.old: found "0%"; allowed: a percentage from `1%` to `100%`
c.yaml:3:95: routes[0].split.by: found "uri"; allowed: request, client_ip, header:NAME, cookie:NAME
c.yaml:4:69: routes[1].split.shares: found 101% in all; allowed: at most 100%
c.yaml:5:69: routes[2].split.shares: found an empty map; allowed: at least one upstream with its share
c.yaml:6:52: routes[3].split: `shares` is missing
c.yaml:7:58: routes[4].split: has no meaning without `upstream`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_mirror_is_another_upstream() {
    let text = "upstreams: { app: ['10.0.0.1:80'], next: ['10.0.0.2:80'] }
routes:
  - { name: a, upstream: app, mirror: { upstream: app, share: 0%, max_body_bytes: 2MiB } }
  - { name: b, match: { path: /b }, upstream: app, mirror: { upstream: nexd } }
  - { name: c, match: { path: /c }, upstream: app, mirror: {} }
  - { name: d, match: { path: /d }, redirect: { to: / }, mirror: { upstream: next } }
";
    let problems = r#"c.yaml:3:51: routes[0].mirror.upstream: is the upstream that answers: it would get those requests twice
c.yaml:3:63: routes[0].mirror.share: found "0%"; allowed: a percentage from `1%` to `100%`
c.yaml:3:83: routes[0].mirror.max_body_bytes: found "2MiB"; allowed: 0 to 1MiB
c.yaml:4:72: routes[1].mirror.upstream: found "nexd" (did you mean `next`?); allowed: app, next
c.yaml:5:52: routes[2].mirror: `upstream` is missing
c.yaml:6:58: routes[3].mirror: has no meaning without `upstream`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn an_unknown_word_lists_those_there_are() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app, retry: { replay: sometimes } }]
";
    let problems =
        r#"c.yaml:2:44: routes[0].retry.replay: found "sometimes"; allowed: none, safe, idempotent, all"#;
    assert_eq!(told(text), problems);
}

#[test]
fn durations_have_units_and_limits() {
    let text = "limits:
  header_timeout: 10
  body_timeout: 1.5s
  keepalive_timeout: 0s
  write_timeout: 60
  min_body_rate: 2MiB
server:
  shutdown: { delay: 48h, drain: soon }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:2:19: limits.header_timeout: found 10; allowed: a duration with a unit, like `10s`
c.yaml:3:17: limits.body_timeout: found "1.5s"; allowed: a duration, like `500ms`, `30s` or `1h30m`
c.yaml:4:22: limits.keepalive_timeout: found "0s"; allowed: 1ms to 24h
c.yaml:5:18: limits.write_timeout: found 60; allowed: a duration with a unit, like `60s`
c.yaml:6:18: limits.min_body_rate: found "2MiB"; allowed: 0 to 1MiB
c.yaml:8:22: server.shutdown.delay: found "48h"; allowed: 0s to 24h
c.yaml:8:34: server.shutdown.drain: found "soon"; allowed: a duration, like `500ms`, `30s` or `1h30m`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn sizes_have_limits() {
    let text = "limits:
  max_body_bytes: 10 MiB
  max_header_bytes: 2MiB
  max_uri_bytes: -1
  max_response_header_bytes: 0
  max_headers: 300
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:2:19: limits.max_body_bytes: found "10 MiB"; allowed: a size, like `64KiB` or `10MB`
c.yaml:3:21: limits.max_header_bytes: found "2MiB"; allowed: 1KiB to 1MiB
c.yaml:4:18: limits.max_uri_bytes: found -1; allowed: a size, like `64KiB` or `10MB`
c.yaml:5:30: limits.max_response_header_bytes: found 0; allowed: 1KiB to 1MiB
c.yaml:6:16: limits.max_headers: found 300; allowed: a whole number from 1 to 256"#;
    assert_eq!(told(text), problems);
}

#[test]
fn numbers_are_whole_and_have_limits() {
    let text = "upstreams:
  app:
    max_fails: -1
    min_fail_share: 20
    backends:
      - { address: '10.0.0.1:80', weight: 0 }
      - { address: '10.0.0.2:80', weight: 1.5 }
      - { address: '10.0.0.3:80', weight: 010 }
      - { address: '10.0.0.4:80', weight: .nan }
      - { address: '10.0.0.5:80', weight: 99999999999999999999999999999999999999999999 }
      - { address: '10.0.0.6:80', weight: '3' }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:3:16: upstreams.app.max_fails: found -1; allowed: a whole number from 0 to 10000
c.yaml:4:21: upstreams.app.min_fail_share: found 20; allowed: a percentage from `0%` to `100%`
c.yaml:6:43: upstreams.app.backends[0].weight: found 0; allowed: a whole number from 1 to 1000
c.yaml:7:43: upstreams.app.backends[1].weight: found 1.5; allowed: a whole number from 1 to 1000
c.yaml:8:43: upstreams.app.backends[2].weight: found "010"; allowed: a whole number from 1 to 1000
c.yaml:9:43: upstreams.app.backends[3].weight: found NaN; allowed: a whole number from 1 to 1000
c.yaml:10:43: upstreams.app.backends[4].weight: found 100000000000000000000000000000000000000000000; allowed: a whole number from 1 to 1000
c.yaml:11:43: upstreams.app.backends[5].weight: found "3"; allowed: a whole number from 1 to 1000"#;
    assert_eq!(told(text), problems);
}

#[test]
fn yes_is_no_bool() {
    let text = "upstreams:
  app:
    backends:
      - address: 10.0.0.1:80
        backup: yes
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:5:17: upstreams.app.backends[0].backup: found "yes"; allowed: true, false"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_target_fits_in_its_header() {
    let text = "limits: { max_header_bytes: 4KiB, max_uri_bytes: 5KiB }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:1:50: limits.max_uri_bytes: found "5KiB"; allowed: at most `limits.max_header_bytes`, which holds the target too"#;
    assert_eq!(told(text), problems);
}

#[test]
fn listeners_are_addresses_and_differ() {
    let text = "listeners:
  - address: 0.0.0.0:8080
  - address: 0.0.0.0:8080
  - address: localhost:80
  - address: 127.0.0.1:9180
  - address: 127.0.0.1:0
  - address: 127.0.0.1:0
  - 8080
  - {}
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:3:14: listeners[1].address: 0.0.0.0:8080 is taken by `listeners[0].address` already
c.yaml:4:14: listeners[2].address: found "localhost:80"; allowed: `IP:port`, like `0.0.0.0:80` or `[::]:80`
c.yaml:5:14: listeners[3].address: 127.0.0.1:9180 is taken by `admin.address` already
c.yaml:8:5: listeners[6]: found 8080; allowed: a map, like `{ address: "0.0.0.0:80" }`
c.yaml:9:5: listeners[7]: `address` is missing"#;
    assert_eq!(told(text), problems);
}

#[test]
fn at_least_one_listener_is_needed() {
    let text = "listeners: []
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = "c.yaml:1:12: listeners: found an empty list; allowed: at least one listener";
    assert_eq!(told(text), problems);
}

#[test]
fn name_servers_are_addresses() {
    let text = "server: { resolver: [dns.local, '127.0.0.1'], threads: 0 }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:1:22: server.resolver[0]: found "dns.local"; allowed: an IP address, with or without a port, like `127.0.0.1:53`
c.yaml:1:56: server.threads: found 0; allowed: auto, or a whole number from 1 to 1024"#;
    assert_eq!(told(text), problems);
}

#[test]
fn what_is_wrong_about_names_is_told_with_its_place() {
    let text = "upstreams:
  app:
    backends: [{ address: 'srv:_http._tcp.app', weight: 2 }, 'srv:app:80']
    dns: { resolver: [], search: ['a b'], family: ipv5, ttl_min: 0, keep: forever, ttl: 1s }
  web: { backends: ['web:1'], dns: { ttl_min: 10m, search: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q] } }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:3:49: upstreams.app.backends[0].weight: not allowed with `srv:`: the service's records have the weights
c.yaml:3:62: upstreams.app.backends[1]: found "srv:app:80"; allowed: `srv:name` without a port, like `srv:_http._tcp.app.internal`
c.yaml:4:22: upstreams.app.dns.resolver: found an empty list; leave it out to use `server.resolver`
c.yaml:4:35: upstreams.app.dns.search[0]: found "a b"; allowed: a domain, like `app.internal`
c.yaml:4:51: upstreams.app.dns.family: found "ipv5"; allowed: any, ipv4_first, ipv6_first, ipv4_only, ipv6_only
c.yaml:4:66: upstreams.app.dns.ttl_min: found 0; allowed: 1s to 24h
c.yaml:4:75: upstreams.app.dns.keep: found "forever"; allowed: a duration, like `500ms`, `30s` or `1h30m`
c.yaml:4:84: upstreams.app.dns.ttl: unknown key; allowed: resolver, search, family, ttl_min, ttl_max, keep
c.yaml:5:47: upstreams.web.dns.ttl_min: `ttl_min` is 600s and `ttl_max` is 60s; allowed: `ttl_min` up to `ttl_max`
c.yaml:5:60: upstreams.web.dns.search: found more than 16 domains; allowed: at most 16"#;
    assert_eq!(told(text), problems);
}

#[test]
fn trusted_proxies_are_addresses_or_networks() {
    let text = "trusted_proxies: [10.0.0.0/33, proxy, 10.1.2.3/8, '::1']
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:1:19: trusted_proxies[0]: found "10.0.0.0/33"; allowed: an IP address or a network, like `10.0.0.0/8`
c.yaml:1:32: trusted_proxies[1]: found "proxy"; allowed: an IP address or a network, like `10.0.0.0/8`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_missing_token_file_is_named() {
    let text = "admin: { token_file: no/such/file }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems =
        "c.yaml:1:22: admin.token_file: no/such/file cannot be read: No such file or directory (os error 2)";
    assert_eq!(told(text), problems);
}

#[test]
fn the_access_log_has_two_formats_a_share_and_a_mask() {
    let text = "access_log:
  format: xml
  path: ''
  sample_ok: 1.5
  mask: { query: [token, '', 'a=b', 7], client_ip: /16, cookies: all }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:2:11: access_log.format: found "xml"; allowed: json, text
c.yaml:3:9: access_log.path: found ""; allowed: text that is not empty
c.yaml:4:14: access_log.sample_ok: found 1.5; allowed: a number from 0.0 to 1.0, like `0.01`
c.yaml:5:26: access_log.mask.query[1]: found ""; allowed: text that is not empty
c.yaml:5:30: access_log.mask.query[2]: found "a=b"; allowed: the name of a query parameter, or how names begin, like `token*`, at most 100 bytes, without `=`, `&` and `;`
c.yaml:5:37: access_log.mask.query[3]: found 7; allowed: text, so quote it
c.yaml:5:52: access_log.mask.client_ip: found "/16"; allowed: none, /24
c.yaml:5:57: access_log.mask.cookies: unknown key; allowed: query, client_ip"#;
    assert_eq!(told(text), problems);
    let one = |value: &str| {
        told(&format!(
            "access_log: {{ {value} }}\nupstreams: {{ app: ['10.0.0.1:80'] }}\nroutes: [{{ upstream: app }}]\n"
        ))
    };
    for value in ["sample_ok: -0.1", "sample_ok: .nan", "sample_ok: half", "sample_ok: '0.5'", "sample_ok: 2"]
    {
        assert!(one(value).contains("allowed: a number from 0.0 to 1.0"), "{value}: {}", one(value));
    }
    for value in
        ["sample_ok: 0", "sample_ok: 1", "mask: {}", "mask: { query: [] }", "mask: { client_ip: none }"]
    {
        assert_eq!(one(value), "nothing", "{value}");
    }
    let many = vec!["a"; 101].join(",");
    let told = one(&format!("mask: {{ query: [{many}] }}"));
    assert!(told.ends_with("access_log.mask.query: found 101 names; allowed: at most 100"), "{told}");
}

#[test]
fn backends_are_addresses_with_a_port() {
    let text = "upstreams:
  app:
    - 10.0.0.1
    - app
    - 10.0.0.300:80
    - http://app/path
    - https://app
    - unix:run/app.sock
    - app:99999
    - { weight: 2 }
    - 8080
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:3:7: upstreams.app[0]: found "10.0.0.1"; allowed: a port behind the address, like `10.0.0.1:8080`
c.yaml:4:7: upstreams.app[1]: found "app"; allowed: a port behind the name, like `name:8080`
c.yaml:5:7: upstreams.app[2]: found "10.0.0.300:80"; allowed: `IP:port`, `[IPv6]:port`, `name:port`, `srv:name`, `unix:/path`, `http://name` or `https://name`
c.yaml:6:7: upstreams.app[3]: found "http://app/path"; allowed: `http://name:port` without a path
c.yaml:8:7: upstreams.app[5]: found "unix:run/app.sock"; allowed: `unix:/path`, absolute and at most 107 bytes
c.yaml:9:7: upstreams.app[6]: found "app:99999"; allowed: a port from 1 to 65535 behind the colon
c.yaml:10:7: upstreams.app[7]: `address` is missing
c.yaml:11:7: upstreams.app[8]: found 8080; allowed: `IP:port`, `[IPv6]:port`, `name:port`, `srv:name`, `unix:/path`, `http://name` or `https://name`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn what_a_listener_is_to_be_is_checked() {
    let text = "listeners:
  - { address: '127.0.0.1:1', redirect_to_https: 0, proxy_protocol: yes please }
  - { address: '127.0.0.1:2', redirect_to_https: true, tls: { certificates: [] } }
  - { address: '127.0.0.1:3', tls: { min_version: '1.1', client_auth: optional } }
  - { address: '127.0.0.1:5', proxy_protocol: true }
  - { address: '127.0.0.1:4', tls: { certificates: [{ cert: missing.pem, key: missing.key }, { cert: a }], client_ca: missing.pem } }
limits: { handshake_timeout: 0s, max_connections: 0, max_connections_per_ip: -1, max_requests_per_connection: 0 }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:2:50: listeners[0].redirect_to_https: found 0; allowed: true, false, or a port from 1 to 65535
c.yaml:2:69: listeners[0].proxy_protocol: found "yes please"; allowed: true, false
c.yaml:3:31: listeners[1].redirect_to_https: has no meaning with `tls`: its requests are https already
c.yaml:3:77: listeners[1].tls.certificates: found an empty list; allowed: at least one certificate
c.yaml:4:31: listeners[2].tls: `certificates` is missing
c.yaml:4:51: listeners[2].tls.min_version: found "1.1" (did you mean `1.2`?); allowed: 1.2, 1.3
c.yaml:4:58: listeners[2].tls.client_auth: `client_ca` is missing beside it
c.yaml:5:31: listeners[3].proxy_protocol: nobody may send a PROXY header: name who does in `trusted_proxies`
c.yaml:6:61: listeners[4].tls.certificates[0].cert: missing.pem cannot be read: No such file or directory (os error 2)
c.yaml:6:94: listeners[4].tls.certificates[1]: `key` is missing
c.yaml:6:119: listeners[4].tls.client_ca: missing.pem cannot be read: No such file or directory (os error 2)
c.yaml:7:30: limits.handshake_timeout: found "0s"; allowed: 1ms to 24h
c.yaml:7:51: limits.max_connections: found 0; allowed: a whole number from 1 to 10000000
c.yaml:7:78: limits.max_connections_per_ip: found -1; allowed: a whole number from 0 to 4294967295
c.yaml:7:111: limits.max_requests_per_connection: found 0; allowed: a whole number from 1 to 4294967295"#;
    assert_eq!(told(text), problems);
}

#[test]
fn tls_to_backends_is_checked_before_a_connection_needs_it() {
    let text = "upstreams:
  app:
    backends: [https://app]
    tls: { sni: 'a b', verify: none, ca: missing.pem, client_cert: x.pem }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:4:17: upstreams.app.tls.sni: found "a b"; allowed: a host name, like `app.internal`
c.yaml:4:32: upstreams.app.tls.verify: found "none"; allowed: full, off
c.yaml:4:42: upstreams.app.tls.ca: missing.pem cannot be read: No such file or directory (os error 2)
c.yaml:4:68: upstreams.app.tls.client_cert: `client_key` is missing beside it"#;
    assert_eq!(told(text), problems);
}

#[test]
fn what_stands_in_an_error_page_is_checked() {
    let text = "upstreams: { app: [10.0.0.1:80] }
routes:
  - upstream: app
    errors: { html: missing.html, contact: '<b>', replace: [http_500, error], next_hop: 1, page: x }
";
    let problems = r#"c.yaml:4:21: routes[0].errors.html: missing.html cannot be read: No such file or directory (os error 2)
c.yaml:4:44: routes[0].errors.contact: found "<b>"; allowed: an address or a sentence of at most 200 characters, none of them one of <>&"'\
c.yaml:4:71: routes[0].errors.replace[1]: found "error"; allowed: http_500, http_502, http_503, http_504, http_429, http_403, http_404
c.yaml:4:89: routes[0].errors.next_hop: found 1; allowed: true, false
c.yaml:4:92: routes[0].errors.page: unknown key; allowed: html, contact, replace, next_hop"#;
    assert_eq!(told(text), problems);
}

#[test]
fn who_is_let_in_is_told_by_addresses() {
    let text = "upstreams: { app: [10.0.0.1:80] }
routes:
  - { upstream: app, allow: [10.0.0.0/8, '::1', office], deny: 10.0.0.1 }
  - { upstream: app, match: { path: /a }, deny: [10.0.0.0/33] }
";
    let problems = r#"c.yaml:3:49: routes[0].allow[2]: found "office"; allowed: an IP address or a network, like `10.0.0.0/8`
c.yaml:3:64: routes[0].deny: found "10.0.0.1"; allowed: a list
c.yaml:4:50: routes[1].deny[0]: found "10.0.0.0/33"; allowed: an IP address or a network, like `10.0.0.0/8`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn rate_limits_have_a_rate() {
    let text = "upstreams: { app: [10.0.0.1:80] }
routes:
  - { upstream: app, rate_limit: { per: ip, burst: 0 } }
  - { upstream: app, match: { path: /a }, rate_limit: [{ rate: 5/d }, { rate: 5, exempt: office }, 3] }
  - { upstream: app, match: { path: /b }, rate_limit: 5/s }
";
    let problems = r#"c.yaml:3:22: routes[0].rate_limit: `rate` is missing
c.yaml:3:41: routes[0].rate_limit.per: found "ip"; allowed: client_ip, route, header:NAME
c.yaml:3:52: routes[0].rate_limit.burst: found 0; allowed: a whole number from 1 to 1000000
c.yaml:4:64: routes[1].rate_limit[0].rate: found "5/d"; allowed: 1 to 1000000 requests in a time, like `100/s`, `30/m` or `10/h`
c.yaml:4:79: routes[1].rate_limit[1].rate: found 5; allowed: 1 to 1000000 requests in a time, like `100/s`, `30/m` or `10/h`
c.yaml:4:90: routes[1].rate_limit[1].exempt: found "office"; allowed: a list
c.yaml:4:100: routes[1].rate_limit[2]: found 3; allowed: a map
c.yaml:5:55: routes[2].rate_limit: found "5/s"; allowed: a map"#;
    assert_eq!(told(text), problems);
}

#[test]
fn maintenance_is_on_or_off_or_a_map() {
    let text = "upstreams: { app: [10.0.0.1:80] }
routes:
  - { upstream: app, maintenance: 10m }
  - { upstream: app, match: { path: /a }, maintenance: { page: missing.html, retry_after: 0, allow: 3, use_stale: error, on: true } }
  - { upstream: app, match: { path: /b }, maintenance: false }
";
    let problems = r#"c.yaml:3:35: routes[0].maintenance: found "10m"; allowed: true, false, or a map
c.yaml:4:64: routes[1].maintenance.page: missing.html cannot be read: No such file or directory (os error 2)
c.yaml:4:91: routes[1].maintenance.retry_after: found 0; allowed: 1s to 7d
c.yaml:4:101: routes[1].maintenance.allow: found 3; allowed: a list
c.yaml:4:115: routes[1].maintenance.use_stale: found "error"; allowed: true, false
c.yaml:4:122: routes[1].maintenance.on: unknown key; allowed: page, retry_after, allow, use_stale"#;
    assert_eq!(told(text), problems);
}

#[test]
fn who_has_a_password_stands_in_a_file() {
    let folder = std::env::temp_dir().join(format!("goodgate-users-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("users");
    std::fs::write(&file, "# staff\nann:plain secret\n").unwrap();
    let text = format!(
        "upstreams: {{ app: [10.0.0.1:80] }}
routes:
  - {{ upstream: app, basic_auth: {{ realm: 'a\"b' }} }}
  - {{ upstream: app, match: {{ path: /a }}, basic_auth: {{ users_file: missing }} }}
  - {{ upstream: app, match: {{ path: /b }}, basic_auth: {{ users_file: {} }} }}
  - {{ upstream: app, match: {{ path: /c }}, basic_auth: true }}
  - {{ upstream: app, match: {{ path: /d }}, basic_auth: off }}
",
        file.display()
    );
    let told = told(&text).replace(&folder.display().to_string(), "");
    std::fs::remove_dir_all(folder).unwrap();
    let problems = r#"c.yaml:3:22: routes[0].basic_auth: `users_file` is missing
c.yaml:3:43: routes[0].basic_auth.realm: found "a"b"; allowed: up to 100 visible ASCII characters and spaces, neither quotes nor backslashes
c.yaml:4:69: routes[1].basic_auth.users_file: missing cannot be read: No such file or directory (os error 2)
c.yaml:5:69: routes[2].basic_auth.users_file: /users, line 2: the hash of the password is none of those; allowed: bcrypt (`htpasswd -B`) of a cost from 4 to 15, or SHA-crypt (`htpasswd -5`, `openssl passwd -6`) of 1000 to 1000000 rounds
c.yaml:6:55: routes[3].basic_auth: found true; allowed: a map"#;
    assert_eq!(told, problems);
}

#[test]
fn the_admin_side_goes_by_host_names() {
    let text = "admin: { hosts: [gateway.internal, 'a b', 'a:80'] }
upstreams: { app: [10.0.0.1:80] }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:1:36: admin.hosts[1]: found "a b"; allowed: a host name without a port
c.yaml:1:43: admin.hosts[2]: found "a:80"; allowed: a host name without a port"#;
    assert_eq!(told(text), problems);
}

#[test]
fn no_route_touches_what_is_of_the_connection() {
    let text = "upstreams: { app: [10.0.0.1:80] }
routes:
  - { upstream: app, pass_headers: [X_Ok, 'a b', Host, Transfer-Encoding, CDN-Loop, 1] }
  - { upstream: app, match: { path: /a }, pass_headers: X-Foo }
  - { upstream: app, match: { path: /b }, request_headers: { set: { Host: x, X-A: '{ip}', x-a: b, X-N: 1 }, remove: [Te] } }
  - { upstream: app, match: { path: /c }, response_headers: { set: { Content-Length: '1', X-B: '1', x-b: '2' }, add: {} } }
  - { upstream: app, match: { path: /d }, rewrite: { strip_prefix: /, add_prefix: /v1/ } }
  - { upstream: app, match: { path: /e }, rewrite: { strip_prefix: api, prefix: x } }
";
    let problems = r#"c.yaml:3:43: routes[0].pass_headers[1]: found "a b"; allowed: a header's name, like `X-Frame-Options`
c.yaml:3:50: routes[0].pass_headers[2]: found "Host"; allowed: another name: the `Host` is what `host` of the upstream says
c.yaml:3:56: routes[0].pass_headers[3]: found "Transfer-Encoding"; allowed: a name that is not the gateway's own affair
c.yaml:3:75: routes[0].pass_headers[4]: found "CDN-Loop"; allowed: a name that is not the gateway's own affair
c.yaml:3:85: routes[0].pass_headers[5]: found 1; allowed: text, so quote it
c.yaml:4:57: routes[1].pass_headers: found "X-Foo"; allowed: a list
c.yaml:5:69: routes[2].request_headers.set.Host: the key is not allowed here; allowed: another name: the `Host` is what `host` of the upstream says
c.yaml:5:83: routes[2].request_headers.set.X-A: found "{ip}"; allowed: the variables {host}, {path}, {query}, {path_and_query}, {scheme}, {request_id}, {client_ip}, {client_cert_subject}; `{ip}` is none of them
c.yaml:5:104: routes[2].request_headers.set.X-N: found 1; allowed: text, so quote it
c.yaml:5:118: routes[2].request_headers.remove[0]: found "Te"; allowed: a name that is not the gateway's own affair
c.yaml:6:70: routes[3].response_headers.set.Content-Length: the key is not allowed here; allowed: a name that is not the gateway's own affair
c.yaml:6:101: routes[3].response_headers.set.x-b: `x-b` is there already: case does not matter
c.yaml:6:113: routes[3].response_headers.add: unknown key; allowed: set, remove
c.yaml:7:68: routes[4].rewrite.strip_prefix: found "/"; allowed: a path other than `/`
c.yaml:7:83: routes[4].rewrite.add_prefix: found "/v1/"; allowed: a path without a slash at its end
c.yaml:8:68: routes[5].rewrite.strip_prefix: found "api"; allowed: a path that begins with `/`, without `?`, `#` and spaces
c.yaml:8:73: routes[5].rewrite.prefix: unknown key; allowed: strip_prefix, add_prefix"#;
    assert_eq!(told(text), problems);
}

#[test]
fn no_backend_is_there_twice() {
    let text = "upstreams:
  app:
    backends:
      - App.internal:80
      - 10.0.0.1:80
      - { address: 'http://app.internal' }
routes: [{ upstream: app }]
";
    let problems = "c.yaml:6:20: upstreams.app.backends[2].address: app.internal:80 is the same address as `upstreams.app.backends[0]`";
    assert_eq!(told(text), problems);
}

#[test]
fn at_least_one_backend_is_needed() {
    let text = "upstreams:
  a: []
  b: { backends: [] }
  c: {}
  d: 10.0.0.1:80
routes: [{ upstream: a }]
";
    let problems = r#"c.yaml:2:6: upstreams.a: found an empty list; allowed: at least one backend
c.yaml:3:18: upstreams.b.backends: found an empty list; allowed: at least one backend
c.yaml:4:3: upstreams.c: `backends` is missing
c.yaml:5:6: upstreams.d: found "10.0.0.1:80"; allowed: a list of backends, or a map"#;
    assert_eq!(told(text), problems);
}

#[test]
fn names_are_metric_labels() {
    let text = r#"upstreams: { "a b": ['a:1'], "\e[2J": ['b:1'] }
routes: [{ upstream: a b }]
"#;
    let problems = r#"c.yaml:1:14: upstreams."a b": the name of an upstream; allowed: a name of 1 to 100 letters, digits, `_` `-` `.`
c.yaml:1:30: upstreams."\u{1b}[2J": the name of an upstream; allowed: a name of 1 to 100 letters, digits, `_` `-` `.`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_health_check_asks_exactly_one_thing() {
    let text = "upstreams:
  a: { backends: ['a:1'], health_check: { http: { path: health, expect_status: [99, 2xx, '299-200'] }, port: 0 } }
  b: { backends: ['b:1'], health_check: { http: { path: / }, tcp: {} } }
  c: { backends: ['c:1'], health_check: { interval: 5s } }
  d: { backends: ['d:1'], health_check: { http: { expect_body: '' } } }
  e: { backends: ['e:1'], health_check: { tcp: { path: / }, interval: 1ms } }
routes: [{ upstream: a }]
";
    let problems = r#"c.yaml:2:57: upstreams.a.health_check.http.path: found "health"; allowed: a path that begins with `/`, like `/health`
c.yaml:2:81: upstreams.a.health_check.http.expect_status[0]: found 99; allowed: a status from 100 to 599 or a range, like `200` or `200-299`
c.yaml:2:85: upstreams.a.health_check.http.expect_status[1]: found "2xx"; allowed: a status from 100 to 599 or a range, like `200` or `200-299`
c.yaml:2:90: upstreams.a.health_check.http.expect_status[2]: found "299-200"; allowed: a status from 100 to 599 or a range, like `200` or `200-299`
c.yaml:2:110: upstreams.a.health_check.port: found 0; allowed: a whole number from 1 to 65535
c.yaml:3:27: upstreams.b.health_check: found `http` and `tcp`; allowed: one of them
c.yaml:4:27: upstreams.c.health_check: one of `http` and `tcp` is missing, like `http: { path: /health }`
c.yaml:5:43: upstreams.d.health_check.http: `path` is missing
c.yaml:5:64: upstreams.d.health_check.http.expect_body: found ""; allowed: text that is not empty
c.yaml:6:50: upstreams.e.health_check.tcp.path: unknown key; allowed: none
c.yaml:6:71: upstreams.e.health_check.interval: found "1ms"; allowed: 10ms to 1h"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_health_check_expects_what_an_answer_can_have() {
    let text = "upstreams:
  a: { backends: ['a:1'], health_check: { http: { path: /, method: PUT, expect_body_regex: '(' }, tls: maybe } }
  b: { backends: ['b:1'], health_check: { http: { path: /, method: HEAD, expect_body: ok }, tls: { verify: no, cert: x } } }
  c: { backends: ['c:1'], health_check: { http: { path: /, headers: { Host: a, 'a b': c, X-A: \"\\n\", x-b: '1', X-B: '2' } } } }
  d: { backends: ['d:1', 'unix:/run/d.sock'], health_check: { tcp: {}, port: 1 } }
  e: { backends: ['e:1'], health_check: { http: { path: /, expect_body_regex: '(\\w{500}){500}' } } }
routes: [{ upstream: a }]
";
    let problems = r#"c.yaml:2:68: upstreams.a.health_check.http.method: found "PUT"; allowed: GET, HEAD, OPTIONS, POST
c.yaml:2:92: upstreams.a.health_check.http.expect_body_regex: found "("; allowed: a regular expression, like `status: (ok|warn)`
c.yaml:2:104: upstreams.a.health_check.tls: found "maybe"; allowed: true, false, or a map
c.yaml:3:74: upstreams.b.health_check.http.expect_body: not allowed with `method: HEAD`: its answers have no body
c.yaml:3:108: upstreams.b.health_check.tls.verify: found "no"; allowed: full, off
c.yaml:3:112: upstreams.b.health_check.tls.cert: unknown key; allowed: sni, ca, verify
c.yaml:4:71: upstreams.c.health_check.http.headers.Host: the key is not allowed here; allowed: another name: `host` is what it sets
c.yaml:4:80: upstreams.c.health_check.http.headers."a b": the key is not allowed here; allowed: a header's name, like `X-Frame-Options`
c.yaml:4:95: upstreams.c.health_check.http.headers.X-A: found "\n"; allowed: printable ASCII without spaces around it
c.yaml:4:111: upstreams.c.health_check.http.headers.X-B: `x-b` is there already: case does not matter
c.yaml:5:72: upstreams.d.health_check.port: not allowed with unix:/run/d.sock: a Unix socket has no ports
c.yaml:6:79: upstreams.e.health_check.http.expect_body_regex: found "(\w{500}){500}"; allowed: a regular expression that takes less than 1 MiB"#;
    assert_eq!(told(text), problems);
}

#[test]
fn updating_is_no_failure_of_a_backend() {
    let text = "upstreams:
  app:
    backends: ['10.0.0.1:80']
    fail_on: [errors, updating, http_418]
routes: [{ upstream: app, retry: { on: timeout } }]
";
    let problems = r#"c.yaml:4:15: upstreams.app.fail_on[0]: found "errors" (did you mean `error`?); allowed: error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_429, http_403, http_404
c.yaml:4:23: upstreams.app.fail_on[1]: found "updating"; allowed: error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_429, http_403, http_404
c.yaml:4:33: upstreams.app.fail_on[2]: found "http_418" (did you mean `http_429`?); allowed: error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_429, http_403, http_404
c.yaml:5:40: routes[0].retry.on: found "timeout"; allowed: a list"#;
    assert_eq!(told(text), problems);
}

#[test]
fn at_least_one_route_is_needed() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes: []
";
    let problems = "c.yaml:2:9: routes: found an empty list; allowed: at least one route";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unknown_upstream_suggests_the_nearest() {
    let text = "upstreams: { app: ['10.0.0.1:80'], web: ['10.0.0.2:80'] }
routes: [{ upstream: ap }, { match: { path: /x }, upstream: legacy }]
";
    let problems = r#"c.yaml:2:22: routes[0].upstream: found "ap" (did you mean `app`?); allowed: app, web
c.yaml:2:61: routes[1].upstream: found "legacy"; allowed: app, web"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_route_does_exactly_one_thing() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
defaults: { route: { respond: {} } }
routes:
  - match: { path: /a }
  - { match: { path: /b }, upstream: app, redirect: { to: / } }
  - { match: { path: /c }, redirect: { status: 304 } }
  - { match: { path: /d }, redirect: { to: 'ftp://x', status: 300 } }
  - { match: { path: /e }, redirect: { to: 'https://{hots}/' } }
  - { match: { path: /f }, redirect: { to: \"/a\\r\\nb\" }, cache: standard, retry: {} }
  - { match: { path: /g }, respond: { status: 199, body: [], type: text } }
  - { match: { path: /h }, respond: { status: 204, body: x } }
";
    let problems = r#"c.yaml:2:22: defaults.route.respond: not allowed in `defaults`: it belongs to each one alone
c.yaml:4:5: routes[0]: `upstream`, `redirect` or `respond` is missing
c.yaml:5:5: routes[1]: has `upstream` and `redirect`; allowed: exactly one of them
c.yaml:6:28: routes[2].redirect: `to` is missing
c.yaml:6:48: routes[2].redirect.status: found 304; allowed: 301, 302, 303, 307, 308
c.yaml:7:44: routes[3].redirect.to: found "ftp://x"; allowed: an address or a path, like `https://{host}{path_and_query}` or `/new{path}`
c.yaml:7:63: routes[3].redirect.status: found 300; allowed: 301, 302, 303, 307, 308
c.yaml:8:44: routes[4].redirect.to: found "https://{hots}/"; allowed: the variables {host}, {path}, {query}, {path_and_query}, {scheme}, {request_id}, {client_ip}, {client_cert_subject}; `{hots}` is none of them (did you mean `{host}`?)
c.yaml:9:44: routes[5].redirect.to: found "/a\r\nb"; allowed: visible ASCII and spaces within, but no line ends
c.yaml:9:57: routes[5].cache: has no meaning without `upstream`
c.yaml:9:74: routes[5].retry: has no meaning without `upstream`
c.yaml:10:47: routes[6].respond.status: found 199; allowed: a whole number from 200 to 599
c.yaml:10:58: routes[6].respond.body: found a list; allowed: text that is not empty
c.yaml:10:68: routes[6].respond.type: found "text"; allowed: a media type, like `text/plain; charset=utf-8`
c.yaml:11:52: routes[7].respond.body: an answer with the status 204 has no body"#;
    assert_eq!(told(text), problems);
}

#[test]
fn paths_are_prefixes_of_whole_segments() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - { upstream: app, match: { path: api } }
  - { upstream: app, match: { path: /api/ } }
  - { upstream: app, match: { path: '/a?b' } }
  - { upstream: app, match: { path: /a/../b } }
  - { upstream: app, match: { path: '/%7eu/%2f' } }
  - { upstream: app, match: { path: '/100%' } }
";
    let problems = r#"c.yaml:3:37: routes[0].match.path: found "api"; allowed: a path that begins with `/`, without `?`, `#` and spaces
c.yaml:4:37: routes[1].match.path: found "/api/"; allowed: `/api`, which also matches everything below it
c.yaml:5:37: routes[2].match.path: found "/a?b"; allowed: a path that begins with `/`, without `?`, `#` and spaces
c.yaml:6:37: routes[3].match.path: found "/a/../b"; allowed: a path without empty, `.` and `..` segments
c.yaml:7:37: routes[4].match.path: found "/%7eu/%2f"; allowed: `/~u/%2F`, which is how requests are compared
c.yaml:8:37: routes[5].match.path: found "/100%"; allowed: a path whose escapes are valid"#;
    assert_eq!(told(text), problems);
}

#[test]
fn hosts_have_no_port_and_methods_are_upper_case() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - { upstream: app, match: { host: 'example.com:80', methods: get } }
  - { upstream: app, match: { host: ['*', 'www.*'], methods: ['GE T'] } }
  - { upstream: app, match: { host: [], headers: {} } }
";
    let problems = r#"c.yaml:3:37: routes[0].match.host: found "example.com:80"; allowed: a host name without a port, like `www.example.com` or `*.example.net`
c.yaml:3:64: routes[0].match.methods: found "get"; allowed: methods in upper case, like `GET`
c.yaml:4:38: routes[1].match.host[0]: found "*"; allowed: a name; leave `host` out to match every host
c.yaml:4:43: routes[1].match.host[1]: found "www.*"; allowed: a host name without a port, like `www.example.com` or `*.example.net`
c.yaml:4:63: routes[1].match.methods[0]: found "GE T"; allowed: a method, like `GET`
c.yaml:5:37: routes[2].match.host: found an empty list; leave it out to match all
c.yaml:5:41: routes[2].match.headers: not supported by this build yet"#;
    assert_eq!(told(text), problems);
}

#[test]
fn two_routes_that_match_the_same_are_both_named() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - { name: first, upstream: app, match: { host: [a.example, b.example], methods: [GET, HEAD] } }
  - { name: second, upstream: app, match: { host: B.example, methods: [HEAD, GET] } }
  - { upstream: app }
  - { upstream: app, match: { path: / } }
";
    let problems = "c.yaml:4:5: routes[1]: route `second` matches the same host, path and methods as route `first` (`routes[0]`), so it would never be used
c.yaml:6:5: routes[3]: route `*/` matches the same host, path and methods as route `*/` (`routes[2]`), so it would never be used";
    assert_eq!(told(text), problems);
}

#[test]
fn no_route_name_is_there_twice() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - { name: site, upstream: app }
  - { name: site, upstream: app, match: { path: /x } }
  - { name: 'a b', upstream: app, match: { path: /y } }
";
    let problems = r#"c.yaml:4:5: routes[1]: the name `site` is taken by `routes[0]` already
c.yaml:5:13: routes[2].name: found "a b"; allowed: a name of 1 to 100 letters, digits, `_` `-` `.` `/` `*`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn caches_have_limits_and_names() {
    let text = "caches:
  main: { memory: 1KiB }
  big: { max_object: 1GiB }
  old: { disk: {}, memory: 64M }
  one: { disk: { path: /var/cache/a, size: 1GiB, max_object: 513MiB } }
  two: { disk: { path: /var/cache/a, size: 1MiB } }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app, cache: { store: mian } }]
";
    let problems = r#"c.yaml:2:19: caches.main.memory: found "1KiB"; allowed: 1MiB to 16TiB
c.yaml:3:22: caches.big.max_object: found "1GiB"; allowed: at most the `memory` of the cache
c.yaml:4:10: caches.old.disk: `path` is missing
c.yaml:4:10: caches.old.disk: `size` is missing
c.yaml:4:28: caches.old.memory: found "64M"; allowed: a size, like `64KiB` or `10MB`
c.yaml:5:62: caches.one.disk.max_object: found "513MiB"; allowed: at most half of `size`
c.yaml:6:24: caches.two.disk.path: another cache has this directory
c.yaml:6:44: caches.two.disk.size: found "1MiB"; allowed: 16MiB to 1024TiB
c.yaml:8:43: routes[0].cache.store: found "mian" (did you mean `main`?); allowed: main, big, old, one, two"#;
    assert_eq!(told(text), problems);
}

#[test]
fn without_a_main_store_the_store_is_needed() {
    let text = "caches: { pages: {} }
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app, cache: fallback }]
";
    let problems =
        "c.yaml:3:27: routes[0].cache: `store` is missing, and no cache is called `main`; allowed: pages";
    assert_eq!(told(text), problems);
}

#[test]
fn a_cache_policy_is_checked_word_by_word() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - { upstream: app, cache: on }
  - upstream: app
    match: { path: /a }
    cache: { mode: fallback, use_stale: [error, updating], ttl: { 2xx: 1m, 404: 60, 100: 1s }, key: { query: some } }
  - upstream: app
    match: { path: /b }
    cache: { last_good: 'yes', cookies: { ignore: ['a=b'] }, bypass: { headers: ['x y'] }, stale_for: 2y }
";
    let problems = r#"c.yaml:3:29: routes[0].cache: found "on"; allowed: standard, fallback, off
c.yaml:6:49: routes[1].cache.use_stale[1]: `updating` has no meaning in `mode: fallback`: leave it out
c.yaml:6:67: routes[1].cache.ttl.2xx: the key is no status; allowed: a status from 200 to 599
c.yaml:6:81: routes[1].cache.ttl.404: found 60; allowed: a duration with a unit, like `60s`
c.yaml:6:85: routes[1].cache.ttl.100: the key is no status; allowed: a status from 200 to 599
c.yaml:6:110: routes[1].cache.key.query: found "some"; allowed: all, none, sorted
c.yaml:9:25: routes[2].cache.last_good: found "yes"; allowed: true, false
c.yaml:9:52: routes[2].cache.cookies.ignore[0]: found "a=b"; allowed: a cookie's name of letters, digits, `-`, `.` and `_`, or how names begin, like `_ga*`
c.yaml:9:82: routes[2].cache.bypass.headers[0]: found "x y"; allowed: a header's name, like `x-preview`
c.yaml:9:103: routes[2].cache.stale_for: found "2y"; allowed: a duration, like `500ms`, `30s` or `1h30m`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_cache_key_is_checked_word_by_word() {
    let one = |cache: &str| {
        told(&format!("upstreams: {{ a: ['a:1'] }}\nroutes: [{{ upstream: a, cache: {{ {cache} }} }}]\n"))
    };
    let good = "key: { query: { only: [page, 'f_*'] }, headers: [X-A], cookies: [lang] }, heuristic: 10%";
    assert_eq!(one(good), "nothing");
    for (cache, problem) in [
        (
            "heuristic: 0%",
            "2:45: routes[0].cache.heuristic: found \"0%\"; allowed: off, or a share from 1% to 100%",
        ),
        (
            "heuristic: yes",
            "2:45: routes[0].cache.heuristic: found \"yes\"; allowed: off, or a share from 1% to 100%",
        ),
        (
            "key: { query: { only: [a], without: [b] } }",
            "2:48: routes[0].cache.key.query: has one of `only` and `without`",
        ),
        (
            "key: { query: { only: ['a[]'] } }",
            "2:57: routes[0].cache.key.query.only[0]: found \"a[]\"; allowed: the name of a parameter, or how names begin, like `utm_*`",
        ),
        (
            "key: { cookies: ['a*'] }",
            "2:51: routes[0].cache.key.cookies[0]: found \"a*\"; allowed: a cookie's name, like `lang`",
        ),
    ] {
        assert_eq!(one(cache), format!("c.yaml:{problem}"), "{cache}");
    }
}

#[test]
fn variables_are_set_or_have_a_default() {
    let text = "upstreams:
  app: ['${NO_SUCH_HOST}:80']
server: { threads: '${WORDS}', upstream_keepalive: '${EMPTY}' }
limits: { max_headers: '${OPEN' }
routes: [{ upstream: app }]
";
    let problems = r#"c.yaml:2:9: upstreams.app[0]: the environment variable `NO_SUCH_HOST` is not set and has no default
c.yaml:3:20: server.threads: found "many" (from `${WORDS}`); allowed: auto, or a whole number from 1 to 1024
c.yaml:3:52: server.upstream_keepalive: found "" (from `${EMPTY}`); allowed: auto, or a whole number from 1 to 65536
c.yaml:4:24: limits.max_headers: `${` without its `}`; write `$${` for a literal `${`"#;
    assert_eq!(told(text), problems);
}

#[test]
fn problems_of_defaults_are_told_once() {
    let text = "defaults:
  upstream: { timeouts: { first_byte: 20 }, backends: [] }
  route: { timeout: never, match: {}, max_fails: 1 }
upstreams: { a: ['a:1'], b: ['b:1'] }
routes: [{ upstream: a }, { upstream: b, match: { path: /b } }]
";
    let problems = r#"c.yaml:2:39: defaults.upstream.timeouts.first_byte: found 20; allowed: a duration with a unit, like `20s`
c.yaml:2:45: defaults.upstream.backends: not allowed in `defaults`: it belongs to each one alone
c.yaml:3:21: defaults.route.timeout: found "never"; allowed: a duration, like `500ms`, `30s` or `1h30m`
c.yaml:3:28: defaults.route.match: not allowed in `defaults`: it belongs to each one alone
c.yaml:3:39: defaults.route.max_fails: unknown key; allowed: name, match, upstream, split, mirror, redirect, respond, timeout, retry, cache, max_body_bytes, errors, pass_headers, method_override, merge_slashes, rewrite, request_headers, response_headers, allow, deny, rate_limit, basic_auth, maintenance"#;
    assert_eq!(told(text), problems);
}

#[test]
fn problems_of_aliased_text_are_told_once() {
    let text = "x-check: &check { tcp: {}, rise: 0 }
upstreams:
  a: { backends: ['a:1'], health_check: *check }
  b: { backends: ['b:1'], health_check: { <<: *check, fall: 0 } }
  c: { <<: [*check, 3], backends: ['c:1'] }
routes: [{ upstream: a }]
";
    let problems = format!(
        r#"c.yaml:1:19: upstreams.c.tcp: unknown key; allowed: {UPSTREAM}
c.yaml:1:28: upstreams.c.rise: unknown key; allowed: {UPSTREAM}
c.yaml:1:34: upstreams.a.health_check.rise: found 0; allowed: a whole number from 1 to 1000
c.yaml:4:61: upstreams.b.health_check.fall: found 0; allowed: a whole number from 1 to 1000
c.yaml:5:21: upstreams.c."<<": found 3; allowed: a map or a list of maps"#
    );
    assert_eq!(told(text), problems);
}

#[test]
fn traces_need_a_collector() {
    let rest = "upstreams: { app: ['10.0.0.1:80'] }\nroutes: [{ upstream: app }]\n";
    let one = |value: &str| told(&format!("tracing: {value}\n{rest}"));
    assert_eq!(
        one("{ sample: 2, rate: 1 }"),
        "c.yaml:1:1: tracing: `otlp` is missing
c.yaml:1:20: tracing.sample: found 2; allowed: a number from 0.0 to 1.0, like `0.01`
c.yaml:1:23: tracing.rate: unknown key; allowed: otlp, sample"
    );
    for wrong in [
        "127.0.0.1:4318",
        "https://otel:4318",
        "http://",
        "http://otel/v1/traces",
        "http://me@otel",
        "http://otel:0",
        "http://otel:4318 ",
    ] {
        let allowed = "allowed: `http://host:port` without a path, like `http://127.0.0.1:4318`";
        assert!(one(&format!("{{ otlp: '{wrong}' }}")).ends_with(allowed), "{wrong}");
    }
    for good in ["http://127.0.0.1", "http://otel:1", "http://otel/", "http://[::1]:4318"] {
        assert_eq!(one(&format!("{{ otlp: '{good}' }}")), "nothing", "{good}");
    }
}
