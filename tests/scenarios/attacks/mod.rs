//! Hostile bytes on raw sockets. Cases are values: what is sent, what the client must get, and what the
//! backend must have received, which is read back by a parser that forgives nothing.
//!
//! Where the standards leave a choice, the strictest of nginx, HAProxy and Envoy is followed, and the case
//! says so.

use std::time::Duration;

use crate::harness::{Connection, Gateway, eventually};
use recorder::{Received, Recorder};

mod allowed;
mod answers;
mod bodies;
mod broken;
mod crowd;
mod every_byte;
mod fields;
mod garbage;
mod heads;
pub(crate) mod recorder;
mod slow;
mod smuggling;

/// A request that must never be seen by a backend on its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
/// Limits that are met within a test.
const LIMITS: &str = "limits: { header_timeout: 400ms, body_timeout: 400ms, max_body_bytes: 4KiB }\n";
/// How long a gateway may take to close a connection.
const CLOSES: Duration = Duration::from_secs(10);

/// One case: these bytes on a connection of their own, and what must come of them.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// The statuses of the answers, in order. All but the last are kept open.
    answers: Vec<u16>,
    /// What the backend must have received, complete.
    received: Vec<Received>,
    /// The client says that it is done before it looks for answers.
    half_closes: bool,
    /// Whether the connection ends with a good answer, instead of being kept for another request.
    closes: bool,
    /// What the last head at the backend must hold, in lower case, and what none may.
    holds: Vec<String>,
    lacks: Vec<String>,
}

impl Case {
    /// Answered with this status, and nothing reaches the backend.
    fn refused(name: impl Into<String>, bytes: impl Into<Vec<u8>>, status: u16) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            answers: vec![status],
            received: Vec::new(),
            half_closes: false,
            closes: false,
            holds: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// Each request reaches the backend as it was meant, as `(request line without version, body)`.
    fn accepted(name: impl Into<String>, bytes: impl Into<Vec<u8>>, received: &[(&str, &str)]) -> Self {
        let received: Vec<Received> = received.iter().map(|(line, body)| Received::new(line, body)).collect();
        Self { answers: vec![200; received.len()], received, ..Self::refused(name, bytes, 200) }
    }

    /// Closed without an answer, and nothing reaches the backend.
    fn silent(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { answers: Vec::new(), half_closes: true, ..Self::refused(name, bytes, 0) }
    }

    /// After the accepted ones one is refused.
    fn then_refused(mut self, status: u16) -> Self {
        self.answers.push(status);
        self
    }

    /// The connection ends with the last answer.
    fn then_closed(mut self) -> Self {
        self.closes = true;
        self
    }

    fn with_field(mut self, line: &str) -> Self {
        self.holds.push(format!("\r\n{line}\r\n"));
        self
    }

    fn without(mut self, texts: &[&str]) -> Self {
        self.lacks.extend(texts.iter().map(|text| (*text).to_owned()));
        self
    }

    fn is_refused(&self) -> bool {
        self.answers.last().is_none_or(|status| *status >= 400)
    }

    /// Whether another request is sent on the connection to see that it is kept.
    fn is_kept(&self) -> bool {
        !self.is_refused() && !self.closes
    }
}

/// Runs the cases one after another against a gateway of their own and settles the accounts: every answer
/// has exactly one record, every refusal is counted, the backend has seen what it should and no more.
async fn run(config: &str, cases: Vec<Case>) {
    let recorder = Recorder::start().await;
    let config =
        format!("{config}upstreams: {{ web: ['{}'] }}\nroutes: [{{ upstream: web }}]\n", recorder.address);
    let gateway = Gateway::start(&config).await;
    let (mut wrong, mut ids, mut records) = (Vec::new(), Vec::new(), 0);
    for case in &cases {
        match play(&gateway, &recorder, case).await {
            Ok(answered) => ids.extend(answered),
            Err(problem) => wrong.push(format!("{}: {problem}", case.name)),
        }
        records += case.answers.len() + usize::from(case.is_kept());
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    settle(&gateway, &ids, records).await;
    let expected: usize = cases.iter().map(|case| case.received.len() + usize::from(case.is_kept())).sum();
    assert_eq!(recorder.total(), expected, "requests at the backend in all");
}

async fn settle(gateway: &Gateway, ids: &[(String, u16)], records: usize) {
    eventually("all records", || async { gateway.records().len() >= records }).await;
    let log = gateway.records();
    assert_eq!(log.len(), records, "one record for each request: {log:?}");
    for (id, status) in ids {
        let mut of_it = log.iter().filter(|record| record["request_id"] == id.as_str());
        let first = of_it.next().unwrap_or_else(|| panic!("no record of {id}"));
        assert!(of_it.next().is_none() && first["status"] == *status, "{status}: {first}");
        assert_eq!(first["detail"].is_string(), *status >= 400, "the log says what is wrong: {first}");
    }
    let refused = ids.iter().filter(|(_, status)| *status >= 400).count();
    for counter in ["goodgate_gateway_errors_total", "goodgate_requests_refused_total"] {
        assert_eq!(gateway.metric(counter).await as usize, refused, "each is counted in {counter}");
    }
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    assert_eq!(gateway.metric("goodgate_ejections_total").await, 0.0, "no backend is to blame");
}

/// Plays one case; the request ids and statuses of its answers.
async fn play(gateway: &Gateway, recorder: &Recorder, case: &Case) -> Result<Vec<(String, u16)>, String> {
    let mut connection = Connection::open(gateway.address).await.map_err(|error| error.to_string())?;
    // A refusal may come before all is sent.
    let _ = connection.send(&case.bytes).await;
    if case.half_closes {
        let _ = connection.half_close().await;
    }
    let mut ids = Vec::new();
    for (at, status) in case.answers.iter().enumerate() {
        let to_head = case.received.get(at).is_some_and(|received| received.line.starts_with("HEAD "));
        let answer = connection.answer(to_head);
        let answer = tokio::time::timeout(CLOSES, answer).await.map_err(|_| format!("no answer {at}"))?;
        let answer = answer.map_err(|error| format!("answer {at}: {error}"))?;
        if answer.status != *status || !answer.complete {
            return Err(format!("answer {at} is {}, not {status}: {}", answer.status, answer.text()));
        }
        if *status >= 400 && answer.header("connection") != Some("close") {
            return Err(format!("answer {at}, {status}, does not announce the close"));
        }
        ids.push((answer.header("x-request-id").unwrap_or_default().to_owned(), *status));
    }
    recorder.took(&case.received).await?;
    let heads = recorder.heads();
    if let Some(missing) =
        case.holds.iter().find(|text| !heads.last().is_some_and(|head| head.contains(*text)))
    {
        return Err(format!("{missing:?} is missing: {heads:?}"));
    }
    if let Some(found) = case.lacks.iter().find(|text| heads.iter().any(|head| head.contains(*text))) {
        return Err(format!("{found:?} has reached the backend: {heads:?}"));
    }
    if case.is_kept() {
        ids.push(ask_again(&mut connection, recorder).await?);
        let _ = connection.half_close().await;
    }
    let rest = connection.rest(CLOSES).await.map_err(|_| "the connection stays open")?;
    if !rest.is_empty() {
        return Err(format!("more comes back: {:?}", String::from_utf8_lossy(&rest)));
    }
    Ok(ids)
}

/// The connection is in order: another request on it is answered.
async fn ask_again(connection: &mut Connection, recorder: &Recorder) -> Result<(String, u16), String> {
    let answer = connection.get("/again").await.map_err(|error| format!("not kept: {error}"))?;
    let is_good = answer.status == 200 && answer.text() == "ok";
    if !is_good {
        return Err(format!("the next answer is {answer:?}"));
    }
    recorder.took(&[Received::new("GET /again", "")]).await?;
    recorder.heads();
    Ok((answer.header("x-request-id").unwrap_or_default().to_owned(), 200))
}
