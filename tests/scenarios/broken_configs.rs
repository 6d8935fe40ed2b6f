//! Broken configuration files and what is said about each: exit code 1 and exactly this text.

use crate::harness::failing_start;

/// Starts with the file; what is said, without the sentence before the problems.
fn told(text: &str) -> String {
    let (code, said) = failing_start(text);
    assert_eq!(code, 1, "{said}");
    let problems = said.strip_prefix("goodgate: the configuration is not good\n");
    problems.unwrap_or_else(|| panic!("{said}")).trim_end().to_owned()
}

/// A scenario for each file: name, file, problems.
macro_rules! broken {
    ($($name:ident: $file:expr, $problems:expr;)+) => {
        $(
            #[test]
            fn $name() {
                assert_eq!(told($file), $problems);
            }
        )+
    };
}

const REST: &str = "routes:\n  - upstream: web\n";

/// A good upstream and route after these lines.
macro_rules! before_a_good_rest {
    ($head:expr) => {
        concat!($head, "upstreams:\n  web: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n")
    };
}

broken! {
    a_misspelt_key_names_the_right_one:
        "upstreams:\n  web:\n    max_fail: 3\n    backends: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:5: upstreams.web.max_fail: unknown key, did you mean `max_fails`?";
    a_key_like_no_other_lists_those_there_are:
        before_a_good_rest!("access_log:\n  colour: red\n"),
        "goodgate.yaml:2:3: access_log.colour: unknown key; allowed: path, format, sample_ok, mask";
    a_duration_needs_a_unit:
        before_a_good_rest!("limits:\n  header_timeout: 10\n"),
        "goodgate.yaml:2:19: limits.header_timeout: found 10; allowed: a duration with a unit, like `10s`";
    a_size_has_limits:
        before_a_good_rest!("limits:\n  max_header_bytes: 2MiB\n"),
        "goodgate.yaml:2:21: limits.max_header_bytes: found \"2MiB\"; allowed: 1KiB to 1MiB";
    a_percentage_needs_its_sign:
        "upstreams:\n  web:\n    min_fail_share: 20\n    backends: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:21: upstreams.web.min_fail_share: found 20; allowed: a percentage from `0%` to `100%`";
    a_number_is_no_text:
        "upstreams:\n  web:\n    - { address: '10.0.0.1:80', weight: '3' }\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:41: upstreams.web[0].weight: found \"3\"; allowed: a whole number from 1 to 1000";
    yes_is_no_bool:
        "upstreams:\n  web:\n    - { address: '10.0.0.1:80', backup: yes }\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:41: upstreams.web[0].backup: found \"yes\"; allowed: true, false";
    a_list_is_no_map:
        before_a_good_rest!("server: []\n"),
        "goodgate.yaml:1:9: server: found a list; allowed: a map";
    an_address_needs_a_port:
        "upstreams:\n  web:\n    - 10.0.0.1\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:7: upstreams.web[0]: found \"10.0.0.1\"; allowed: a port behind the address, like `10.0.0.1:8080`";
    no_backend_twice:
        "upstreams:\n  web:\n    - 10.0.0.1:80\n    - 10.0.0.1:80\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:4:7: upstreams.web[1]: 10.0.0.1:80 is the same address as `upstreams.web[0]`";
    no_upstream_without_a_backend:
        "upstreams:\n  web: []\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:2:8: upstreams.web: found an empty list; allowed: at least one backend";
    an_upstream_that_is_not_there_names_the_nearest:
        "upstreams:\n  web: ['10.0.0.1:80']\n  api: ['10.0.0.2:80']\nroutes:\n  - upstream: wbe\n",
        "goodgate.yaml:5:15: routes[0].upstream: found \"wbe\" (did you mean `web`?); allowed: web, api";
    what_is_not_built_is_refused:
        "upstreams:\n  web:\n    http: auto\n    backends: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:5: upstreams.web.http: not supported by this build yet";
    a_word_of_a_closed_list:
        "upstreams:\n  web: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n    retry: { replay: sometimes }\n",
        "goodgate.yaml:5:22: routes[0].retry.replay: found \"sometimes\"; allowed: none, safe, idempotent, all";
    updating_means_nothing_in_fallback:
        "upstreams:\n  web: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n    cache: { mode: fallback, use_stale: [error, updating] }\n",
        "goodgate.yaml:5:49: routes[0].cache.use_stale[1]: `updating` has no meaning in `mode: fallback`: leave it out";
    a_health_check_asks_something:
        "upstreams:\n  web:\n    health_check: { interval: 5s }\n    backends: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:5: upstreams.web.health_check: one of `http` and `tcp` is missing, like `http: { path: /health }`";
    a_path_is_a_prefix_of_whole_segments:
        "upstreams:\n  web: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n    match: { path: /api/ }\n",
        "goodgate.yaml:5:20: routes[0].match.path: found \"/api/\"; allowed: `/api`, which also matches everything below it";
    no_two_routes_for_the_same_requests:
        "upstreams:\n  web: ['10.0.0.1:80']\nroutes:\n  - upstream: web\n  - upstream: web\n",
        "goodgate.yaml:5:5: routes[1]: route `*/` matches the same host, path and methods as route `*/` (`routes[0]`), so it would never be used";
    an_unset_variable_is_named:
        "upstreams:\n  web: ['${GOODGATE_NO_SUCH_VARIABLE}:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:2:9: upstreams.web[0]: the environment variable `GOODGATE_NO_SUCH_VARIABLE` is not set and has no default";
    a_key_without_a_value:
        before_a_good_rest!("listeners:\n"),
        "goodgate.yaml:1:1: listeners: has no value; give it one or leave the key out";
    the_token_file_is_read:
        before_a_good_rest!("admin: { token_file: /no/such/token }\n"),
        "goodgate.yaml:1:22: admin.token_file: /no/such/token cannot be read: No such file or directory (os error 2)";
    an_address_is_listened_on_once:
        before_a_good_rest!("listeners:\n  - address: 127.0.0.1:8080\n  - address: 127.0.0.1:8080\n"),
        "goodgate.yaml:3:14: listeners[1].address: 127.0.0.1:8080 is taken by `listeners[0].address` already";
    nothing_at_all:
        "server: {}\n",
        "goodgate.yaml:1:1: `upstreams` is missing\ngoodgate.yaml:1:1: `routes` is missing";
    text_that_is_no_yaml:
        "upstreams: [\n",
        "goodgate.yaml:2:1: upstreams[0]: not valid YAML: while parsing a node, did not find expected node content; is the `[` of line 1, column 12 closed?";
    a_key_twice:
        "upstreams:\n  web: ['10.0.0.1:80']\n  web: ['10.0.0.2:80']\nroutes:\n  - upstream: web\n",
        "goodgate.yaml:3:3: upstreams.web: the key is there twice";
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = format!(
        "server: {{ threads: 0 }}\nupstreams:\n  web:\n    fail_timeout: 10\n    backends: ['10.0.0.1']\n{REST}    timeout: never\n"
    );
    let problems = "goodgate.yaml:1:20: server.threads: found 0; allowed: auto, or a whole number from 1 to 1024\n\
                    goodgate.yaml:4:19: upstreams.web.fail_timeout: found 10; allowed: a duration with a unit, like `10s`\n\
                    goodgate.yaml:5:16: upstreams.web.backends[0]: found \"10.0.0.1\"; allowed: a port behind the address, like `10.0.0.1:8080`\n\
                    goodgate.yaml:8:14: routes[0].timeout: found \"never\"; allowed: a duration, like `500ms`, `30s` or `1h30m`";
    assert_eq!(told(&text), problems);
}
