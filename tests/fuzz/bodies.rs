//! What must hold for any bytes at all: nothing panics, what comes in pieces is read as what comes at once, and
//! what passes has one reading. Each function is a fuzz target, and a test over seeds and mutations of them.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use goodgate_cache::{
    Address, Admission, CachePolicy, KeyPolicy, NamePattern, Part, Query, RequestFacts, admit,
    is_not_modified, part, variance,
};
use goodgate_config::{Action, Config, FieldValue, normal_target, parse};
use goodgate_proxy::fuzzing::{Body, chunked, framing, head_end};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora_http::ResponseHeader;

const SMALL: &str =
    "upstreams: { a: ['a:1'] }\nroutes: [{ upstream: a, cache: { mode: standard, last_good: true } }]\n";

/// A configuration with the limits of `limits` and the cache policy at their defaults.
static CONFIG: LazyLock<Config> = LazyLock::new(|| parse("c.yaml", SMALL, &|_| None).unwrap());

/// The head of a request.
pub fn head(bytes: &[u8]) {
    let whole = head_end(bytes, bytes.len());
    for piece in [1, 2, 7] {
        assert_eq!(head_end(bytes, piece), whole, "in pieces of {piece}");
    }
    let Ok(Some(end)) = whole else {
        return;
    };
    let head = &bytes[..end];
    match framing(head, &CONFIG.limits) {
        Err(status) => assert!((400..=505).contains(&status), "{status}"),
        Ok(body) => has_one_reading(head, body),
    }
}

/// A reader of another make finds one host at most, and the same framing.
fn has_one_reading(head: &[u8], body: Body) {
    let text: Vec<u8> = head.to_ascii_lowercase();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').skip(1).collect();
    assert!(!text.contains(&0) && text.iter().filter(|byte| **byte == b'\r').count() == lines.len());
    let values = |name: &[u8]| -> Vec<&[u8]> {
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(b":"))
            .map(<[u8]>::trim_ascii)
            .collect()
    };
    let is_folded = |line: &&&[u8]| line.starts_with(b" ") || line.starts_with(b"\t");
    assert_eq!(lines.iter().filter(is_folded).count(), 0);
    assert!(values(b"host").len() <= 1);
    let (lengths, codings) = (values(b"content-length"), values(b"transfer-encoding"));
    match body {
        Body::Chunked => assert_eq!((lengths.len(), codings), (0, vec![&b"chunked"[..]])),
        Body::Length(length) => {
            assert!(codings.is_empty() && lengths.len() <= 1);
            let told = lengths.first().map_or(Ok(0), |value| str::from_utf8(value).unwrap().parse());
            assert_eq!(told, Ok(length));
        }
        Body::Upgrade => assert!(codings.is_empty() && lengths.iter().all(|value| value == b"0")),
    }
}

/// A chunked body.
pub fn chunks(bytes: &[u8]) {
    let whole = chunked(bytes, bytes.len());
    for piece in [1, 2, 7] {
        assert_eq!(chunked(bytes, piece), whole, "in pieces of {piece}");
    }
    if let Ok((taken, true)) = whole {
        assert_eq!(end_of_chunks(bytes), Some(taken), "another reader finds another end");
    }
}

/// A plain reader of chunks that forgives much.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: usize| {
        let length = bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&bytes[at..at + length], at + length + 2))
    };
    loop {
        let (size, behind) = line(at)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        at = behind;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (trailer, behind) = line(at)?;
        at = behind;
        if trailer.is_empty() {
            return Some(at);
        }
    }
}

/// The target of a request in origin form.
pub fn target(bytes: &[u8]) {
    let Ok(normal) = normal_target(bytes) else {
        return;
    };
    let normal = normal.map_or_else(|| bytes.to_vec(), String::into_bytes);
    assert!(matches!(normal_target(&normal), Ok(None)), "the normal form of {normal:?} is another");
    let path = normal.split(|byte| *byte == b'?').next().unwrap_or_default();
    assert!(path.first().is_none_or(|byte| *byte == b'/'));
    for segment in path.split(|byte| *byte == b'/') {
        let mut plain = segment.to_ascii_lowercase();
        while let Some(at) = plain.windows(3).position(|escape| escape == b"%2e") {
            plain.splice(at..at + 3, *b".");
        }
        let name = plain.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(!matches!(name, b"." | b".."), "{:?}", str::from_utf8(path));
    }
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let digits = &rest[at + 1..at + 3];
        assert!(digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00", "{:?}", str::from_utf8(path));
        rest = &rest[at + 3..];
    }
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // Files that it names are read, and some of a machine's never end.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    if let Err(problems) = parse("c.yaml", text, &|_| None) {
        assert!(problems.iter().count() > 0);
        // More than these end no line in YAML.
        let breaks = text.chars().filter(|c| "\n\r\u{85}\u{2028}\u{2029}".contains(*c)).count();
        for problem in &problems {
            assert_eq!(problem.line == 0, problem.column == 0, "{problem}");
            assert!(problem.line <= breaks + 2, "{problem}");
            assert!(!problem.to_string().contains(|c: char| c.is_control()), "{problem:?}");
        }
    }
}

/// A text with request variables.
pub fn template(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let quoted = serde_json::to_string(&format!("/{text}")).unwrap();
    let file = format!("upstreams: {{ a: ['a:1'] }}\nroutes: [{{ redirect: {{ to: {quoted} }} }}]\n");
    let Ok(config) = parse("c.yaml", &file, &|_| None) else {
        return;
    };
    let Action::Redirect(redirect) = &config.routes[0].action else {
        panic!("a redirect was read");
    };
    let filled = match &redirect.to {
        FieldValue::Constant(value) => value.to_str().unwrap().to_owned(),
        FieldValue::Filled(template) => template.fill(|_, text| text.push('x')),
    };
    assert!(filled.starts_with('/') && HeaderValue::from_str(&filled).is_ok());
    assert!(filled.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{filled:?}");
}

/// The fields of a request, and behind an empty line those of its answer, as a cache reads them.
pub fn caching(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (request, response) = text.split_once("\n\n").unwrap_or((&text, ""));
    let (request, fields) = (headers(request), headers(response));
    let mut response = ResponseHeader::build(200, None).unwrap();
    for (name, value) in &fields {
        response.append_header(name, value.clone()).unwrap();
    }
    let policy: &CachePolicy = CONFIG.routes[0].cache.as_ref().unwrap();
    let facts = RequestFacts::new(&Method::GET, &request, policy);
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
    match admit(policy, &facts, &response, now) {
        Admission::Refuse(why) => assert!(!why.is_empty()),
        Admission::Store(_) | Admission::KeepLastGood(_) => is_nobodys_own(&fields),
    }
    let _ = variance(&fields, &request);
    let _ = is_not_modified(&request, &response, now);
    if let Part::One(bytes) = part(&request, &response, 10, now) {
        assert!(bytes.start < bytes.end && bytes.end <= 10, "{bytes:?}");
    }
    let names = |text: &str| vec![NamePattern::parse(text)];
    for query in [Query::Sorted, Query::Only(names("a*")), Query::Without(names("b"))] {
        let policy =
            KeyPolicy { query, headers: vec![http::header::ACCEPT], cookies: vec!["lang".to_owned()] };
        let target = format!("/?{text}");
        let address = Address { scheme: "http", authority: b"a", target: &target };
        let key = || policy.key(address, &request, &[]);
        assert_eq!(key(), key());
    }
}

/// What is stored has no word in it that forbids it, and no cookie. Another field may lift that word, or a directive
/// that is for caches that understand it.
fn is_nobodys_own(fields: &HeaderMap) {
    assert!(!fields.contains_key("set-cookie"));
    let of_control = |name| fields.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let understood =
        of_control("cache-control").any(|line| line.to_ascii_lowercase().contains("must-understand"));
    if understood || fields.contains_key("cdn-cache-control") {
        return;
    }
    for line in fields.get_all("cache-control") {
        let line = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        if line.contains('"') {
            continue;
        }
        for word in line.split(',').map(str::trim) {
            assert!(word != "no-store" && word != "private", "{line}");
        }
    }
}

fn headers(text: &str) -> HeaderMap {
    let fields = text.lines().filter_map(|line| line.split_once(':')).filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in fields.take(100) {
        headers.append(name, value);
    }
    headers
}
