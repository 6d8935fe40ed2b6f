//! Broken YAML, and what is no configuration at all: exactly what is said about it.

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

#[test]
fn an_empty_file_says_what_is_needed() {
    let text = "";
    let problems = "c.yaml: the file is empty; `upstreams` and `routes` are needed";
    assert_eq!(told(text), problems);
}

#[test]
fn comments_alone_are_an_empty_file() {
    let text = "# nothing
";
    let problems = "c.yaml: the file is empty; `upstreams` and `routes` are needed";
    assert_eq!(told(text), problems);
}

#[test]
fn a_list_is_no_configuration() {
    let text = "- a
- b
";
    let problems = "c.yaml:1:1: found a list; allowed: a map";
    assert_eq!(told(text), problems);
}

#[test]
fn a_text_is_no_configuration() {
    let text = "just text
";
    let problems = r#"c.yaml:1:1: found "just text"; allowed: a map"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_second_document_is_refused() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
---
routes: [{ upstream: app }]
";
    let problems = "c.yaml:3:1: a second document begins here; allowed: one document in a file";
    assert_eq!(told(text), problems);
}

#[test]
fn tabs_do_not_indent() {
    let text = "upstreams:\n\tapp: ['10.0.0.1:80']\n";
    let problems = "c.yaml:2:2: upstreams: not valid YAML: tabs disallowed within this context (block indentation); indent with spaces";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unclosed_list_is_found() {
    let text = "upstreams: { app: ['10.0.0.1:80' }
";
    let problems = "c.yaml:1:34: upstreams.app[1]: not valid YAML: while parsing a flow sequence, expected ',' or ']'; is the `[` of line 1, column 19 closed?";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unclosed_quote_is_found() {
    let text = r#"upstreams: { app: ["10.0.0.1:80] }
"#;
    let problems = "c.yaml:1:20: upstreams.app[0]: not valid YAML: while scanning a quoted scalar, found unexpected end of stream; close the quote that begins here";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unquoted_ipv6_address_is_a_list_to_yaml() {
    let text = "listeners:
  - address: [::]:8080
upstreams: { app: ['10.0.0.1:80'] }
routes: [{ upstream: app }]
";
    let problems = "c.yaml:2:18: listeners[0]: not valid YAML: while parsing a block mapping, did not find expected key; quote an IPv6 address: `\"[::]:8080\"`";
    assert_eq!(told(text), problems);
}

#[test]
fn duplicate_keys_are_all_found() {
    let text = "upstreams:
  app: ['10.0.0.1:80']
  app: ['10.0.0.2:80']
routes:
  - upstream: app
    timeout: 1s
    timeout: 2s
";
    let problems = "c.yaml:3:3: upstreams.app: the key is there twice
c.yaml:7:5: routes[0].timeout: the key is there twice";
    assert_eq!(told(text), problems);
}

#[test]
fn tags_are_refused() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes: !!seq [{ upstream: app }]
";
    let problems = "c.yaml:2:9: routes: the tag `tag:yaml.org,2002:!seq` is not supported";
    assert_eq!(told(text), problems);
}

#[test]
fn an_unknown_anchor_is_refused() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes: *routes
";
    let problems = "c.yaml:2:9: routes: not valid YAML: while parsing node, found unknown anchor";
    assert_eq!(told(text), problems);
}

#[test]
fn keys_are_text() {
    let text = "? [a, b]
: c
";
    let problems = "c.yaml:1:3: a list or map as a key; allowed: text as a key";
    assert_eq!(told(text), problems);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_not_shift_positions() {
    let text = "\u{feff}upstreams:\r\n  app: ['10.0.0.1:80']\r\n  wep: [x]\r\nroutes:\r\n  - upstream: app\r\n    timeot: 3s\r\n";
    let problems = r#"c.yaml:3:9: upstreams.wep[0]: found "x"; allowed: a port behind the name, like `name:8080`
c.yaml:6:5: routes[0].timeot: unknown key, did you mean `timeout`?"#;
    assert_eq!(told(text), problems);
}

#[test]
fn a_wildcard_without_quotes_is_told_how_to_be_quoted() {
    let text = "upstreams: { app: ['10.0.0.1:80'] }
routes:
  - match: { host: *.example.com }
    upstream: app
";
    let said = told(text);
    assert!(said.contains("quote what begins with `*`: `\"*.example.com\"`"), "{said}");
}

#[test]
fn a_configuration_of_another_proxy_is_named() {
    let nginx = "server {\n  listen 80;\n  location / { proxy_pass http://app; }\n}\n";
    assert!(told(nginx).contains("this is a configuration of nginx"), "{}", told(nginx));
    let haproxy = "frontend web\n  bind :80\n  default_backend app\n";
    assert!(told(haproxy).contains("this is a configuration of HAProxy"), "{}", told(haproxy));
}
