//! Syntax of other proxies. Text that means something to nginx, HAProxy, Envoy, Traefik or Caddy and nothing here is
//! refused with our form of it, never taken literally.

mod words;

use crate::foreign::words::WORDS;

/// Variables of nginx and Apache by their names or by how these begin.
const VARIABLES: [&str; 26] = [
    "host",
    "hostname",
    "scheme",
    "https",
    "uri",
    "args",
    "query_string",
    "is_args",
    "document_uri",
    "document_root",
    "content_type",
    "content_length",
    "binary_remote_addr",
    "realip_remote_addr",
    "time_local",
    "time_iso8601",
    "msec",
    "status",
    "body_bytes_sent",
    "bytes_sent",
    "connection",
    "nginx_version",
    "pid",
    "limit_rate",
    "invalid_referer",
    "uid_got",
];
const VARIABLE_PREFIXES: [&str; 14] = [
    "http_",
    "cookie_",
    "arg_",
    "sent_http_",
    "upstream_",
    "ssl_",
    "proxy_",
    "request",
    "server_",
    "remote_",
    "geoip",
    "tcpinfo_",
    "jwt_",
    "realip_",
];

/// Keys of ours that other proxies write without a colon.
const SETTINGS: [&str; 12] = [
    "balance", "weight", "timeout", "rewrite", "allow", "deny", "resolver", "mirror", "sticky", "tls",
    "redirect", "cache",
];

/// Our form of the variables that people look for.
const OURS: [(&str, &[&str]); 7] = [
    (
        "{host}",
        &["host", "http_host", "server_name", "http.host", "http.request.host", "hostname", "hdr(host)"],
    ),
    ("{path_and_query}", &["request_uri", "http.request.uri", "uri_and_query", "http.request.orig_uri"]),
    ("{path}", &["uri", "document_uri", "http.request.uri.path", "http.uri.path"]),
    ("{query}", &["args", "query_string", "http.request.uri.query", "query"]),
    ("{scheme}", &["scheme", "http.request.scheme", "https"]),
    (
        "{client_ip}",
        &[
            "remote_addr",
            "remote_host",
            "http.request.remote",
            "http.request.remote.host",
            "src",
            "remote",
            "binary_remote_addr",
            "client_ip",
            "proxy_add_x_forwarded_for",
            "realip_remote_addr",
            "downstream_remote_address",
            "downstream_remote_address_without_port",
        ],
    ),
    ("{request_id}", &["request_id", "http.request.uuid", "unique_id", "unique-id"]),
];
const ALL: &str =
    "{host}, {path}, {query}, {path_and_query}, {scheme}, {request_id}, {client_ip}, {client_cert_subject}";

/// The variable of another proxy in a text with variables, and what to write instead.
pub(crate) fn variable(text: &str) -> Option<String> {
    let found = dollar(text).or_else(|| percent(text)).or_else(|| braces(text))?;
    let bare = found.trim_matches(['$', '{', '}', '%', '[', ']', '>', '(']).to_ascii_lowercase();
    let ours = OURS.iter().find(|(_, theirs)| theirs.contains(&bare.as_str()));
    let hint = match ours {
        Some((ours, _)) => format!("`{ours}` here"),
        None if bare.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("no variable here (paths are prefixes, nothing is captured); allowed are {ALL}")
        }
        None => format!("no variable here; allowed are {ALL}"),
    };
    Some(format!("`{}`, which other proxies replace, is {hint}", crate::problem::shown(found)))
}

/// `$name` and `$1`.
fn dollar(text: &str) -> Option<&str> {
    text.match_indices('$').find_map(|(at, _)| {
        let name = text.get(at + 1..)?;
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        let is_capture = matches!(name.as_bytes(), [b'1'..=b'9']) && !behind.starts_with(['.', ',']);
        let is_known =
            VARIABLES.contains(&name) || VARIABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        (is_capture || is_known).then(|| text.get(at..=at + end)).flatten()
    })
}

/// `%{name}` (Apache), `%[name]` (HAProxy), `%NAME%` and `%REQ(…)%` (Envoy).
fn percent(text: &str) -> Option<&str> {
    text.match_indices('%').find_map(|(at, _)| {
        let rest = text.get(at + 1..)?;
        let close = match rest.chars().next()? {
            '{' => '}',
            '[' => ']',
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
                let is_command = end >= 3 && rest.get(end..)?.starts_with(['%', '(']);
                return is_command.then(|| text.get(at..at + end + 2)).flatten();
            }
        };
        let end = rest.find(close)?;
        text.get(at..at + end + 2)
    })
}

/// `{name}` with anything in it that a name may have elsewhere and not here: `{http.host}`, `{1}`, `{$NAME}`.
fn braces(text: &str) -> Option<&str> {
    text.match_indices('{').find_map(|(at, _)| {
        let rest = text.get(at + 1..)?;
        let name = rest.split('}').next().filter(|name| name.len() < rest.len())?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-$>%".contains(&byte);
        let is_ours = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (!name.is_empty() && !is_ours && name.bytes().all(is_plain))
            .then(|| text.get(at..at + name.len() + 2))?
    })
}

/// What to write instead of a path with a pattern. Paths are prefixes of whole segments.
pub(crate) fn path(text: &str) -> Option<String> {
    let bare = text.trim_start_matches(['~', '^', '=', '*', ' ']);
    let is_regex = text.starts_with(['~', '^'])
        || text.contains(['\\', '^', '|', '[', ']', '{', '}', '<', '>'])
        || ["(?", ".+", "/$1"].iter().any(|part| text.contains(part))
        || (text.len() > 1 && text.ends_with('$'));
    let starred =
        bare.strip_suffix("/*").or_else(|| bare.strip_suffix("/**")).or_else(|| bare.strip_suffix("/.*"));
    if let Some(prefix) = starred
        && !prefix.contains(['*', '(', '|', '[', '\\', ':', '{'])
    {
        let prefix = if prefix.is_empty() { "/" } else { prefix };
        return Some(format!(
            "`{prefix}`, which also matches everything below it: a path is a prefix, not a pattern"
        ));
    }
    let is_captured = text.split('/').any(|segment| {
        segment.strip_prefix(':').is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
    });
    if text.starts_with("= ") {
        return Some(format!(
            "a path that begins with `/`, like `{bare}`, which also matches everything below it"
        ));
    }
    (is_regex || is_captured || text.contains('*')).then(|| {
        let at = bare.find(['*', ':', '{', '(', '[', '|', '$', '\\', '<', '^', '>']).unwrap_or(bare.len());
        let before = bare.get(..at).unwrap_or_default();
        let fixed = before.rsplit_once('/').map_or("", |(fixed, _)| fixed);
        let fixed = if fixed.starts_with('/') { fixed } else { "/" };
        format!("a prefix of whole segments, like `{fixed}`, which also matches everything below it; patterns and captures do not exist")
    })
}

/// Whether a list of names has a pattern where names alone are allowed.
pub(crate) fn has_pattern(name: &str) -> bool {
    name.contains('*')
}

/// What the word of another proxy is here.
pub(crate) fn key(word: &str) -> Option<String> {
    let plain = word.to_ascii_lowercase().replace('-', "_");
    let (_, theirs, ours) = WORDS.iter().find(|(known, ..)| known.split(' ').any(|known| known == plain))?;
    Some(format!("`{}` of {theirs} is {ours}", crate::problem::shown(word)))
}

/// The same for a text that begins with such a word: `server 10.0.0.1:80 max_fails=3`.
pub(crate) fn line(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    if first == "server" {
        let address = words.clone().chain([second]).find(|word| word.contains(':')).unwrap_or(second);
        let address = address.trim_end_matches(';');
        let settings = "{ address: …, weight: 1, max_fails: 3, fail_timeout: 10s, backup: true }";
        return Some(format!("a backend is its address alone, `{address}`, or a map, `{settings}`"));
    }
    if SETTINGS.contains(&first) {
        let second = second.trim_end_matches(';');
        return Some(format!("a setting is `{first}: value` on a line of its own, not `{first} {second}`"));
    }
    key(first)
}

/// Which other configuration language a file is in.
pub(crate) fn language(text: &str) -> Option<&'static str> {
    let lines = || text.lines().map(str::trim);
    let begins = |starts: &[&str]| lines().any(|line| starts.iter().any(|start| line.starts_with(start)));
    let has_blocks = lines().any(|line| line.ends_with('{'));
    if has_blocks
        && lines().any(|line| line.ends_with(';'))
        && begins(&["server", "upstream ", "http", "events"])
    {
        return Some("nginx");
    }
    if begins(&["frontend ", "backend ", "defaults", "listen "])
        && begins(&["bind ", "server ", "mode ", "balance "])
    {
        return Some("HAProxy");
    }
    (has_blocks && begins(&["reverse_proxy ", "file_server", "respond ", "handle"])).then_some("Caddy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_others_are_found_and_plain_text_is_not() {
        for (text, ours) in [
            ("https://$host$request_uri", "{host}"),
            ("$remote_addr", "{client_ip}"),
            ("$proxy_add_x_forwarded_for", "{client_ip}"),
            ("{http.host}", "{host}"),
            ("{http.request.uri.path}", "{path}"),
            ("/new/$1", "captured"),
            ("/{1}", "captured"),
            ("%{REMOTE_ADDR}s", "{client_ip}"),
            ("%[src]", "{client_ip}"),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", "{client_ip}"),
            ("%REQ(:authority)%", "no variable"),
            ("{$SECRET}", "no variable"),
            ("{>User-Agent}", "no variable"),
            ("{HOST}", "{host}"),
            ("$http_x_custom", "no variable"),
        ] {
            let said = variable(text).unwrap_or_else(|| panic!("{text}"));
            assert!(said.contains(ours), "{text}: {said}");
        }
        for text in [
            "{host}",
            "{\"a\":{\"b\":1}}",
            "{{path}}",
            "{",
            "{}",
            "{host",
            "$",
            "$5.00",
            "$1,000",
            "100%",
            "%2F%20",
            "a$b",
            "pa$word",
            "50%{",
            "default-src 'self'; img-src *",
            "W/\"x$y\"",
            "{\"a\":1}",
        ] {
            assert_eq!(variable(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_are_no_paths() {
        for (text, like) in [
            ("/api/*", "`/api`"),
            ("/*", "`/`"),
            ("/img/*.png", "`/img`"),
            ("/api/:id", "`/api`"),
            ("/a/:id/b", "`/a`"),
            ("/a$", "`/`"),
            ("/a|/b", "`/`"),
            ("^/api", "`/`"),
            ("~ /api/.*", "`/api`"),
            ("~* \\.php$", "`/`"),
            ("= /x", "`/x`"),
            ("/x/{id}", "`/x`"),
            ("/x/<id>", "`/x`"),
            ("/(a|b)/c", "`/`"),
            ("/x/[0-9]+", "`/x`"),
            ("/**", "`/`"),
        ] {
            let said = path(text).unwrap_or_else(|| panic!("{text}"));
            assert!(said.contains(like), "{text}: {said}");
        }
        for text in [
            "/",
            "/api",
            "/$metadata",
            "/a/$batch",
            "/v1/models:predict",
            "/@user",
            "/c++",
            "/Foo_(bar)",
            "/a.b",
            "/~me",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    #[test]
    fn words_of_others_have_a_translation() {
        for word in [
            "server_name",
            "proxy_pass",
            "location",
            "listen",
            "gzip",
            "proxy_set_header",
            "proxy_cache_valid",
            "frontend",
            "default_backend",
            "lb_policy",
            "clusters",
            "loadBalancer",
            "reverse_proxy",
            "option",
            "middlewares",
        ] {
            assert!(key(word).is_some(), "{word}");
        }
        assert!(line("server 10.0.0.1:80 max_fails=3").unwrap().contains("`10.0.0.1:80`"));
        assert!(line("server app1 10.0.0.1:80 check").unwrap().contains("`10.0.0.1:80`"));
        assert!(line("option httpchk GET /").unwrap().contains("health_check"));
        assert!(line("balance roundrobin").unwrap().contains("`balance: value`"));
        assert_eq!(line("some text"), None);
        assert_eq!(language("server {\n  listen 80;\n}\n"), Some("nginx"));
        assert_eq!(language("frontend web\n  bind :80\n"), Some("HAProxy"));
        assert_eq!(language("example.com {\n  reverse_proxy a:80\n}\n"), Some("Caddy"));
        assert_eq!(language("upstreams:\n  a: [x]\n"), None);
    }
}
