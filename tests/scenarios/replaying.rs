//! Bodies that are sent again though they are long: `retry.max_body_bytes` and the spool.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::harness::backend::{read_head, response};
use crate::harness::gateway::folder;
use crate::harness::script::Scripted;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};

const MIB: usize = 1 << 20;

/// What a backend does that has read so much of a body.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
    Answer(u16),
}

/// A backend that reads so many bytes of each upload, and then ends.
async fn dying(after: usize, end: End) -> Scripted {
    Scripted::start(move |mut stream: TcpStream| async move {
        let mut buffer = Vec::new();
        let head = read_head(&mut stream, &mut buffer).await;
        if !head.is_some_and(|head| head.starts_with('P')) {
            return;
        }
        let mut read = buffer.len();
        let mut waste = vec![0; 65536];
        while read < after {
            match stream.read(&mut waste).await {
                Ok(count) if count > 0 => read += count,
                _ => return,
            }
        }
        match end {
            End::Close => {}
            End::Reset => stream.set_zero_linger().unwrap(),
            End::Answer(status) => {
                let text = response(status, "Connection: close\r\n", "early", false);
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                while stream.read(&mut waste).await.is_ok_and(|count| count > 0) {}
            }
        }
    })
    .await
}

/// Two backends, of which the first is bad and is never ejected, and a route that keeps bodies.
async fn start(bad: &Scripted, good: &Backend, server: &str, route: &str) -> Gateway {
    Gateway::start(&config(bad, good, server, route)).await
}

fn config(bad: &Scripted, good: &Backend, server: &str, route: &str) -> String {
    format!(
        "{server}upstreams:\n  web:\n    max_fails: 0\n    backends: ['{}', '{}']\nroutes:\n  - upstream: web\n    retry: {{ max_body_bytes: 20MiB{route} }}\n",
        bad.address, good.address
    )
}

/// A body of which every part is another.
fn body(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8)).flat_map(|at| format!("{at:08x}").into_bytes()).take(bytes).collect()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in body.chunks(100_000) {
        all.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        all.extend_from_slice(piece);
        all.extend(b"\r\n");
    }
    all.extend(b"0\r\n\r\n");
    all
}

/// What chunks hold; what is empty may have none.
fn content(mut chunks: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !chunks.is_empty() {
        let end = chunks.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        all.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 4 + size..];
    }
    all
}

/// Sends a request on a connection that is kept, its body while the answer is waited for.
async fn send(connection: &mut Connection, head: &str, body: &[u8]) -> Answer {
    connection.send(format!("{head}\r\n\r\n")).await.unwrap();
    // An early answer may come with a connection that takes nothing more.
    let _ = connection.send(body).await;
    connection.answer(false).await.unwrap()
}

async fn put(connection: &mut Connection, body: &[u8]) -> Answer {
    send(connection, &format!("PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: {}", body.len()), body).await
}

async fn is_left(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

async fn nothing_is_held(gateway: &Gateway) {
    eventually("no body is kept", || async { gateway.metric("goodgate_spool_bytes").await == 0.0 }).await;
}

async fn bodies(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("goodgate_spool_bodies_total{{result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_backend_dies_half_way_is_finished_by_another() {
    let whole = body(10 * MIB);
    for (after, end) in
        [(5 * MIB, End::Close), (5 * MIB, End::Reset), (10 * MIB, End::Close), (0, End::Answer(503))]
    {
        let (bad, good) = (dying(after, end).await, Backend::start(Act::Answer(200)).await);
        let spool = folder();
        let server = format!("server: {{ spool: {{ path: {} }} }}\n", spool.display());
        let gateway = start(&bad, &good, &server, "").await;
        let mut connection = Connection::open(gateway.address).await.unwrap();
        for is_chunked in [false, true, false, true] {
            let answer = if is_chunked {
                let head = "PUT /file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked";
                send(&mut connection, head, &chunked(&whole)).await
            } else {
                put(&mut connection, &whole).await
            };
            assert_eq!(answer.status, 200, "{after} {end:?}");
            let got = good.bodies().pop().unwrap();
            assert!(if is_chunked { content(&got) == whole } else { got == whole }, "{after} {end:?}");
            if answer.header("connection") == Some("close") {
                connection = Connection::open(gateway.address).await.unwrap();
            }
        }
        assert_eq!((good.requests(), bad.accepted()), (4, 2), "{after} {end:?}");
        eventually("all records", || async { gateway.records().len() == 4 }).await;
        for record in gateway.records() {
            let attempts = record["attempts"].as_array().unwrap();
            assert_eq!(record["bytes_received"], 10 * MIB, "{record}");
            assert_eq!(attempts.len() == 2, record["rescue"]["by"] == "retry", "{record}");
            assert_eq!(attempts.last().unwrap()["bytes_out"], 10 * MIB, "{record}");
        }
        assert_eq!(gateway.metric("goodgate_responses_total{status=\"200\"}").await, 4.0);
        assert_eq!(gateway.metric("goodgate_rescues_total{by=\"retry\"}").await, 2.0);
        nothing_is_held(&gateway).await;
        assert_eq!((bodies(&gateway, "kept").await, is_left(&spool).await), (4.0, 0));
        std::fs::remove_dir(spool).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_length_nobody_says_may_be_short_or_empty() {
    for bytes in [0, 1, 1000, 70_000] {
        let (bad, good) = (dying(bytes, End::Close).await, Backend::start(Act::Answer(200)).await);
        let gateway = start(&bad, &good, "", "").await;
        for _ in 0..2 {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let head = "PUT /file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked";
            assert_eq!(send(&mut connection, head, &chunked(&body(bytes))).await.status, 200, "{bytes}");
            assert!(content(&good.bodies().pop().unwrap()) == body(bytes), "{bytes}");
        }
        assert_eq!((good.requests(), bad.accepted()), (2, 1), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_which_a_part_is_lost_never_passes_for_the_whole() {
    let passes = Arc::new((Notify::new(), AtomicBool::new(false)));
    let pass = Arc::clone(&passes);
    let bad = Scripted::start(move |mut stream: TcpStream| {
        let pass = Arc::clone(&pass);
        async move {
            let mut waste = vec![0; 65536];
            let mut read = 0;
            while read < 4 * MIB {
                read += stream.read(&mut waste).await.unwrap();
            }
            pass.1.store(true, Ordering::SeqCst);
            pass.0.notified().await;
        }
    })
    .await;
    let good = Backend::start(Act::Answer(200)).await;
    let gateway = start(&bad, &good, "", "").await;
    let whole = body(4 * MIB);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (address, whole) = (gateway.address, whole.clone());
        let upload =
            tokio::spawn(async move { put(&mut Connection::open(address).await.unwrap(), &whole).await });
        let before = good.requests();
        eventually("a backend has it", || async {
            good.requests() > before || passes.1.load(Ordering::SeqCst)
        })
        .await;
        if good.requests() == before {
            cut_file(&gateway).await;
            passes.1.store(false, Ordering::SeqCst);
            passes.0.notify_one();
        }
        answers.push(upload.await.unwrap());
    }
    let lost = answers.iter().find(|answer| answer.status != 200).expect("one met the bad backend");
    assert_eq!(lost.status, 500, "{lost:?}");
    let record = gateway.record(lost).await;
    assert_eq!(record["cause"], "proxy_internal_error", "{record}");
    assert_eq!(record["attempts"][1]["no_retry"], "body_too_large", "{record}");
    let wholes = good.bodies().iter().filter(|got| **got == whole).count();
    assert_eq!(wholes, 1, "what came of the other one was cut off");
    assert_eq!(bodies(&gateway, "failed").await, 1.0);
}

/// Takes away what is kept of the one body, once all of it is in its file, which has no name.
async fn cut_file(gateway: &Gateway) {
    let file = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| {
            let name = std::fs::read_link(path).map(|name| name.display().to_string()).unwrap_or_default();
            name.starts_with("/var/tmp/") && name.ends_with("(deleted)")
        })
    };
    eventually("all is written", || async {
        let held = gateway.metric("goodgate_spool_bytes").await;
        file().is_some_and(|path| std::fs::metadata(path).unwrap().len() as f64 == held)
    })
    .await;
    let file = std::fs::OpenOptions::new().write(true).open(file().unwrap()).unwrap();
    file.set_len(1000).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_and_a_date_stays_as_it_was() {
    let (bad, good) = (dying(MIB, End::Close).await, Backend::start(Act::Answer(200)).await);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    good.set(Act::Page { status: 200, headers: format!("Date: {date}\r\n"), body: "x".repeat(3 * MIB) });
    let gateway = start(&bad, &good, "", "").await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..4 {
        let answer = put(&mut connection, &body(2 * MIB)).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (200, Some("keep-alive")),
            "{:?}",
            answer.headers
        );
        assert_eq!((answer.header("date"), answer.body.len(), answer.complete), (Some(date), 3 * MIB, true));
        assert_eq!(connection.get("/page").await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_acted_on_is_sent_again_only_if_the_route_says_so() {
    for (route, expected) in [("", 502), (", replay: all", 200)] {
        let (bad, good) = (dying(MIB, End::Close).await, Backend::start(Act::Answer(200)).await);
        let gateway = start(&bad, &good, "", route).await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let post = format!("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: {}", 2 * MIB);
            seen.push(send(&mut connection, &post, &body(2 * MIB)).await);
        }
        let bad_one = seen.iter().find(|answer| answer.status == expected).expect("one met the bad backend");
        if expected == 502 {
            let record = gateway.record(bad_one).await;
            assert_eq!(record["attempts"][0]["no_retry"], "not_replayable", "{record}");
            assert_eq!(bodies(&gateway, "kept").await, 0.0, "nothing is kept in vain");
        }
        assert_eq!(bad.accepted(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_sent_once_and_the_refusal_says_so() {
    let small = "server: { spool: { size: 1MiB } }\n";
    let gone = folder();
    let lost = format!("server: {{ spool: {{ path: {} }} }}\n", gone.display());
    for (server, bytes, after, result) in [
        ("", 25 * MIB, 22 * MIB, "too_large"),
        (small, 4 * MIB, 3 * MIB, "full"),
        (&lost, 4 * MIB, 3 * MIB, "failed"),
    ] {
        let (bad, good) = (dying(after, End::Close).await, Backend::start(Act::Answer(200)).await);
        let gateway = start(&bad, &good, server, "").await;
        if result == "failed" {
            std::fs::remove_dir(&gone).unwrap();
        }
        let whole = chunked(&body(bytes));
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let mut connection = Connection::open(gateway.address).await.unwrap();
            let head = "PUT /file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked";
            let answer = send(&mut connection, head, &whole).await;
            statuses.push(answer.status);
            if answer.status == 502 {
                let record = gateway.record(&answer).await;
                assert_eq!(record["attempts"][0]["no_retry"], "body_too_large", "{result}: {record}");
            }
        }
        statuses.sort_unstable();
        assert_eq!(
            statuses,
            [200, 502],
            "{result}: the good one gets it whole, the bad one is not made up for"
        );
        assert!(content(&good.bodies()[0]) == body(bytes));
        nothing_is_held(&gateway).await;
        assert!(bodies(&gateway, result).await >= 1.0, "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_is_passed_on_and_a_client_that_leaves_leaves_nothing() {
    let bad = dying(MIB, End::Answer(413)).await;
    let good = Backend::start(Act::Answer(200)).await;
    let gateway = start(&bad, &good, "", "").await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        connection.send("PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n").await.unwrap();
        let _ = connection.send(&body(2 * MIB)).await;
        let early = tokio::time::timeout(Duration::from_secs(2), connection.answer(false)).await;
        statuses.push(early.map(|answer| answer.unwrap().status).ok());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [None, Some(413)], "the other one waits for the rest, and its client goes");
    let left = gateway.record_where("who left", |record| record["status"] == 499).await;
    assert_eq!(left["cause"], "client_disconnected", "{left}");
    nothing_is_held(&gateway).await;
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let bad = Scripted::start(|mut stream: TcpStream| async move {
        let mut buffer = Vec::new();
        if read_head(&mut stream, &mut buffer).await.is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let _ = stream.read_buf(&mut buffer).await;
        }
    })
    .await;
    let good = Backend::start(Act::Answer(200)).await;
    let gateway = start(&bad, &good, "", "").await;
    let whole = body(2 * MIB);
    let mut told = 0;
    for _ in 0..2 {
        let mut connection = Connection::open(gateway.address).await.unwrap();
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            whole.len()
        );
        connection.send(head).await.unwrap();
        // As clients do, it does not wait for ever.
        if tokio::time::timeout(Duration::from_millis(500), connection.sees(b"100 Continue")).await.is_ok() {
            told += 1;
        }
        connection.send(&whole).await.unwrap();
        assert_eq!(connection.answer(false).await.unwrap().status, 200);
        assert!(good.bodies().pop().unwrap() == whole);
    }
    assert_eq!(told, 2, "by either backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_over_http_2_are_sent_again_too() {
    let (bad, good) = (dying(2 * MIB, End::Reset).await, Backend::start(Act::Answer(200)).await);
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', http2: true, tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}",
        folder.join("access.log").display(),
        config(&bad, &good, "", "")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let whole = body(4 * MIB);
    for _ in 0..4 {
        let request = http::Request::put("https://site.test/file").body(()).unwrap();
        let (answer, mut stream) =
            client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        let mut rest = bytes::Bytes::from(whole.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len().min(65536));
            let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            let room = room.expect("the stream is open").unwrap();
            let piece = rest.split_to(room.min(rest.len()));
            stream.send_data(piece, rest.is_empty()).unwrap();
        }
        assert_eq!(answer.await.unwrap().status(), 200);
        assert!(content(&good.bodies().pop().unwrap()) == whole);
        let head = good.heads().pop().unwrap().to_ascii_lowercase();
        assert!(head.contains("\r\nhost: site.test\r\n"), "{head}");
    }
    assert_eq!((good.requests(), bad.accepted()), (4, 2));
    eventually("one record each", || async { gateway.records().len() == 4 }).await;
    assert!(
        gateway
            .records()
            .iter()
            .all(|record| record["version"] == "2" && record["bytes_received"] == 4 * MIB)
    );
    nothing_is_held(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_however_much_is_uploaded() {
    let (bad, good) = (dying(8 * MIB, End::Close).await, dying(16 * MIB, End::Answer(200)).await);
    let text = format!(
        "upstreams:\n  web:\n    max_fails: 0\n    backends: ['{}', '{}']\nroutes:\n  - upstream: web\n    retry: {{ max_body_bytes: 20MiB }}\n",
        bad.address, good.address
    );
    let gateway = Gateway::start(&text).await;
    let resident = || {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", gateway.pid())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let address = gateway.address;
        uploads.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            put(&mut connection, &vec![b'x'; 16 * MIB]).await.status
        });
    }
    let mut most = 0;
    while !uploads.is_empty() {
        tokio::select! {
            status = uploads.join_next() => assert_eq!(status.unwrap().unwrap(), 200),
            () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(resident()),
        }
    }
    let grown = most.saturating_sub(before);
    eprintln!("{} MiB more for 192 MiB of bodies", grown / MIB);
    assert!(grown < 96 * MIB, "{} MiB for 192 MiB of bodies", grown / MIB);
    nothing_is_held(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_kept_and_a_place_at_the_upstream_go_together() {
    let (bad, good) = (dying(MIB, End::Close).await, Backend::start(Act::Answer(200)).await);
    let text = config(&bad, &good, "", "").replace(
        "    max_fails: 0\n",
        "    max_fails: 0\n    breaker: { max_requests: 1, max_pending: 20 }\n",
    );
    let gateway = Gateway::start(&text).await;
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let address = gateway.address;
        uploads.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            put(&mut connection, &body(2 * MIB)).await.status
        });
    }
    assert_eq!(uploads.join_all().await, [200; 8]);
    assert_eq!(good.requests(), 8);
    assert!(good.bodies().iter().all(|got| *got == body(2 * MIB)));
    eventually("all records", || async { gateway.records().len() == 8 }).await;
    assert!(gateway.records().iter().filter(|record| record["queued_ms"].is_number()).count() >= 1);
    assert_eq!(gateway.metric("goodgate_upstream_breaker_requests").await, 0.0);
    nothing_is_held(&gateway).await;
}
