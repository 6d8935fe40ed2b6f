//! A record as one line for people, who search it with grep and cut it at blanks.
//!
//! Nothing that comes from outside can end a line, a quotation or a field: what is not visible ASCII, quotes and
//! backslashes are written as `\xHH`, one for each byte, and so are blanks where they would part fields.

use std::io::{self, Write};
use std::time::Duration;

use goodgate_failure::{Attempt, Cause};

use crate::AccessRecord;

/// Appends the line, without its end.
pub(crate) fn write(line: &mut Vec<u8>, record: &AccessRecord<'_>) -> io::Result<()> {
    match record.client {
        Some(client) => write!(line, "{client}")?,
        None => line.push(b'-'),
    }
    write!(line, " {} \"", humantime::format_rfc3339_millis(record.time))?;
    field(line, &record.method);
    line.push(b' ');
    field(line, &record.host);
    line.push(b' ');
    field(line, &record.path);
    if let Some(query) = &record.query {
        line.push(b'?');
        escape(line, query, is_plain);
    }
    let version = if record.version.is_empty() { "-" } else { record.version };
    write!(line, " HTTP/{version}\" {} {} ", record.status, record.bytes_sent)?;
    millis(line, record.duration)?;
    write!(line, " origin={} cause={}", record.origin.name(), record.cause.map_or("-", Cause::name))?;
    if let Some(detail) = record.detail {
        line.extend_from_slice(b" detail=\"");
        escape(line, detail, |byte| byte == b' ' || is_plain(byte));
        line.push(b'"');
    }
    if let Some(queued) = record.queued {
        line.extend_from_slice(b" queued=");
        millis(line, queued)?;
    }
    match record.rescue {
        Some((by, cause)) => write!(line, " rescue={}:{}", by.name(), cause.name())?,
        None => line.extend_from_slice(b" rescue=-"),
    }
    write!(line, " cache={} route=", record.cache.map_or("-", crate::CacheResult::name))?;
    field(line, &record.route);
    line.extend_from_slice(b" id=");
    field(line, &record.request_id);
    if let Some(trace) = record.trace_id {
        write!(line, " trace={trace}")?;
    }
    line.extend_from_slice(b" agent=\"");
    escape(line, record.user_agent.as_deref().unwrap_or("-"), |byte| byte == b' ' || is_plain(byte));
    line.push(b'"');
    record.attempts.iter().try_for_each(|attempt| self::attempt(line, attempt))
}

fn attempt(line: &mut Vec<u8>, attempt: &Attempt) -> io::Result<()> {
    write!(line, " [{}", attempt.backend)?;
    if attempt.fail_open {
        line.extend_from_slice(b" fail_open");
    }
    match (attempt.cause, attempt.status) {
        // A status that counts as a failure says so by itself.
        (Some(cause @ Cause::Received(_)), _) => write!(line, " {}", cause.name())?,
        (Some(cause), _) => write!(line, " {} {}", attempt.phase.name(), cause.name())?,
        (None, Some(status)) => write!(line, " {status}")?,
        (None, None) => write!(line, " {}", attempt.phase.name())?,
    }
    if let Some(total) = attempt.total {
        line.push(b' ');
        millis(line, total)?;
    }
    match attempt.next {
        Some(Ok(allowance)) => write!(line, " -> {}", allowance.name())?,
        Some(Err(refusal)) => write!(line, " -| {}", refusal.name())?,
        None => {}
    }
    line.push(b']');
    Ok(())
}

fn millis(line: &mut Vec<u8>, duration: Duration) -> io::Result<()> {
    write!(line, "{:.1}ms", duration.as_secs_f64() * 1e3)
}

fn field(line: &mut Vec<u8>, text: &str) {
    if text.is_empty() {
        line.push(b'-');
    }
    escape(line, text, is_plain);
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

fn escape(line: &mut Vec<u8>, text: &str, is_plain: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |bits: u8| HEX.get(usize::from(bits & 15)).copied().unwrap_or(b'0');
    for byte in text.bytes() {
        if is_plain(byte) {
            line.push(byte);
        } else {
            line.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use goodgate_failure::{Allowance, Phase, Refusal};

    use super::*;
    use crate::{By, Origin};

    fn record() -> AccessRecord<'static> {
        let client = "192.0.2.1".parse().unwrap();
        AccessRecord::of_no_request(SystemTime::UNIX_EPOCH, "id-1", client, 400, Cause::HttpRequestError)
    }

    fn line(record: &AccessRecord<'_>) -> String {
        let mut line = Vec::new();
        write(&mut line, record).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_request_is_a_line_that_can_be_read() {
        let mut refused = Attempt::new("10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap().into(), false);
        refused.cause = Some(Cause::ConnectionRefused);
        refused.total = Some(Duration::from_micros(412));
        refused.next = Some(Ok(Allowance::NothingSent));
        let mut good = Attempt::new("10.0.0.2:80".parse::<std::net::SocketAddr>().unwrap().into(), false);
        good.phase = Phase::Response;
        good.status = Some(200);
        good.total = Some(Duration::from_micros(3_140));
        let record = AccessRecord {
            method: "GET".into(),
            host: "www.example.com".into(),
            path: "/a".into(),
            query: Some("b=1&token=***".into()),
            version: "1.1",
            route: "*/".into(),
            status: 200,
            origin: Origin::Backend,
            cause: None,
            rescue: Some((By::Retry, Cause::ConnectionRefused)),
            bytes_sent: 512,
            duration: Duration::from_micros(3_700),
            user_agent: Some("curl/8.5 (x)".into()),
            attempts: vec![refused, good].into(),
            ..record()
        };
        assert_eq!(
            line(&record),
            "192.0.2.1 1970-01-01T00:00:00.000Z \"GET www.example.com /a?b=1&token=*** HTTP/1.1\" 200 512 3.7ms \
             origin=backend cause=- rescue=retry:connection_refused cache=- route=*/ id=id-1 agent=\"curl/8.5 (x)\" \
             [10.0.0.1:80 connect connection_refused 0.4ms -> nothing_sent] [10.0.0.2:80 200 3.1ms]"
        );
    }

    #[test]
    fn what_was_no_request_is_a_line_too() {
        let mut timed_out = Attempt::new("[::1]:80".parse::<std::net::SocketAddr>().unwrap().into(), true);
        timed_out.next = Some(Err(Refusal::Deadline));
        let detail = Some("there is more than one Host");
        let record = AccessRecord { detail, attempts: vec![timed_out].into(), ..record() };
        assert_eq!(
            line(&record),
            "192.0.2.1 1970-01-01T00:00:00.000Z \"- - - HTTP/-\" 400 0 0.0ms origin=goodgate \
             cause=http_request_error detail=\"there is more than one Host\" rescue=- cache=- route=none id=id-1 \
             agent=\"-\" [[::1]:80 fail_open connect -| deadline]"
        );
    }

    #[test]
    fn nobody_outside_can_forge_a_line_or_a_field() {
        let evil = String::from_utf8_lossy(b"x\r\n\x1b[2J\" 200 0\\ cause=- \xff\x7f\xc2\x85").into_owned();
        let record = AccessRecord {
            method: evil.as_str().into(),
            host: evil.as_str().into(),
            path: evil.as_str().into(),
            query: Some(evil.as_str().into()),
            user_agent: Some(evil.as_str().into()),
            ..record()
        };
        let text = line(&record);
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        let escaped = r"x\x0D\x0A\x1B[2J\x22\x20200\x200\x5C\x20cause=-\x20\xEF\xBF\xBD\x7F\xC2\x85";
        assert!(text.contains(&format!("\"{escaped} {escaped} {escaped}?{escaped} HTTP/-\"")), "{text}");
        assert_eq!(text.matches('"').count(), 4, "two quotations: the request and the agent");
        assert_eq!(text.matches(" cause=").count(), 1 + 1, "one is within the agent's quotation: {text}");

        let json = serde_json::to_string(&record).unwrap();
        assert!(!json.contains(['\r', '\n', '\x1b']), "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        for field in ["method", "host", "path", "query", "user_agent"] {
            assert_eq!(read[field], evil, "{field}");
        }
        assert_eq!(read["cause"], "http_request_error");
    }
}
