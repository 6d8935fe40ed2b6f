//! Plays cases against a gateway, many at once: each has a path of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::case::{Body, Case, Expect, Reply, Step};
use crate::harness::backend::read_head;
use crate::harness::script::Scripted;
use crate::harness::{Answer, Connection, Gateway};

/// The routes that cases are played on: name, and more settings of the route's cache.
const ROUTES: &[(&str, &str)] = &[
    ("plain", ""),
    ("guessing", ", heuristic: 10%"),
    ("negative", ", ttl: { '404': 1m, '503': 1m, '200': 1m }"),
    ("sorted", ", key: { query: sorted }"),
    ("queryless", ", key: { query: none }"),
    ("chosen", ", key: { query: { only: [page] }, headers: [X-Key], cookies: [lang] }"),
    ("dropping", ", cookies: { drop_set: true }"),
    ("without", ", key: { query: { without: ['utm_*'] } }"),
];

/// How many cases are under way at once.
const AT_ONCE: usize = 16;

/// What the backend of all cases knows.
#[derive(Default)]
struct Plan {
    replies: HashMap<(usize, usize), Reply>,
    /// The heads of the requests that reached it, by case and step.
    heads: Mutex<HashMap<(usize, usize), Vec<String>>>,
}

impl Plan {
    fn of(cases: &[Case]) -> Self {
        let each = |(at, case): (usize, &Case)| -> Vec<_> {
            case.steps.iter().enumerate().map(move |(step, it)| ((at, step), it.reply.clone())).collect()
        };
        Self { replies: cases.iter().enumerate().flat_map(each).collect(), heads: Mutex::default() }
    }

    fn heads(&self, case: usize, step: usize) -> Vec<String> {
        self.heads.lock().get(&(case, step)).cloned().unwrap_or_default()
    }
}

/// Plays them all, these lines in every request, and panics with the sentences that did not hold.
pub(super) async fn play(cases: Vec<Case>, always: &'static str) {
    let plan = Arc::new(Plan::of(&cases));
    let script = Arc::clone(&plan);
    let backend = Scripted::start(move |stream| serve(stream, Arc::clone(&script))).await;
    let gateway = Gateway::start(&site(&backend)).await;
    let mut running = JoinSet::new();
    let mut failed = Vec::new();
    let total = cases.len();
    for (at, case) in cases.into_iter().enumerate() {
        let (plan, address) = (Arc::clone(&plan), gateway.address);
        running.spawn(async move {
            let outcome = run(&case, always, at, address, &plan).await;
            outcome.err().map(|why| format!("RFC {}: {}\n    {why}", case.section, case.claim))
        });
        if running.len() >= AT_ONCE {
            failed.extend(running.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(outcome) = running.join_next().await {
        failed.extend(outcome.unwrap());
    }
    failed.sort();
    assert!(failed.is_empty(), "{} of {total} do not hold:\n{}", failed.len(), failed.join("\n"));
}

fn site(backend: &Scripted) -> String {
    let mut site =
        format!("upstreams:\n  web:\n    max_fails: 0\n    backends: ['{}']\nroutes:\n", backend.address);
    for (name, more) in ROUTES {
        site += &format!(
            "  - match: {{ path: /{name} }}\n    upstream: web\n    cache: {{ mode: standard{more} }}\n"
        );
    }
    site
}

async fn run(
    case: &Case,
    always: &str,
    at: usize,
    address: std::net::SocketAddr,
    plan: &Plan,
) -> Result<(), String> {
    let base = format!("/{}/{at}", case.route);
    let mut good: Vec<String> = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let told = |why: String| format!("step {}: {why}", number + 1);
        let fields = lines(&step.sends, &base);
        let head = format!(
            "{} {base}{} HTTP/1.1\r\nHost: test\r\nX-Case: {at}\r\nX-Step: {number}\r\n{always}{fields}\r\n",
            step.method, step.path
        );
        let mut connection = Connection::open(address).await.map_err(|error| told(error.to_string()))?;
        connection.send(head).await.map_err(|error| told(error.to_string()))?;
        let (interim, answer) =
            connection.answers(step.method == "HEAD").await.map_err(|error| told(error.to_string()))?;
        if step.expects.iter().any(|expect| matches!(expect, Expect::Behind)) {
            wait_for(|| !plan.heads(at, number).is_empty()).await;
        }
        let heads = plan.heads(at, number);
        let seen = Seen { answer: &answer, interim: &interim, heads: &heads, good: &good, base: &base };
        for expect in &step.expects {
            seen.check(expect, step)
                .map_err(|why| told(format!("{why}\n    {answer:?}\n    asked: {heads:?}")))?;
        }
        if !answer.body.is_empty() && answer.status == 200 {
            good.push(answer.text());
        }
    }
    Ok(())
}

async fn wait_for(holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What came of a step.
struct Seen<'a> {
    answer: &'a Answer,
    interim: &'a [u16],
    heads: &'a [String],
    /// The good bodies that the client got before.
    good: &'a [String],
    base: &'a str,
}

impl Seen<'_> {
    fn check(&self, expect: &Expect, step: &Step) -> Result<(), String> {
        let holds = |holds: bool, why: String| if holds { Ok(()) } else { Err(why) };
        match expect {
            Expect::Hit => {
                let is_named = step.expects.iter().any(|expect| matches!(expect, Expect::Body(_)));
                let same = is_named
                    || step.method == "HEAD"
                    || self.answer.status != 200
                    || self.good.is_empty()
                    || self.good.contains(&self.answer.text());
                holds(self.heads.is_empty() && same, "it is not answered from the store".to_owned())
            }
            Expect::Asked => holds(!self.heads.is_empty(), "the backend was not asked".to_owned()),
            Expect::Behind => holds(
                !self.heads.is_empty() && self.good.last() == Some(&self.answer.text()),
                "not the old copy while the backend is asked".to_owned(),
            ),
            Expect::Status(status) => {
                holds(self.answer.status == *status, format!("the status is not {status}"))
            }
            Expect::Has(line) => {
                let line = line.replace("{base}", self.base);
                holds(has(&self.answer.headers, &line), format!("no {line}"))
            }
            Expect::Lacks(name) => holds(self.answer.header(name).is_none(), format!("there is a {name}")),
            Expect::Body(body) => holds(self.answer.text() == *body, format!("the body is not {body:?}")),
            Expect::Sent(line) => holds(
                self.heads
                    .last()
                    .is_some_and(|head| has(&fields_of(head), &line.replace("{base}", self.base))),
                format!("the backend was not sent {line}"),
            ),
            Expect::NotSent(name) => holds(
                !self.heads.iter().any(|head| has(&fields_of(head), name)),
                format!("it was sent {name}"),
            ),
            Expect::Age(from, to) => {
                let age = self.answer.header("age").and_then(|age| age.parse::<u64>().ok());
                holds(
                    age.is_some_and(|age| (*from..=*to).contains(&age)),
                    format!("Age is not {from} to {to}"),
                )
            }
            Expect::Interim(status) => {
                holds(self.interim.contains(status), format!("the client saw no {status}"))
            }
        }
    }
}

fn has(fields: &[(String, String)], line: &str) -> bool {
    let (name, value) = line.split_once(':').map_or((line, None), |(name, value)| (name, Some(value.trim())));
    fields.iter().any(|(key, held)| key.eq_ignore_ascii_case(name) && value.is_none_or(|value| value == held))
}

fn fields_of(head: &str) -> Vec<(String, String)> {
    head.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Header lines, each with its end, with dates and places filled in.
fn lines(fields: &str, base: &str) -> String {
    let line = |line: &str| format!("{}\r\n", dated(&line.replace("{base}", base)));
    fields.split('|').filter(|field| !field.is_empty()).map(line).collect()
}

fn dated(line: &str) -> String {
    let Some((before, offset)) = line.split_once('@') else { return line.to_owned() };
    let end = offset.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '+').unwrap_or(offset.len());
    let Ok(seconds) = offset[..end].parse::<i64>() else { return line.to_owned() };
    let span = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let date = httpdate::fmt_http_date(if seconds < 0 { now - span } else { now + span });
    format!("{before}{date}{}", dated(&offset[end..]))
}

async fn serve(mut stream: TcpStream, plan: Arc<Plan>) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let fields = fields_of(&head);
        let number = |name: &str| -> usize {
            let field = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            field.and_then(|(_, value)| value.parse().ok()).unwrap_or(usize::MAX)
        };
        let place = (number("x-case"), number("x-step"));
        plan.heads.lock().entry(place).or_default().push(head.clone());
        let base: String =
            head.split(' ').nth(1).unwrap_or("/").splitn(4, ['/', '?']).take(3).collect::<Vec<_>>().join("/");
        let Some(reply) = plan.replies.get(&place) else { return };
        if !answer(&mut stream, reply, &base, head.starts_with("HEAD ")).await {
            return;
        }
    }
}

/// Whether the connection is kept.
async fn answer(stream: &mut TcpStream, reply: &Reply, base: &str, to_head: bool) -> bool {
    let Reply { status, fields, body, interim } = reply;
    let mut text = String::new();
    if !interim.is_empty() {
        text = format!("HTTP/1.1 {}\r\n\r\n", interim.replace('|', "\r\n"));
    }
    text += &format!("HTTP/1.1 {status} X\r\n{}", lines(fields, base));
    let has_body = !to_head && !matches!(status, 204 | 304);
    match body {
        Body::Nothing => return false,
        _ if *status == 304 || *status == 204 => text += "\r\n",
        Body::Whole(body) => {
            let length = if fields.to_ascii_lowercase().contains("content-length:") {
                String::new()
            } else {
                format!("Content-Length: {}\r\n", body.len())
            };
            text += &format!("{length}\r\n{}", if has_body { body } else { "" });
        }
        Body::Chunked(body, trailers) => {
            text += "Transfer-Encoding: chunked\r\n\r\n";
            if has_body {
                text += &format!("{:x}\r\n{body}\r\n0\r\n{}\r\n", body.len(), lines(trailers, base));
            }
        }
        Body::Cut => text += "Content-Length: 100\r\n\r\nonly the begin",
    }
    stream.write_all(text.as_bytes()).await.is_ok() && !matches!(body, Body::Cut)
}
