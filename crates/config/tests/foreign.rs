//! Text that means something to other proxies is refused with our form, and what is meant is read all the same.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

/// What is said about a text: one line for each problem.
fn told(text: &str) -> String {
    goodgate_config::parse("c.yaml", text, &|_| None)
        .map_or_else(|problems| problems.to_string(), |_| "nothing".to_owned())
}

fn warned(text: &str) -> String {
    let loaded = goodgate_config::load_text("c.yaml", text, &|_| None).unwrap();
    loaded.warnings.iter().map(|warning| warning.to_string() + "\n").collect()
}

/// What is said about a route with these settings.
fn route(settings: &str) -> String {
    told(&format!(
        "upstreams: {{ app: ['10.0.0.1:80', '10.0.0.2:80'] }}\nroutes: [{{ upstream: app, {settings} }}]\n"
    ))
}

#[test]
fn patterns_in_paths_are_refused_with_the_prefix_that_is_meant() {
    for (path, ours) in [
        ("/api/*", "allowed: `/api`, which also matches everything below it"),
        ("/img/*.png", "like `/img`"),
        ("/api/:id", "like `/api`"),
        ("/a$", "patterns and captures do not exist"),
        ("/a|/b", "patterns and captures do not exist"),
    ] {
        let said = route(&format!("match: {{ path: '{path}' }}"));
        assert!(said.contains("routes[0].match.path: found") && said.contains(ours), "{path}: {said}");
    }
    for path in ["/api", "/$metadata", "/v1/models:predict", "/c++", "/~me/x(1)"] {
        assert_eq!(route(&format!("match: {{ path: '{path}' }}")), "nothing", "{path}");
    }
}

#[test]
fn variables_of_others_are_refused_where_ours_are_meant() {
    for value in ["$remote_addr", "{http.host}", "{1}", "%{REMOTE_ADDR}", "%[src]"] {
        for rules in ["request_headers", "response_headers"] {
            let said = route(&format!("{rules}: {{ set: {{ X-A: '{value}' }} }}"));
            assert!(said.contains("which other proxies replace"), "{value}: {said}");
        }
    }
    let text =
        "upstreams: { app: ['10.0.0.1:80'] }\nroutes: [{ redirect: { to: 'https://$host$request_uri' } }]\n";
    assert!(told(text).contains("`{host}` here"), "{}", told(text));
    assert_eq!(route("request_headers: { set: { X-A: 'a$b {} 100% {\"a\":1}' } }"), "nothing");
}

#[test]
fn patterns_of_names_have_a_meaning_or_are_refused() {
    for list in [
        "pass_headers: [x-amz-meta-*]",
        "cache: { key: { headers: [x-amz-meta-*] } }",
        "cache: { bypass: { headers: [x-amz-meta-*] } }",
        "cache: { key: { cookies: [lang*] } }",
        "request_headers: { remove: ['x-*-y'] }",
        "request_headers: { set: { 'x-*': a } }",
        "rate_limit: { rate: 1/s, per: 'header:x-*' }",
    ] {
        assert_ne!(route(list), "nothing", "{list}");
    }
    for list in [
        "request_headers: { remove: [x-amz-meta-*] }",
        "response_headers: { remove: [x-amz-meta-*] }",
        "cache: { key: { query: { without: [utm_*] } }, cookies: { ignore: [_ga*] } }",
    ] {
        assert_eq!(route(list), "nothing", "{list}");
    }
}

#[test]
fn keys_of_others_lead_to_ours() {
    for (text, ours) in [
        ("server: { listen: 80, server_name: a }", "`match: { host: www.example.com }`"),
        ("http: {}", "`listeners`, `upstreams` and `routes` stand at the top"),
        ("routes: [{ location: / }]", "`match: { path: /api }`"),
        ("routes: [{ proxy_pass: 'http://a' }]", "`upstream: NAME`"),
        ("routes: [{ reverse_proxy: 'a:80' }]", "`upstream: NAME`"),
        ("upstreams: { a: { lb_policy: ROUND_ROBIN, backends: ['a:1'] } }", "`balance: round_robin`"),
        ("upstreams: { a: { loadBalancer: {}, backends: ['a:1'] } }", "`upstreams: { NAME: { backends:"),
        ("upstreams: { a: { backends: ['server 10.0.0.1:80 max_fails=3'] } }", "`10.0.0.1:80`"),
        ("upstreams: { a: { balance: ip_hash, backends: ['a:1'] } }", "`hash_on: client_ip`"),
        ("upstreams: { a: option httpchk }", "`health_check: {"),
        ("upstreams: { a: balance roundrobin }", "`balance: value`"),
        ("listeners: [listen 80]", "`{ address: \"0.0.0.0:80\" }`"),
        ("routes: [{ gzip: on }]", "backends compress"),
        ("clusters: []", "`upstreams: { NAME: { backends:"),
    ] {
        assert!(told(text).contains(ours), "{text}: {}", told(text));
    }
}

#[test]
fn a_misspelt_key_hides_nothing_below_it() {
    let text = "upsteams: { web: { max_fial: 1, backends: ['10.0.0.1'] } }\nroutes: [{ upstream: web }]\n";
    let said = told(text);
    for part in ["upsteams: unknown key, did you mean `upstreams`?", "max_fial", "backends[0]: found"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("`upstreams` is missing") && !said.contains("routes[0].upstream"), "{said}");
}

#[test]
fn places_and_forms_of_usual_mistakes() {
    for (text, expected) in [
        (
            "upstreams: { web: { sticky: true, backends: ['a:1'] } }",
            "c.yaml:1:29: upstreams.web.sticky: found true; allowed: a map",
        ),
        (
            "upstreams: { web: { tls: true, backends: ['a:1'] } }",
            "c.yaml:1:26: upstreams.web.tls: found true; allowed: a map",
        ),
        (
            "listeners: [{ tls: true, address: '0.0.0.0:443' }]\nupstreams: { web: ['a:1'] }",
            "c.yaml:1:20: listeners[0].tls: found true; allowed: a map",
        ),
        ("listeners: [{ address: '::1:8080' }]\nupstreams: { web: ['a:1'] }", "like `[::1]:8080`"),
        ("upstreams: { web: ['::1:8080'] }", "like `[::1]:8080`"),
        ("upstreams: { none: ['a:1'] }", "upstreams.none: the name of an upstream; allowed: another name"),
    ] {
        let said = told(&format!("{text}\nroutes: [{{ upstream: web }}]\n"));
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains("is missing"), "{text}: {said}");
    }
    assert!(route("name: none").contains("routes[0].name: found \"none\"; allowed: another name"));
}

#[test]
fn each_warning_has_its_place() {
    let two = "['10.0.0.1:80', '10.0.0.2:80']";
    for (text, warning) in [
        (format!("upstreams: {{ a: {two}, b: {two} }}\nroutes: [{{ upstream: a }}]\n"), "upstreams.b: warning: no route uses"),
        ("upstreams: { a: ['10.0.0.1:80'] }\nroutes: [{ upstream: a }]\n".to_owned(), "upstreams.a: warning: one backend and no cache"),
        (
            format!("listeners: [{{ address: '0.0.0.0:80', redirect_to_https: true }}]\nupstreams: {{ a: {two} }}\nroutes: [{{ upstream: a }}]\n"),
            "listeners[0]: warning: `redirect_to_https` without a listener",
        ),
        (
            "listeners: [{ address: '0.0.0.0:80' }]\nupstreams: { a: ['127.0.0.1:80', '10.0.0.1:80'] }\nroutes: [{ upstream: a }]\n".to_owned(),
            "the backend 127.0.0.1:80 is the listener 0.0.0.0:80",
        ),
        (
            format!("listeners: [{{ address: '0.0.0.0:80' }}, {{ address: '127.0.0.1:80' }}]\nupstreams: {{ a: {two} }}\nroutes: [{{ upstream: a }}]\n"),
            "listeners[1]: warning: 127.0.0.1:80 and 0.0.0.0:80 of `listeners[0]` overlap",
        ),
        (
            format!("upstreams: {{ a: {{ tls: {{ verify: off }}, backends: {two} }} }}\nroutes: [{{ upstream: a }}]\n"),
            "upstreams.a: warning: `tls.verify: off`",
        ),
        (
            format!("upstreams: {{ a: {two} }}\nroutes: [{{ upstream: a, timeout: 5s }}]\n"),
            "routes[0]: warning: a retry after a timeout cannot fit",
        ),
        (
            format!("trusted_proxies: [10.0.0.0/8]\nlimits: {{ keepalive_timeout: 15s }}\nupstreams: {{ a: {two} }}\nroutes: [{{ upstream: a }}]\n"),
            "limits.keepalive_timeout: warning: idle connections end before",
        ),
    ] {
        let said = warned(&text);
        assert!(said.contains(warning) && said.lines().count() == 1, "{text}: {said}");
    }
    let quiet = format!("upstreams: {{ a: {two} }}\nroutes: [{{ upstream: a }}]\n");
    assert_eq!(warned(&quiet), "");
}
