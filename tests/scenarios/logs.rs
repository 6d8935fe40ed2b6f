//! What is written of requests, what is not, and that nobody who reads it late can slow one.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Act, Backend, Connection, Gateway, Load, backends, eventually, gateway, request};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_backend_and_not_the_log() {
    let backend = Backend::start(Act::Answer(200)).await;
    let site = site(&[&backend], "", "");
    let gateway = Gateway::start(&site).await;
    let asked = "/a?q=1&Token=SECRET&%63ode=SECRET&key=SECRET;x&password=SECRET&my_token=2";
    let record = gateway.record(&gateway.get(asked).await).await;
    assert_eq!(record["path"], "/a");
    assert_eq!(record["query"], "q=1&Token=***&%63ode=***&key=***&password=***&my_token=2");
    assert_eq!(record["client"], "127.0.0.1");
    assert!(backend.heads()[0].starts_with(&format!("GET {asked} HTTP/1.1\r\n")));
    let record = gateway.record(&gateway.get("/a").await).await;
    assert!(record["query"].is_null());
    let absolute = "GET http://me:SECRET@test/a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let answer = request(gateway.address, absolute).await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(gateway.record(&answer).await["host"], "");

    gateway.write_config_logging(", mask: { query: [q], client_ip: /24 }", &site);
    gateway.reload("ok").await;
    let record = gateway.record(&gateway.get("/a?q=SECRET&token=2").await).await;
    assert_eq!((&record["query"], &record["client"]), (&"q=***&token=2".into(), &"127.0.0.0".into()));
    let text = std::fs::read_to_string(gateway.folder.join("access.log")).unwrap();
    assert!(!text.contains("SECRET"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usual_names_of_secrets_are_masked_in_every_spelling() {
    let backend = Backend::start(Act::Close).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", "")).await;
    let names = [
        "access_token",
        "id_token",
        "refresh_token",
        "client_secret",
        "api_key",
        "apikey",
        "api-key",
        "apiKey",
        "sig",
        "Signature",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "x-amz-security-token",
        "X-Goog-Signature",
        "code",
        "password",
        "passwd",
        "pwd",
        "token",
        "session",
        "session_id",
        "sessionid",
        "sid",
        "jwt",
        "secret",
        "auth",
        "%61ccess%5Ftoken",
        "user[password]",
        "token[]",
        "user%5Bsecret%5D",
    ];
    let query: Vec<String> = names.iter().map(|name| format!("{name}=SECRET")).collect();
    let answer = gateway.get(&format!("/a?page=1&{}", query.join("&"))).await;
    assert_eq!(answer.status, 502);
    let record = gateway.record(&answer).await;
    let masked = query.join("&").replace("SECRET", "***");
    assert_eq!(record["query"], format!("page=1&{masked}"));
    let failures = crate::harness::get_admin(gateway.admin, "/api/v1/failures").await.unwrap().text();
    assert!(failures.contains("access_token=***") && !failures.contains("SECRET"), "{failures}");
    let (_, explained) =
        gateway.command(&["explain", answer.header("x-request-id").unwrap(), "--config"]).await;
    assert!(!explained.contains("SECRET"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_response_that_cannot_be_read_is_in_a_record() {
    let bad = [
        "HTTP/1.1 200 OK\r\nSet-Cookie: session=SECRET\r\nbad line SECRET\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSet-Cookie: session=SECRET\r\nContent-Length: SECRET\r\n\r\n",
        "HTTP/1.1 2x0 SECRET\r\n\r\n",
        "SECRET SECRET\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcSECRET\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSet-Cookie: SECRET",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nSECRET",
    ];
    let backend = Backend::start(Act::Close).await;
    let gateway = Gateway::start(&site(&[&backend], "    max_fails: 0\n", "")).await;
    for bytes in bad {
        backend.set(Act::BytesThenClose(bytes.as_bytes().to_vec()));
        let before = gateway.records().len();
        let _ = crate::harness::get(gateway.address, "/a").await;
        eventually("the record", || async { gateway.records().len() > before }).await;
    }
    let text = std::fs::read_to_string(gateway.folder.join("access.log")).unwrap();
    assert!(text.contains("\"detail\":\"invalid header name\""), "{text}");
    let failures = crate::harness::get_admin(gateway.admin, "/api/v1/failures").await.unwrap().text();
    for said in [text, failures, gateway.errors()] {
        assert!(!said.contains("SECRET") && !said.contains("Set-Cookie"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_requests_are_sampled_away_and_a_reload_changes_that() {
    let backend = Backend::start(Act::Answer(200)).await;
    let refusing = Backend::refusing().await;
    let site = site(&[&backend, &refusing], "    max_fails: 0\n", "    match: { path: /a }\n");
    let gateway = Gateway::start_logging(", sample_ok: 0.0", &site).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/a").await.status, 200);
    }
    assert_eq!(gateway.get("/elsewhere").await.status, 404);
    backend.set(Act::Answer(500));
    assert_eq!(gateway.get("/a/500").await.status, 500);
    assert!(Connection::open(gateway.address).await.unwrap().send("rubbish\r\n\r\n").await.is_ok());
    gateway.record_where("the refused request", |record| record["status"] == 400).await;
    let records = gateway.records();
    let is_rescued = |record: &&Value| record["path"] == "/a" && record["rescue"]["by"] == "retry";
    let rescued = records.iter().filter(is_rescued).count();
    assert!((9..=11).contains(&rescued), "every second request met the dead backend first: {rescued}");
    let of = |path: &str| records.iter().filter(|record| record["path"] == path).count();
    assert_eq!((of("/a"), of("/elsewhere"), of("/a/500")), (rescued, 1, 1));
    assert_eq!(records.len(), rescued + 3);

    backend.set(Act::Answer(200));
    gateway.write_config_logging(", sample_ok: 1.0", &site);
    gateway.reload("ok").await;
    for _ in 0..2 {
        gateway.record(&gateway.get("/a/all").await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_for_people_holds_what_a_client_may_not_forge() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    a.die().await;
    let site = site(&[&a, &b], "    max_fails: 0\n", "");
    let gateway = Gateway::start_logging(", format: text", &site).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let head = b"GET /a?token=x&b=%22 HTTP/1.1\r\nHost: test\r\nUser-Agent: me\" \xff\x80 cause=none\r\n\r\n";
    let mut ids = Vec::new();
    for _ in 0..2 {
        connection.send(head).await.unwrap();
        let answer = connection.answer(false).await.unwrap();
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    let lines = || std::fs::read_to_string(gateway.folder.join("access.log")).unwrap();
    eventually("both lines", || async { lines().lines().count() == 2 }).await;
    let text = lines();
    let rescued = text.lines().find(|line| line.contains("rescue=retry")).expect("one met the dead backend");
    let (start, rest) = rescued.split_once(" \"GET ").unwrap();
    assert!(start.starts_with("127.0.0.1 20") && start.ends_with('Z'), "{rescued}");
    assert!(rest.starts_with("test /a?token=***&b=%22 HTTP/1.1\" 200 "), "{rescued}");
    for part in [
        " origin=backend cause=- rescue=retry:connection_refused cache=- route=*/ id=",
        r#" agent="me\x22 \xEF\xBF\xBD\xEF\xBF\xBD cause=none" "#,
        &format!(" [{} connect connection_refused ", a.address),
        &format!("ms -> nothing_sent] [{} 200 ", b.address),
    ] {
        assert!(rescued.contains(part), "{part} is not in {rescued}");
    }
    assert!(ids.iter().any(|id| rescued.contains(&format!(" id={id} "))), "{rescued}");
    assert!(text.is_ascii() && rescued.ends_with("ms]"), "{rescued}");

    gateway.write_config_logging(", format: json", &site);
    gateway.reload("ok").await;
    connection.send(head).await.unwrap();
    let record = gateway.record(&connection.answer(false).await.unwrap()).await;
    assert_eq!(record["user_agent"], "me\" \u{fffd}\u{fffd} cause=none");
    gateway.write_config(&site);
    let file = gateway.folder.join("goodgate.yaml");
    let elsewhere = std::fs::read_to_string(&file).unwrap().replace("access.log", "other.log");
    std::fs::write(&file, elsewhere).unwrap();
    gateway.reload("ok").await;
    let warned = "changed, but takes effect only after a restart setting=access_log.path";
    eventually("the warning", || async { gateway.errors().contains(warned) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_opened_again_and_no_record_is_lost() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let log = gateway.folder.join("access.log");
    let load = Load::start(
        gateway.address,
        8,
        |client, at| format!("/{client}/{at}"),
        |_, answer| answer.status == 200,
    );
    for turn in 1..=5 {
        load.more(50).await;
        std::fs::rename(&log, gateway.folder.join(format!("access.log.{turn}"))).unwrap();
        gateway.signal(Signal::SIGUSR1);
        eventually("a new file", || async { log.metadata().is_ok_and(|file| file.len() > 0) }).await;
    }
    let report = load.stop().await;
    report.assert_good();
    let all = || {
        let names =
            ["", ".1", ".2", ".3", ".4", ".5"].map(|end| gateway.folder.join(format!("access.log{end}")));
        names.iter().map(|name| std::fs::read_to_string(name).unwrap()).collect::<String>()
    };
    eventually("all records", || async { all().lines().count() as u64 == report.answers }).await;
    assert!(all().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(gateway.metric("goodgate_log_dropped_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_again_is_used_on() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = gateway::folder();
    std::fs::create_dir(folder.join("logs")).unwrap();
    let gateway = Gateway::start_in(folder, &logging_to("logs/access.log", &backend)).await;
    let moved = gateway.folder.join("moved");
    std::fs::rename(gateway.folder.join("logs"), &moved).unwrap();
    gateway.signal(Signal::SIGUSR1);
    let said = || gateway.errors().contains("ERROR") && gateway.errors().contains("cannot be opened again");
    eventually("an error", || async { said() }).await;
    assert_eq!(gateway.get("/kept").await.status, 200);
    let file = moved.join("access.log");
    eventually("the record", || async { std::fs::read_to_string(&file).unwrap().contains("/kept") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_for_ten_seconds_slows_no_request() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = gateway::folder();
    let pipe = folder.join("access.log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let gateway = Gateway::start_in(folder, &logging_to("access.log", &backend)).await;
    let reader = Reader::of(&pipe);
    let before = latencies(&gateway, Duration::from_secs(2)).await;
    assert_eq!(gateway.metric("goodgate_log_dropped_total").await, 0.0);
    reader.read(false);
    let blocked = latencies(&gateway, Duration::from_secs(10)).await;
    let dropped = gateway.metric("goodgate_log_dropped_total").await;
    eprintln!("read: {before:?}, not read: {blocked:?}, dropped: {dropped}");
    assert!(dropped > 0.0, "the buffer was full");
    assert!(blocked.slowest < Duration::from_secs(1), "{blocked:?}");
    assert!(blocked.median < before.median * 2 + Duration::from_millis(2), "{before:?}, then {blocked:?}");
    reader.read(true);
    eventually("records flow again", || async {
        gateway.get("/first").await.status == 200 && reader.has_seen("\"path\":\"/first\"")
    })
    .await;
    let dropped = gateway.metric("goodgate_log_dropped_total").await;
    assert_eq!(gateway.get("/last").await.status, 200);
    eventually("the last record", || async { reader.has_seen("\"path\":\"/last\"") }).await;
    assert_eq!(gateway.metric("goodgate_log_dropped_total").await, dropped, "no more are dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_a_closed_output_only_count_drops() {
    let backend = Backend::start(Act::Answer(200)).await;
    let full = Gateway::start_in(gateway::folder(), &logging_to("/dev/full", &backend)).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed =
        Gateway::start_writing_to(writer.into(), gateway::folder(), &logging_to("stdout", &backend)).await;
    let to_full = File::options().write(true).open("/dev/full").unwrap();
    let full_output =
        Gateway::start_writing_to(Stdio::from(to_full), gateway::folder(), &logging_to("stdout", &backend))
            .await;
    for gateway in [full, closed, full_output] {
        for _ in 0..20 {
            assert_eq!(gateway.get("/").await.status, 200);
        }
        eventually("20 drops", || async { gateway.metric("goodgate_log_dropped_total").await == 20.0 }).await;
        let errors = gateway.errors();
        assert_eq!(errors.matches("the access log cannot be written").count(), 1, "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_log_that_nobody_reads_stops_nothing() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let good = site(&[&a, &b], "    fail_timeout: 100ms\n", "");
    let mut gateway = Gateway::start(&good).await;
    gateway.read_errors(false);
    // Each of these problems is a line: more than a pipe holds, and in the end more than the buffer.
    let problems: String = (0..3000).map(|at| format!("colour{at}: red\n")).collect();
    gateway.write_config(&(good.clone() + &problems));
    for _ in 0..8 {
        gateway.reload("failed").await;
    }
    a.die().await;
    let asked = latencies(&gateway, Duration::from_secs(2)).await;
    assert!(asked.slowest < Duration::from_secs(1), "{asked:?}");
    assert!(gateway.metric("goodgate_ejections_total").await > 0.0, "which was logged");
    gateway.read_errors(true);
    eventually("what is missing is said", || async {
        gateway.errors().contains("lines of this log were dropped")
    })
    .await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
    eventually("the last words", || async { gateway.errors().ends_with("goodgate has stopped") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_does_not_read() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = gateway::folder();
    nix::unistd::mkfifo(&folder.join("access.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let good = logging_to("access.log", &backend);
    let mut gateway = Gateway::start_in(folder, &good).await;
    gateway.read_errors(false);
    let problems: String = (0..3000).map(|at| format!("colour{at}: red\n")).collect();
    std::fs::write(gateway.folder.join("goodgate.yaml"), good + &problems).unwrap();
    gateway.reload("failed").await;
    latencies(&gateway, Duration::from_millis(500)).await;
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_before_a_hard_end_are_written() {
    let backend = Backend::start(Act::Hang).await;
    let mut gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    eventually("the request is under way", || async { backend.requests() == 1 }).await;
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", || async { gateway.errors().contains("goodgate stops") }).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(20)).await, Some(1));
    let last = "told to stop a second time: ending at once";
    eventually("the last words", || async { gateway.errors().ends_with(last) }).await;
}

/// A whole configuration with the access log there.
fn logging_to(path: &str, backend: &Backend) -> String {
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\naccess_log: {{ path: {path} }}\n{}",
        site(&[backend], "", "")
    )
}

/// How long requests took.
#[derive(Debug)]
struct Latencies {
    median: Duration,
    slowest: Duration,
}

/// Sixteen clients ask with long queries, which make long records. Every answer must be good.
async fn latencies(gateway: &Gateway, time: Duration) -> Latencies {
    let end = Instant::now() + time;
    let query = "x".repeat(4000);
    let mut clients = JoinSet::new();
    for client in 0..16 {
        let (address, path) = (gateway.address, format!("/{client}?{query}"));
        clients.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let mut took = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                let answer = connection.get(&path).await.unwrap();
                took.push(start.elapsed());
                assert_eq!(answer.status, 200);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            took
        });
    }
    let mut all: Vec<Duration> = clients.join_all().await.concat();
    all.sort();
    Latencies { median: all[all.len() / 2], slowest: all[all.len() - 1] }
}

/// Who reads a pipe, or does not.
struct Reader {
    wanted: Arc<AtomicBool>,
    seen: Arc<parking_lot::Mutex<Vec<u8>>>,
}

impl Reader {
    fn of(pipe: &std::path::Path) -> Self {
        let mut file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(pipe).unwrap();
        let reader = Self { wanted: Arc::default(), seen: Arc::default() };
        reader.read(true);
        let (wanted, seen) = (Arc::clone(&reader.wanted), Arc::clone(&reader.seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while Arc::strong_count(&seen) > 1 {
                let is_wanted = wanted.load(Ordering::SeqCst);
                match is_wanted.then(|| file.read(&mut bytes)) {
                    Some(Ok(count @ 1..)) => seen.lock().extend_from_slice(&bytes[..count]),
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        reader
    }

    fn read(&self, is_wanted: bool) {
        self.wanted.store(is_wanted, Ordering::SeqCst);
    }

    fn has_seen(&self, text: &str) -> bool {
        self.seen.lock().windows(text.len()).any(|window| window == text.as_bytes())
    }
}
