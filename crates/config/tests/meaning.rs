//! What good files mean.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use goodgate_cache::{Mode, NamePattern, PersonalCookies};
use goodgate_config::{
    AccessLog, Action, Config, FieldValue, HostPattern, LogFormat, LogMask, LogTarget, Maintenance, Problems,
    RateLimit, RouteSpec, Tracing, load, parse,
};
use goodgate_failure::Word;
use goodgate_upstream::{BackendAddress, BreakerPolicy, DnsPolicy, Family, HostHeader, ProbeKind};

fn read(text: &str) -> Result<Config, Problems> {
    parse("/etc/goodgate/goodgate.yaml", text, &|name| (name == "PORT").then(|| "8081".to_owned()))
}

#[test]
fn the_smallest_file_has_all_defaults() {
    let config = read(
        "
upstreams:
  app: [10.0.0.11:8080, 10.0.0.12:8080]
routes:
  - upstream: app
    cache: fallback
",
    )
    .unwrap();
    assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9180");
    assert!(config.admin.token.is_none() && config.server.threads.is_none());
    assert_eq!(config.access_log.target, LogTarget::Stdout);
    assert_eq!((config.access_log.format, config.access_log.sample_ok), (LogFormat::Json, 1.0));
    assert_eq!(config.access_log.mask.query, goodgate_config::defaults::MASK_QUERY);
    assert!(!config.access_log.mask.cuts_client);
    assert_eq!(config.stores[0].name, "main");
    let app = &config.upstreams[0];
    assert_eq!((app.name.as_str(), app.backends.len(), app.probe.is_none()), ("app", 2, true));
    let ejection = app.backends[0].ejection;
    assert_eq!((ejection.max_fails, ejection.fail_timeout), (3, Duration::from_secs(10)));
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.path.as_str(), route.action.upstream()), ("*/", "/", Some(0)));
    let cache = route.cache.as_ref().unwrap();
    assert_eq!((cache.mode, cache.last_good, cache.store), (Mode::Fallback, true, 0));
    assert!(cache.use_stale.contains(Word::Http502) && !cache.use_stale.contains(Word::Updating));
}

#[test]
fn without_a_cache_there_is_no_store() {
    let config = read("upstreams: { a: ['a:1'] }\nroutes: [{ upstream: a }]\n").unwrap();
    assert!(config.stores.is_empty());
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let config = read(
        "
server: { threads: 2, shutdown: { delay: 1m30s, drain: 0 }, upstream_keepalive: 9, resolver: [9.9.9.9, '[::1]:54'] }
listeners: [{ address: '[::]:8443' }, { address: '127.0.0.1:0' }, { address: '127.0.0.1:0' }]
limits: { max_header_bytes: 4KiB, max_body_bytes: 10MB }
trusted_proxies: [10.1.2.3/8, 192.168.0.1]
upstreams:
  app:
    host: App.internal
    max_fails: 0
    backends:
      - { address: 'http://App', weight: 3, max_fails: 2, backup: true }
      - '[::1]:81'
    health_check: { http: { path: '/up?x', host: app, expect_status: [204, '300-308'] }, port: 82 }
caches: { small: { memory: 1MiB } }
routes:
  - match: { host: [WWW.Example.com, '*.Example.net'], path: /api, methods: [GET, PURGE] }
    upstream: app
    cache: { store: small, ttl: { 200: 10m, '404': 0 }, cookies: { ignore: [_ga*, id] }, bypass: { headers: [X-Preview] } }
  - { name: rest, match: { host: www.example.com, methods: POST }, upstream: app, max_body_bytes: 1KiB }
",
    )
    .unwrap();
    assert_eq!(config.server.threads.unwrap().get(), 2);
    assert_eq!(config.server.shutdown_delay, Duration::from_secs(90));
    assert_eq!(
        config.server.resolvers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["9.9.9.9:53", "[::1]:54"]
    );
    assert_eq!(config.listeners.len(), 3);
    assert_eq!((config.limits.header_bytes_max, config.limits.uri_bytes_max), (4096, 4096));
    let is_trusted = |ip: &str| config.trusted_proxies.contains(ip.parse().unwrap());
    assert!(is_trusted("10.0.0.0") && is_trusted("10.255.255.255") && is_trusted("192.168.0.1"));
    assert!(!is_trusted("11.0.0.0") && !is_trusted("192.168.0.0") && !is_trusted("::1"));

    let app = &config.upstreams[0];
    assert_eq!(app.host, HostHeader::Name("app.internal".to_owned()));
    assert_eq!(app.backends[0].address, BackendAddress::Name { host: "app".to_owned(), port: 80 });
    assert_eq!((app.backends[0].weight.get(), app.backends[0].ejection.max_fails), (3, 2));
    assert!(app.backends[0].backup && app.backends[1].ejection.max_fails == 0);
    let ProbeKind::Http(http) = &app.probe.as_ref().unwrap().kind else {
        panic!("an HTTP probe is expected");
    };
    assert_eq!((http.path.as_str(), http.expect_status.as_slice()), ("/up?x", &[204..=204, 300..=308][..]));

    let [api, rest] = config.routes.as_slice() else { panic!("two routes are expected") };
    assert_eq!(api.name, "www.example.com/api GET,PURGE");
    assert_eq!(api.hosts[1], HostPattern::Wildcard(".example.net".to_owned()));
    assert_eq!((api.body_bytes_max, rest.body_bytes_max), (10_000_000, 1024));
    let cache = api.cache.as_ref().unwrap();
    assert_eq!(cache.ttl, [(200, Duration::from_mins(10)), (404, Duration::ZERO)]);
    assert_eq!(
        cache.personal_cookies,
        PersonalCookies::AllBut(vec![
            NamePattern::Prefix("_ga".to_owned()),
            NamePattern::Exact("id".to_owned())
        ])
    );
    assert_eq!(cache.bypass_headers, ["x-preview"]);
    assert_eq!(config.stores[0].object_bytes_max, 1 << 20);
    assert_eq!(rest.methods, [http::Method::POST]);
}

#[test]
fn every_setting_about_names_arrives() {
    let text = "upstreams:
  app:
    dns: { resolver: ['127.0.0.1:5353'], search: [App.Internal.], family: ipv6_first, ttl_min: 2s, ttl_max: 2s, keep: 0 }
    backends: ['srv:_http._tcp.App.internal', { address: 'srv:other.', backup: true }]
    tls: {}
routes: [{ upstream: app }]
";
    let config = read(text).unwrap();
    let app = &config.upstreams[0];
    let second = Duration::from_secs;
    let dns = DnsPolicy {
        servers: vec!["127.0.0.1:5353".parse().unwrap()],
        search: Some(vec!["app.internal".to_owned()]),
        family: Family::Ipv6First,
        ttl_min: second(2),
        ttl_max: second(2),
        keep: second(0),
    };
    assert_eq!(app.dns, dns);
    let service = |at: usize| app.backends[at].address.clone();
    assert_eq!(service(0), BackendAddress::Service("_http._tcp.app.internal".to_owned()));
    assert_eq!(service(1), BackendAddress::Service("other.".to_owned()), "the dot says that it is complete");
    assert_eq!(app.backends[0].tls_name.as_deref(), Some("app.internal"), "the records do not choose it");
}

#[test]
fn the_name_servers_of_the_process_are_those_of_upstreams_that_name_none() {
    let text = "server: { resolver: [9.9.9.9] }
defaults: { upstream: { dns: { keep: 1h } } }
upstreams: { a: ['a:1'], b: { backends: ['b:1'], dns: { resolver: [127.0.0.1] } } }
routes: [{ upstream: a }]
";
    let config = read(text).unwrap();
    let shown =
        |at: usize| config.upstreams[at].dns.servers.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!([shown(0), shown(1)], [["9.9.9.9:53"], ["127.0.0.1:53"]]);
    assert!(config.upstreams.iter().all(|upstream| upstream.dns.keep == Duration::from_hours(1)));
    let alone = read("upstreams: { a: ['a:1'] }\nroutes: [{ upstream: a }]\n").unwrap();
    assert_eq!(alone.upstreams[0].dns, goodgate_config::defaults::DNS);
}

#[test]
fn bodies_are_kept_as_far_as_a_route_says() {
    let config = read(
        "server: { spool: { path: /, size: 2GiB } }
upstreams: { a: ['10.0.0.1:80'] }
routes:
  - { upstream: a, retry: { max_body_bytes: 10MiB } }
  - { match: { path: /b }, upstream: a }
",
    )
    .unwrap();
    assert_eq!((config.server.spool.path.to_str(), config.server.spool.bytes_max), (Some("/"), 2 << 30));
    let kept: Vec<_> = config.routes.iter().map(|route| route.retry.body_bytes_max).collect();
    assert_eq!(kept, [10 << 20, 64 << 10]);
}

#[test]
fn a_breaker_is_there_when_it_is_written_and_has_its_defaults() {
    let config = read(
        "upstreams:
  a: ['10.0.0.1:80']
  b: { breaker: {}, backends: ['10.0.0.1:80'] }
  c: { breaker: { max_requests: 8, max_pending: 0, pending_timeout: 1s, ramp: 0 }, backends: ['10.0.0.1:80'] }
routes: [{ upstream: a }]
",
    )
    .unwrap();
    let breaker = |at: usize| config.upstreams[at].breaker;
    assert_eq!(breaker(0), None);
    let expected = |requests_max, pending_max, seconds, ramp| BreakerPolicy {
        requests_max: NonZeroU32::new(requests_max).unwrap(),
        pending_max,
        pending_timeout: Duration::from_secs(seconds),
        ramp: Duration::from_secs(ramp),
    };
    assert_eq!(breaker(1), Some(expected(1024, 256, 5, 10)));
    assert_eq!(breaker(2), Some(expected(8, 0, 1, 0)));
}

#[test]
fn defaults_lie_under_short_and_long_forms() {
    let config = read(
        "
defaults:
  upstream: { max_fails: 1, timeouts: { read: 5s, connect: 2s }, health_check: { http: { path: /health } } }
  route: { timeout: 30s, retry: { tries: 2, budget: 10% }, cache: fallback, upstream: a }
upstreams:
  a: ['a:1']
  b: { backends: ['b:1'], timeouts: { read: 7s }, health_check: { tcp: {} } }
routes:
  - { match: { path: /a } }
  - { match: { path: /b }, upstream: b, retry: { tries: 5 }, cache: off }
  - { match: { path: /c }, cache: { stale_for: 1h } }
",
    )
    .unwrap();
    let [a, b] = config.upstreams.as_slice() else { panic!("two upstreams are expected") };
    assert_eq!((a.timeouts.read, b.timeouts.read), (Duration::from_secs(5), Duration::from_secs(7)));
    assert_eq!((b.timeouts.connect, b.timeouts.write), (Duration::from_secs(2), Duration::from_mins(1)));
    assert_eq!((a.backends[0].ejection.max_fails, b.backends[0].ejection.max_fails), (1, 1));
    assert!(matches!(a.probe.as_ref().unwrap().kind, ProbeKind::Http(_)));
    assert_eq!(b.probe.as_ref().unwrap().kind, ProbeKind::Tcp);
    assert_eq!(
        config.routes.iter().filter_map(|route| route.action.upstream()).collect::<Vec<_>>(),
        [0, 1, 0]
    );
    assert_eq!(config.routes.iter().map(|route| route.retry.tries.get()).collect::<Vec<_>>(), [2, 5, 2]);
    assert!(config.routes.iter().all(|route| route.timeout == Duration::from_secs(30)));
    assert!(config.routes[0].cache.is_some() && config.routes[1].cache.is_none());
    let cache = config.routes[2].cache.as_ref().unwrap();
    assert_eq!((cache.mode, cache.stale_for), (Mode::Fallback, Duration::from_hours(1)));
}

#[test]
fn anchors_merges_and_variables_are_resolved() {
    let config = read(
        "
x-quick: &quick { connect: 100ms, read: 1s }
upstreams:
  a: &a { backends: ['127.0.0.1:${PORT}'], max_fails: '${FAILS:-7}', timeouts: { <<: *quick, read: 2s } }
  b: *a
routes: [{ upstream: a }]
",
    )
    .unwrap();
    for upstream in &config.upstreams {
        assert_eq!(upstream.backends[0].address.to_string(), "127.0.0.1:8081");
        assert_eq!(upstream.backends[0].ejection.max_fails, 7);
        assert_eq!(upstream.timeouts.connect, Duration::from_millis(100));
        assert_eq!(upstream.timeouts.read, Duration::from_secs(2));
    }
}

#[test]
fn a_token_is_read_beside_the_configuration_and_never_shown() {
    let folder = std::env::temp_dir().join(format!("goodgate-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("goodgate.yaml");
    std::fs::write(
        &file,
        "admin: { token_file: token }\nupstreams: { a: ['a:1'] }\nroutes: [{ upstream: a }]\n",
    )
    .unwrap();
    std::fs::write(folder.join("token"), "  s3cret\n").unwrap();
    let admin = load(&file).unwrap().config.admin;
    assert!(admin.token.as_ref().unwrap().matches(b"s3cret"));
    assert!(!format!("{admin:?}").contains("s3cret"));
    for bad in ["", " \n", "two words", "t\u{e9}"] {
        std::fs::write(folder.join("token"), bad).unwrap();
        let problems = load(&file).unwrap_err();
        assert_eq!(problems.iter().next().unwrap().path, "admin.token_file", "{bad:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_the_access_log_keeps_and_hides_is_read() {
    let config = read(
        "upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
access_log: { path: logs/access.json, format: text, sample_ok: 0.25, mask: { query: [Sid], client_ip: /24 } }
",
    )
    .unwrap();
    let target = LogTarget::File(PathBuf::from("/etc/goodgate/logs/access.json"));
    let mask = LogMask { query: vec!["Sid".to_owned()], cuts_client: true };
    let log = AccessLog { target, format: LogFormat::Text, sample_ok: 0.25, mask };
    assert_eq!(config.access_log, log);
}

#[test]
fn where_traces_go_and_how_many_is_read() {
    let with = |tracing: &str| {
        let text =
            format!("upstreams: {{ app: ['10.0.0.1:80'] }}\nroutes: [{{ upstream: app }}]\n{tracing}\n");
        read(&text).unwrap().tracing
    };
    assert_eq!(with(""), None);
    let otlp = "otel.internal:4318".to_owned();
    assert_eq!(
        with("tracing: { otlp: 'http://otel.internal' }"),
        Some(Tracing { otlp: otlp.clone(), sample: 0.01 })
    );
    assert_eq!(
        with("tracing: { otlp: 'http://otel.internal:4318/', sample: 1 }"),
        Some(Tracing { otlp, sample: 1.0 })
    );
}

#[test]
fn a_route_does_what_it_says_itself_and_else_what_defaults_say() {
    let config = read(
        "
upstreams: { app: ['a:1'], web: ['b:1'] }
defaults: { route: { upstream: web, request_headers: { set: { X-A: a, X-B: b } }, allow: [10.0.0.1] } }
routes:
  - { redirect: { to: 'https://{host}/' } }
  - { match: { path: /b }, respond: {} }
  - { match: { path: /c }, rewrite: { strip_prefix: /c } }
  - { match: { path: /d }, upstream: app, request_headers: { set: { x-a: c, X-C: '{path}' } }, allow: [] }
",
    )
    .unwrap();
    let [moved, text, rest, own] = config.routes.as_slice() else { panic!("four routes are expected") };
    let Action::Redirect(redirect) = &moved.action else { panic!("a redirect is expected") };
    assert_eq!(redirect.status, 301);
    assert!(matches!(redirect.to, FieldValue::Filled(_)));
    let Action::Respond(respond) = &text.action else { panic!("an answer is expected") };
    assert_eq!((respond.status.as_u16(), respond.body.as_str()), (200, ""));
    assert_eq!((rest.action.upstream(), own.action.upstream()), (Some(1), Some(0)));
    let rewrite = rest.rewrite.as_ref().unwrap();
    assert_eq!((rewrite.strip_prefix.as_str(), rewrite.add_prefix.as_str()), ("/c", ""));
    let names = |route: &RouteSpec| {
        let set = &route.request_headers.set;
        set.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(rest), names(own)),
        (vec!["x-a".into(), "x-b".into()], vec!["x-a".into(), "x-c".into(), "x-b".into()])
    );
    let constant = |value| FieldValue::Constant(http::HeaderValue::from_static(value));
    assert_eq!(own.request_headers.set[0].1, constant("c"), "its own value stands over the default");
    assert_eq!((rest.access.allow.is_empty(), own.access.allow.is_empty()), (false, true));
}

#[test]
fn a_rate_limit_has_a_burst_of_a_second_and_limits_of_the_route_come_last() {
    let text = "
defaults: { route: { rate_limit: { rate: 90/m, exempt: [10.1.2.3/8] } } }
upstreams: { a: ['a:1'] }
routes:
  - { upstream: a, rate_limit: { burst: 7 } }
  - { upstream: a, match: { path: /x }, rate_limit: [{ per: route, rate: 5/h }, { per: 'header:X-Key', rate: 20/s }] }
  - { upstream: a, match: { path: /y }, rate_limit: [] }
  - { match: { path: /z }, respond: {} }
";
    let config = read(text).unwrap();
    let shown = |route: &RouteSpec| -> Vec<String> {
        let show = |limit: &RateLimit| {
            format!(
                "{} {} {} {}",
                limit.per,
                limit.rate,
                limit.burst,
                limit.exempt.contains([10, 9, 9, 9].into())
            )
        };
        route.rate_limits.iter().map(show).collect()
    };
    let all: Vec<_> = config.routes.iter().map(shown).collect();
    assert_eq!(all[0], ["client_ip 90/m 7 true"], "merged over the defaults");
    assert_eq!(all[1], ["header:x-key 20/s 20 false", "route 5/h 1 false"]);
    assert!(all[2].is_empty());
    assert_eq!(all[3], ["client_ip 90/m 1 true"]);
}

#[test]
fn a_route_turns_the_maintenance_of_the_defaults_off_or_changes_it() {
    let text = "
defaults: { route: { maintenance: { retry_after: 1h, allow: [10.0.0.0/8] } } }
upstreams: { a: ['a:1'] }
routes:
  - { upstream: a }
  - { upstream: a, match: { path: /x }, maintenance: false }
  - { upstream: a, match: { path: /y }, maintenance: { use_stale: true } }
  - { upstream: a, match: { path: /z }, maintenance: true }
";
    let config = read(text).unwrap();
    let shown = |route: &RouteSpec| {
        let show = |it: &Maintenance| (it.retry_after.as_secs(), it.allow.is_empty(), it.use_stale);
        route.maintenance.as_ref().map(show)
    };
    let all: Vec<_> = config.routes.iter().map(shown).collect();
    assert_eq!(
        all,
        [Some((3600, false, false)), None, Some((3600, false, true)), Some((3600, false, false))]
    );
}
