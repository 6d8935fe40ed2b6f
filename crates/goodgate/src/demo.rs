//! `goodgate demo`: the gateway with three sample backends that can be broken by hand.
//!
//! The backends are real servers on ports of their own. Broken, a backend closes its port, so that
//! connections to it are refused as if its process had died.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use goodgate_config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{logging, run};

const CONFIG: &str = include_str!("../../../conf/demo.yaml");
/// Where backends are broken and mended.
const SWITCH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9000);
/// The largest request that a sample backend reads.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Pause before a mended backend tries to listen again.
const REBIND_PAUSE: Duration = Duration::from_millis(200);

/// A sample backend's switch.
type Broken = watch::Sender<bool>;

/// Runs the gateway and its sample backends until a signal ends them.
pub(crate) fn demo() -> Result<ExitCode> {
    logging::start();
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = goodgate_config::load_text("conf/demo.yaml", CONFIG, &environment);
    let loaded = loaded.map_err(|problems| anyhow!("the demo's configuration is not good\n{problems}"))?;
    let addresses: Vec<SocketAddr> =
        loaded.config.upstreams.iter().flat_map(|upstream| &upstream.backends).filter_map(ip).collect();
    let (started, start) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("demo".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(backends(&addresses, &started)),
            Err(error) => drop(started.send(Err(anyhow!(error)))),
        }
    })?;
    start.recv().context("the sample backends did not start")??;
    run::start(&loaded, None, &tell)
}

fn ip(backend: &goodgate_upstream::BackendSpec) -> Option<SocketAddr> {
    match &backend.address {
        goodgate_upstream::BackendAddress::Ip(address) => Some(*address),
        goodgate_upstream::BackendAddress::Name { .. }
        | goodgate_upstream::BackendAddress::Service(_)
        | goodgate_upstream::BackendAddress::Unix(_) => None,
    }
}

#[expect(clippy::print_stdout, reason = "the demo speaks to a person")]
fn tell(config: &Config) {
    let listener = config.listeners.first().map(|listener| listener.address.to_string()).unwrap_or_default();
    let admin = config.admin.address;
    println!(
        "
goodgate demo: three sample backends behind one gateway.

  open     http://{listener}/             a page; each load asks the next backend
  open     http://{admin}/metrics     the counters (goodgate_rescues_total are the errors averted)
  open     http://{admin}/api/v1/backends

  break    curl -X POST http://{SWITCH}/break/1     (also 2 and 3: connections are then refused)
  watch    while sleep 0.2; do curl -s -o /dev/null -w '%{{http_code}} ' http://{listener}/; done
           nothing happens: another backend answers, and with all three broken the last good copy
  mend     curl -X POST http://{SWITCH}/mend/1

  stop     Ctrl-C
"
    );
}

async fn backends(addresses: &[SocketAddr], started: &std::sync::mpsc::Sender<Result<()>>) {
    let mut switches = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let (broken, _) = watch::channel(false);
        match TcpListener::bind(address).await {
            Ok(listener) => drop(tokio::spawn(sample(at + 1, *address, listener, broken.subscribe()))),
            Err(error) => {
                drop(started.send(Err(anyhow!("sample backend: cannot listen on {address}: {error}"))));
                return;
            }
        }
        switches.push(broken);
    }
    match TcpListener::bind(SWITCH).await {
        Ok(listener) => {
            drop(started.send(Ok(())));
            switchboard(listener, switches).await;
        }
        Err(error) => drop(started.send(Err(anyhow!("demo: cannot listen on {SWITCH}: {error}")))),
    }
}

/// One sample backend: listens while it is whole.
async fn sample(number: usize, address: SocketAddr, first: TcpListener, mut broken: watch::Receiver<bool>) {
    let requests = Arc::new(AtomicU64::new(0));
    let mut listener = Some(first);
    loop {
        let is_broken = *broken.borrow_and_update();
        if is_broken {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(open) => open.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => if let Ok((stream, _)) = accepted {
                tokio::spawn(page(number, stream, Arc::clone(&requests), broken.clone()));
            },
            changed = broken.changed() => if changed.is_err() { return },
            // The port may be taken for a moment after a mend: try again.
            () = tokio::time::sleep(REBIND_PAUSE), if !is_broken && listener.is_none() => {}
        }
    }
}

/// Answers requests on one connection until it closes or the backend is broken.
async fn page(
    number: usize,
    mut stream: TcpStream,
    requests: Arc<AtomicU64>,
    mut broken: watch::Receiver<bool>,
) {
    loop {
        let head = tokio::select! {
            head = head(&mut stream) => head,
            _ = broken.changed() => None,
        };
        let Some(head) = head else {
            return;
        };
        let count = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!(
            "<!doctype html><title>goodgate demo</title><h1>Sample backend {number}</h1>\
             <p>This is its answer number {count}, to <code>{}</code>.</p>\n",
            head.lines().next().unwrap_or_default().replace(['<', '>', '&'], "")
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Backend: {number}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads one request head; nothing at the end of the connection.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < REQUEST_BYTES_MAX {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Breaks and mends: `POST /break/N`, `POST /mend/N`.
async fn switchboard(listener: TcpListener, switches: Vec<Broken>) {
    let is_open = AtomicBool::new(true);
    while is_open.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let line = tokio::time::timeout(Duration::from_secs(2), head(&mut stream)).await;
        let line = line.ok().flatten().unwrap_or_default();
        let answer = flip(&line, &switches);
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        // Somebody who does not wait for the answer has still flipped the switch.
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

fn flip(head: &str, switches: &[Broken]) -> String {
    let target = head.strip_prefix("POST /").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let (word, number) = target.split_once('/').unwrap_or_default();
    let switch = number.parse::<usize>().ok().and_then(|number| switches.get(number.checked_sub(1)?));
    match (word, switch) {
        ("break", Some(switch)) => {
            switch.send_replace(true);
            format!("backend {number} is broken\n")
        }
        ("mend", Some(switch)) => {
            switch.send_replace(false);
            format!("backend {number} is mended\n")
        }
        _ => "POST /break/N or /mend/N with N from 1 to 3\n".to_owned(),
    }
}
