//! A real browser: one page with all that belongs to it, through the TLS listener, with a WebSocket and a stream of
//! events. The page itself reports what has arrived.

use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::gateway::folder;
use crate::harness::script::Scripted;
use crate::harness::tls::{Authority, valid};
use crate::harness::websocket::{self, read_head};
use crate::harness::{Gateway, eventually};

const ASSETS: usize = 100;
const EVENTS: usize = 5;

/// Loads everything, waits for all of it, and says what there is.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><body><script>
const loaded = kind => new Promise((done, failed) => {
  const [name, make] = kind, element = make();
  element.onload = () => done(name);
  element.onerror = () => failed(name);
  (name.endsWith(".svg") ? document.body : document.head).append(element);
});
const make = (tag, set) => () => Object.assign(document.createElement(tag), set);
const assets = [...Array(ASSETS).keys()].map(n => {
  if (n % 3 == 0) return [`/asset/${n}.svg`, make("img", { src: `/asset/${n}.svg` })];
  if (n % 3 == 1) return [`/asset/${n}.js`, make("script", { src: `/asset/${n}.js` })];
  return [`/asset/${n}.css`, make("link", { rel: "stylesheet", href: `/asset/${n}.css` })];
});
const echo = new Promise((done, failed) => {
  const socket = new WebSocket(`wss://${location.host}/socket`);
  socket.onopen = () => socket.send("hello from a browser");
  socket.onmessage = message => { socket.close(); done(message.data); };
  socket.onerror = () => failed("socket");
});
const events = new Promise((done, failed) => {
  const source = new EventSource("/events"), seen = [];
  source.onmessage = event => {
    seen.push(event.data);
    if (seen.length == EVENTS) { source.close(); done(seen.join(",")); }
  };
  source.onerror = () => failed("events");
});
const results = all => all.map(one => one.status == "fulfilled" ? one.value : `FAILED ${one.reason}`);
(async () => {
  const first = results(await Promise.allSettled(assets.map(loaded)));
  const scripts = globalThis.ran || 0;
  const [said, heard] = results(await Promise.allSettled([echo, events]));
  const again = await Promise.all(first.map(async name => (await fetch(name)).status));
  await fetch("/report", { method: "POST", body: JSON.stringify({ first, scripts, said, heard, again }) });
})();
</script>"#;

/// What an asset consists of: from some bytes to a megabyte.
fn asset(path: &str) -> (&'static str, String) {
    let number: usize = path.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let filler = "x".repeat([10, 2_000, 40_000, 200_000, 1 << 20][number % 5]);
    if path.ends_with(".svg") {
        let picture =
            format!("<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'><!--{filler}--></svg>");
        ("image/svg+xml", picture)
    } else if path.ends_with(".js") {
        ("text/javascript", format!("globalThis.ran = (globalThis.ran || 0) + 1; /*{filler}*/"))
    } else {
        ("text/css", format!("body {{ color: black }} /*{filler}*/"))
    }
}

async fn answer(stream: &mut TcpStream, kind: &str, more: &str, body: &str) {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

async fn send_events(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).await;
    for number in 1.. {
        if stream.write_all(format!("data: {number}\n\n").as_bytes()).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The site behind the gateway. Every other asset may be kept.
async fn serve(mut stream: TcpStream, report: Arc<Mutex<Option<String>>>) {
    while let Some(head) = read_head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        match path.as_str() {
            "/" => {
                let page = PAGE.replace("ASSETS", &ASSETS.to_string()).replace("EVENTS", &EVENTS.to_string());
                answer(&mut stream, "text/html", "", &page).await;
            }
            "/socket" => {
                let _ = stream.write_all(websocket::switch(&head).as_bytes()).await;
                return websocket::echo(&mut stream).await;
            }
            "/events" => return send_events(&mut stream).await,
            "/report" => {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
                });
                let mut body = vec![0; length.unwrap_or(0)];
                if stream.read_exact(&mut body).await.is_ok() {
                    *report.lock() = String::from_utf8(body).ok();
                }
                answer(&mut stream, "text/plain", "", "thanks").await;
            }
            other if other.starts_with("/asset/") => {
                let (kind, body) = asset(other);
                let kept = if body.len() % 2 == 0 { "Cache-Control: max-age=60\r\n" } else { "" };
                answer(&mut stream, kind, kept, &body).await;
            }
            _ => {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    }
}

/// A browser without a window that opens the page.
fn browse(gateway: &Gateway) -> Child {
    Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--ignore-certificate-errors",
        ])
        .arg(format!("--user-data-dir={}", gateway.folder.join("browser").display()))
        .arg("--remote-debugging-port=0")
        .arg(format!("https://localhost:{}/", gateway.address.port()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("chromium cannot be started ({error}): apt-get install chromium"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_a_hundred_assets_a_socket_and_events_arrives_whole() {
    let report = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&report);
    let backend = Scripted::start(move |stream| serve(stream, Arc::clone(&shared))).await;
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("localhost"));
    let log = folder.join("access.log");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}",
        log.display(),
        // The browser keeps nothing itself: what it asks for again, the gateway may have.
        backend.site("", "    cache: standard\n    response_headers: { set: { Cache-Control: no-store } }\n")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let mut browser = browse(&gateway);
    let start = std::time::Instant::now();
    // A browser may take long to start on a busy machine.
    while report.lock().is_none() {
        let ended = browser.try_wait().unwrap();
        assert!(ended.is_none() && start.elapsed().as_secs() < 60, "no report: {ended:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let text = report.lock().take().unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first = told["first"].as_array().unwrap();
    assert_eq!(first.len(), ASSETS, "{text}");
    assert!(!text.contains("FAILED"), "{text}");
    assert_eq!(told["scripts"], (0..ASSETS).filter(|number| number % 3 == 1).count(), "every script has run");
    assert_eq!(told["said"], "hello from a browser");
    assert_eq!(told["heard"], "1,2,3,4,5");
    assert!(told["again"].as_array().unwrap().iter().all(|status| status == 200), "{text}");
    browser.kill().await.unwrap();
    eventually("the stream of events has ended", || async { backend.open() <= 16 }).await;
    gateway.record_where("the tunnel's record", |record| record["path"] == "/socket").await;
    gateway.record_where("the events' record", |record| record["path"] == "/events").await;
    let records = gateway.records();
    let of_assets = |record: &&serde_json::Value| record["path"].as_str().unwrap().starts_with("/asset/");
    assert_eq!(records.iter().filter(of_assets).count(), 2 * ASSETS);
    assert!(records.iter().filter(of_assets).any(|record| record["cache"] == "hit"), "copies were used");
    for record in &records {
        let has_left = record["path"] == "/events" && record["cause"] == "client_disconnected";
        assert!(record["cause"].is_null() || has_left, "{record}");
        assert!(record["status"].as_u64().unwrap() < 400 || record["path"] == "/favicon.ico", "{record}");
    }
    assert!(
        !gateway.errors().contains("WARN") && !gateway.errors().contains("ERROR"),
        "{}",
        gateway.errors()
    );
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
}
