//! Which fields are stored, and what is generated (RFC 9111 sections 3.1 and 4, RFC 9110 section 7.6.1).

use super::case::{Case, case};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in [
        "X-Test: 1",
        "Content-Type: text/plain;charset=utf-8",
        "Content-Language: de",
        "Content-Location: /elsewhere",
        "Content-Disposition: attachment",
        "Content-Security-Policy: default-src 'self'",
        "Content-Encoding: gzip",
        "Clear-Site-Data: \"cache\"",
        "ETag: \"a\"",
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        "Link: </a.css>; rel=preload",
        "Strict-Transport-Security: max-age=1",
        "X-Frame-Options: DENY",
        "Date: Thu, 01 Jan 2099 00:00:00 GMT",
        "Expires: 0",
        "Via: 1.1 other",
        "Server: backend",
        "Retry-After: 5",
        "Access-Control-Allow-Origin: *",
    ] {
        let name = line.split(':').next().unwrap_or_default();
        cases.push(
            case("9111 3.1", format!("{name} is stored, and served from the store"))
                .get()
                .answered(format!("Cache-Control: max-age=60|{line}"))
                .has(line)
                .get()
                .hit()
                .has(line),
        );
    }
    for (name, value) in [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Upgrade", "h9"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authentication-Info", "x=1"),
        ("Trailer", "X-T"),
    ] {
        cases.push(
            case("9111 3.1", format!("{name} is of one connection, and is not stored"))
                .get()
                .answered(format!("Cache-Control: max-age=60|{name}: {value}"))
                .get()
                .hit()
                .lacks(name),
        );
    }
    cases.extend(connection());
    cases.extend(generated());
    cases
}

fn connection() -> Vec<Case> {
    vec![
        case("9111 3.1", "fields that Connection names are not stored")
            .get()
            .answered("Cache-Control: max-age=60|Connection: x-hop, X-Other|X-Hop: 1|X-Other: 2|X-Kept: 3")
            .get()
            .hit()
            .lacks("X-Hop")
            .lacks("X-Other")
            .has("X-Kept: 3"),
        case("9110 7.6.1", "nor passed on")
            .get()
            .answered("Connection: x-hop|X-Hop: 1|X-Kept: 3")
            .lacks("X-Hop")
            .has("X-Kept: 3"),
        case("9111 3.1", "several lines of Connection count together")
            .get()
            .answered("Cache-Control: max-age=60|Connection: x-a|Connection: x-b|X-A: 1|X-B: 2")
            .get()
            .hit()
            .lacks("X-A")
            .lacks("X-B"),
        case("9111 3.1", "several lines of one field are stored")
            .get()
            .answered("Cache-Control: max-age=60|X-Many: 1|X-Many: 2")
            .get()
            .hit()
            .has("X-Many: 1")
            .has("X-Many: 2"),
    ]
}

fn generated() -> Vec<Case> {
    vec![
        case("9110 6.6.1", "a response without Date gets one when it is passed on").get().has("Date"),
        case("9110 6.6.1", "and keeps it in the store")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .hit()
            .has("Date"),
        case("9110 6.6.1", "a Date is not changed")
            .get()
            .answered("Cache-Control: max-age=60|Date: Thu, 01 Jan 2099 00:00:00 GMT")
            .get()
            .hit()
            .has("Date: Thu, 01 Jan 2099 00:00:00 GMT"),
        case("9111 5.1", "the Age of a response that is passed on is passed on")
            .get()
            .answered("Cache-Control: max-age=600|Age: 100")
            .aged(100, 100),
        case("9111 5.1", "also where nothing is stored")
            .get()
            .answered("Cache-Control: no-store|Age: 100")
            .aged(100, 100),
        case("9211 2", "what other caches say stays, and comes first")
            .get()
            .answered("Cache-Control: max-age=600|Cache-Status: origin; hit")
            .has("Cache-Status: origin; hit")
            .has("Cache-Status: goodgate; fwd=uri-miss; stored")
            .get()
            .hit()
            .has("Cache-Status: origin; hit"),
        case("9211 2.1", "a hit says so")
            .get()
            .answered("Cache-Control: max-age=60|Date: Thu, 01 Jan 2099 00:00:00 GMT|Age: 10")
            .get()
            .hit()
            .has("Cache-Status"),
        case("9211 2.2", "a miss says why it went forward, and that it was stored")
            .get()
            .answered("Cache-Control: max-age=60")
            .has("Cache-Status: goodgate; fwd=uri-miss; stored"),
        case("9211 2.2", "a miss that may not be stored does not say so")
            .get()
            .answered("Cache-Control: no-store")
            .has("Cache-Status: goodgate; fwd=uri-miss"),
        case("9211 2.2", "another variant is a vary-miss")
            .get()
            .with("X-V: 1")
            .answered("Cache-Control: max-age=60|Vary: X-V")
            .get()
            .with("X-V: 2")
            .answered("Cache-Control: max-age=60|Vary: X-V")
            .has("Cache-Status: goodgate; fwd=vary-miss; stored"),
        case("9211 2.2", "a stale copy goes forward as stale")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .get()
            .answered("Cache-Control: max-age=60|ETag: \"b\"")
            .has("Cache-Status: goodgate; fwd=stale; stored"),
        case("9211 2.3", "a confirmed copy tells the status of the confirmation")
            .get()
            .answered("Cache-Control: max-age=10|Age: 20|ETag: \"a\"")
            .get()
            .answered_by(304, "Cache-Control: max-age=60|ETag: \"a\"")
            .has("Cache-Status: goodgate; fwd=stale; fwd-status=304; stored"),
        case("9211 2.2", "a request that asks for a newer answer goes forward by its own wish")
            .get()
            .answered("Cache-Control: max-age=60|ETag: \"a\"")
            .get()
            .with("Cache-Control: no-cache")
            .answered("Cache-Control: max-age=60")
            .has("Cache-Status: goodgate; fwd=request; stored"),
        case("9211 2.2", "a method that the cache does not answer")
            .asks("POST")
            .has("Cache-Status: goodgate; fwd=method"),
    ]
}
