//! The matrix itself: one gateway with three upstreams and routes for each fault.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::kinds::{self, Fault, Kind, TlsFault};
use crate::harness::backend::{BlackHole, page};
use crate::harness::dns::{Dns, Zone};
use crate::harness::gateway::sum;
use crate::harness::tls::{Authority, Identity, in_front_of, valid};
use crate::harness::{Answer, Backend, Gateway, eventually, request};

/// What stands by: nothing, another backend, a copy.
const HELP: [&str; 3] = ["alone", "pair", "copy"];
const WORDS: &str =
    "error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_429, http_403, http_404";

/// Backends with faults, where they are, and what keeps them.
struct Stage {
    faults: Vec<(Fault, String)>,
    healthy: Backend,
    dns: Dns,
    ca: std::path::PathBuf,
    folder: std::path::PathBuf,
    _backends: Vec<Backend>,
    _hole: BlackHole,
}

impl Stage {
    async fn set(kinds: Vec<Fault>) -> Self {
        let healthy = Backend::start(page("", "healthy")).await;
        let hole = BlackHole::open().await;
        let authority = Authority::new();
        let folder = crate::harness::gateway::folder();
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let mut faults = Vec::new();
        let mut backends = Vec::new();
        for fault in kinds {
            let address = match &fault.kind {
                Kind::Act(act) => {
                    backends.push(Backend::start(act.clone()).await);
                    backends.last().unwrap().address.to_string()
                }
                Kind::Refuses => Backend::refusing().await.address.to_string(),
                Kind::BlackHole => hole.address.to_string(),
                Kind::Name(name) => format!("{name}:{}", healthy.address.port()),
                Kind::Tls(wrong) => format!("https://{}", tls(*wrong, &authority, healthy.address).await),
            };
            faults.push((fault, address));
        }
        let dns = Dns::start(Zone::NoSuchName).await;
        Self { faults, healthy, dns, ca, folder, _backends: backends, _hole: hole }
    }

    /// With `taught`, all but the copies' upstreams are as they will be; those have a healthy backend, from
    /// which the copies come.
    fn config(&self, teaching: bool) -> String {
        let mut upstreams = String::new();
        let mut routes = String::new();
        for (Fault { name, .. }, address) in &self.faults {
            for help in HELP {
                let healthy = self.healthy.address;
                let backends = match help {
                    "pair" => format!("'{address}', {healthy}"),
                    "copy" if teaching => healthy.to_string(),
                    _ => format!("'{address}'"),
                };
                let cache = if help == "copy" {
                    format!("    cache: {{ mode: fallback, use_stale: [{WORDS}] }}\n")
                } else {
                    String::new()
                };
                upstreams += &format!(
                    "  {help}-{name}:\n    max_fails: 0\n    backends: [{backends}]\n    tls: {{ sni: app.test, ca: {} }}\n    \
                     timeouts: {{ connect: 300ms, first_byte: 300ms, read: 300ms, idle: 500ms }}\n",
                    self.ca.display()
                );
                routes += &format!(
                    "  - name: {help}-{name}\n    match: {{ path: /{help}/{name} }}\n    upstream: {help}-{name}\n    \
                     retry: {{ on: [{WORDS}] }}\n{cache}"
                );
            }
        }
        // What has no scheme of its own is spoken to without TLS.
        let upstreams = plain(&upstreams);
        format!("server: {{ resolver: ['{}'] }}\nupstreams:\n{upstreams}routes:\n{routes}", self.dns.address)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes `http://` before every address without a scheme.
fn plain(upstreams: &str) -> String {
    let lines = upstreams.lines().map(|line| match line.trim_start().strip_prefix("backends: [") {
        Some(list) => {
            let addresses = list.trim_end_matches(']').split(", ").map(|address| address.trim_matches('\''));
            let schemed: Vec<String> =
                addresses
                    .map(|address| {
                        if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
                    })
                    .map(|address| format!("'{address}'"))
                    .collect();
            format!("    backends: [{}]\n", schemed.join(", "))
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

async fn tls(wrong: TlsFault, authority: &Authority, behind: SocketAddr) -> SocketAddr {
    let server = match wrong {
        TlsFault::Expired => authority.server(Identity { name: "app.test", is_expired: true }),
        TlsFault::WrongName => authority.server(valid("other.test")),
        TlsFault::UnknownIssuer => Authority::new().server(valid("app.test")),
        TlsFault::WantsClientCertificate => authority.server_for_known_clients(valid("app.test")),
        TlsFault::PlainHttp => return talks(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await,
        TlsFault::ClosesInHandshake => return talks(b"").await,
    };
    in_front_of(behind, server).await
}

/// Says this to whoever connects, and closes.
async fn talks(text: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut hello = [0; 1024];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await;
                let _ = stream.write_all(text).await;
            });
        }
    });
    address
}

/// Open files and resident kilobytes of the gateway.
fn resources(gateway: &Gateway) -> (usize, u64) {
    let process = format!("/proc/{}", gateway.pid());
    let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
    (files, gateway.resident_bytes() >> 10)
}

/// The gateway with what one request of the matrix changes.
struct Trial<'a> {
    gateway: &'a Gateway,
    fault: &'a Fault,
    before: String,
    after: String,
    record: Value,
    answer: Answer,
}

impl<'a> Trial<'a> {
    async fn run(gateway: &'a Gateway, fault: &'a Fault, help: &str, method: &str) -> Self {
        let before = gateway.metrics().await;
        let body = if method == "PUT" { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
        let head = format!("{method} /{help}/{} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n", fault.name);
        let answer = request(gateway.address, &(head + body)).await.expect("an answer");
        let record = gateway.record(&answer).await;
        let after = gateway.metrics().await;
        Self { gateway, fault, before, after, record, answer }
    }

    fn grew(&self, selector: &str) -> f64 {
        sum(&self.after, selector) - sum(&self.before, selector)
    }

    fn is(&self, what: &str, holds: bool) {
        let (name, record, answer) = (&self.fault.name, &self.record, &self.answer);
        assert!(holds, "{name}: {what}\n{record}\n{answer:?}\n{}", self.gateway.errors());
    }

    /// Whether the fault was met at all: a pair may have begun with its healthy one.
    fn met(&self) -> bool {
        self.record["attempts"][0]["cause"] == self.fault.cause
    }

    fn counted_once(&self, help: &str) {
        let (name, cause) = (&self.fault.name, self.fault.cause);
        let failures =
            format!("goodgate_attempt_failures_total{{cause=\"{cause}\",upstream=\"{help}-{name}\"}}");
        self.is("the attempt is counted", self.grew(&failures) == 1.0);
    }

    fn cut(&self) {
        self.is("the header had gone out", self.answer.status == 200);
        self.is("the client sees that the body is cut", !self.answer.complete);
        self.is("the record has the cause", self.record["cause"] == self.fault.cause);
        self.is("nothing is claimed to be averted", self.record["rescue"].is_null());
    }
}

async fn alone(gateway: &Gateway, fault: &Fault) {
    let trial = Trial::run(gateway, fault, "alone", "GET").await;
    let is_dns = fault.cause.starts_with("dns_");
    if !is_dns {
        trial.is("it was met", trial.met());
        trial.counted_once("alone");
    }
    if fault.cuts {
        return trial.cut();
    }
    trial.is("the status is that of the cause", trial.answer.status == fault.status);
    trial.is("the answer is whole", trial.answer.complete);
    trial.is("it says so", trial.record["status"] == fault.status);
    let errors =
        format!("goodgate_gateway_errors_total{{cause=\"{}\",route=\"alone-{}\"}}", fault.cause, fault.name);
    if fault.cause.starts_with("received_") {
        trial.is("it is the backend's own answer", trial.record["origin"] == "backend");
        trial.is("and none of ours", trial.grew(&errors) == 0.0);
        return;
    }
    trial.is("the record has the cause", trial.record["cause"] == fault.cause);
    let header = trial.answer.header("proxy-status").unwrap_or_default();
    trial.is(
        "Proxy-Status names it",
        header.starts_with(&format!("goodgate; error={}; details=", fault.cause)),
    );
    trial.is("nobody may keep it", trial.answer.header("cache-control") == Some("no-store"));
    trial.is("it is counted", trial.grew(&errors) == 1.0);
}

async fn pair(gateway: &Gateway, fault: &Fault) {
    let mut met = 0;
    // Two backends take turns, so that one of two requests begins with each; a name that gives no address
    // leaves the other one alone.
    for method in ["GET", "GET", "PUT", "PUT"] {
        let trial = Trial::run(gateway, fault, "pair", method).await;
        if trial.met() && fault.cuts {
            trial.cut();
        } else {
            trial.is("the other one answers", trial.answer.status == 200 && trial.answer.text() == "healthy");
            trial.is("the answer is whole", trial.answer.complete);
        }
        if trial.met() && !fault.cuts {
            let (name, cause) = (&fault.name, fault.cause);
            let rescues =
                format!("goodgate_rescues_total{{by=\"retry\",cause=\"{cause}\",route=\"pair-{name}\"}}");
            trial.is("the rescue is counted", trial.grew(&rescues) == 1.0);
            trial.is(
                "and recorded",
                trial.record["rescue"]["cause"] == cause && trial.record["cause"].is_null(),
            );
            let errors = format!("goodgate_gateway_errors_total{{route=\"pair-{name}\"}}");
            trial.is("no error of ours", trial.grew(&errors) == 0.0);
        }
        met += u32::from(trial.met());
    }
    let expected = if fault.cause.starts_with("dns_") { 0 } else { 2 };
    assert_eq!(met, expected, "{}: every second request meets it", fault.name);
}

async fn copy(gateway: &Gateway, fault: &Fault) {
    let trial = Trial::run(gateway, fault, "copy", "GET").await;
    if fault.cuts {
        return trial.cut();
    }
    trial.is("the copy is served", trial.answer.status == 200 && trial.answer.text() == "healthy");
    trial.is("the copy is whole", trial.answer.complete);
    trial.is("it has an age", trial.answer.header("age").is_some());
    trial.is("it comes from the cache", trial.record["origin"] == "cache");
    let by = format!("goodgate_rescues_total{{by=\"stale\",route=\"copy-{}\"}}", fault.name);
    trial.is("the rescue is counted", trial.grew(&by) == 1.0);
    let rescue = &trial.record["rescue"];
    trial.is("and recorded", rescue["by"] == "stale" && trial.record["cause"].is_null());
    let known = rescue["cause"] == fault.cause || rescue["cause"] == "destination_unavailable";
    trial.is("with what it was averted from", known);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_cannot_be_reached_is_named_and_averted() {
    run(kinds::unreachable()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_begin_in_time_is_named_and_averted() {
    run(kinds::early()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_is_named_and_averted() {
    run(kinds::not_http()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_named_and_never_called_complete() {
    run(kinds::in_the_body()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_backend_is_averted_or_passed_on() {
    run(kinds::received()).await;
}

async fn run(kinds: Vec<Fault>) {
    let stage = Stage::set(kinds).await;
    let gateway = Gateway::start(&stage.config(true)).await;
    let files_at_first = resources(&gateway).0;
    for (fault, _) in &stage.faults {
        let learned = gateway.get(&format!("/copy/{}", fault.name)).await;
        assert_eq!(learned.text(), "healthy", "{}", fault.name);
    }
    gateway.write_config(&stage.config(false));
    gateway.reload("ok").await;
    let mut first = None;
    for _ in 0..2 {
        for (fault, _) in &stage.faults {
            alone(&gateway, fault).await;
            pair(&gateway, fault).await;
            copy(&gateway, fault).await;
        }
        first.get_or_insert_with(|| resources(&gateway).1);
    }
    let puts = stage.healthy.bodies().iter().filter(|body| **body == b"hello").count();
    // Two rounds of two PUTs; of those that meet a cut answer the healthy one hears nothing.
    let expected: usize = stage.faults.iter().map(|(fault, _)| if fault.cuts { 2 } else { 4 }).sum();
    assert_eq!(puts, expected, "each PUT came to the healthy backend once, with its body");
    let before = first.unwrap();
    // Two more: this scenario's own to the admin side.
    eventually("connections are closed", || async { resources(&gateway).0 <= files_at_first + 2 }).await;
    let (files, after) = resources(&gateway);
    eprintln!(
        "{} faults; {before} KiB resident after one round, {after} after two; {files} files open",
        stage.faults.len()
    );
    assert!(after < before + (8 << 10), "memory grows: {before} KiB, then {after} KiB");
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}
