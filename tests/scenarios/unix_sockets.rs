//! Backends on Unix sockets: as good as any other, and as honestly told when they are not there.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::harness::gateway::folder;
use crate::harness::websocket::{self, TEXT, read_head};
use crate::harness::{Connection, Gateway, eventually, get_admin};

/// A backend on a socket of its own; it dies when it is dropped, and the file stays.
struct Backend {
    path: PathBuf,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Backend {
    fn start(path: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (accepted, heads) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (count, seen) = (Arc::clone(&accepted), Arc::clone(&heads));
        let accepting = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        Self { path: path.to_owned(), accepted, heads, accepting }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn heads(&self, path: &str) -> Vec<String> {
        let asked = |head: &&String| head.starts_with(&format!("GET {path} "));
        self.heads.lock().iter().filter(asked).cloned().collect()
    }
}

impl Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix:{}", self.path.display())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: UnixStream, heads: Arc<Mutex<Vec<String>>>) {
    while let Some(head) = read_head(&mut stream).await {
        let is_upgrade = head.starts_with("GET /socket ");
        let answer = if is_upgrade {
            websocket::switch(&head)
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes".to_owned()
        };
        heads.lock().push(head);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if is_upgrade {
            return websocket::echo(&mut stream).await;
        }
    }
}

/// A site in a folder of its own, so that sockets lie beside its configuration.
async fn gateway(folder: PathBuf, backends: &[String], settings: &str) -> Gateway {
    let log = folder.join("access.log");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         access_log: {{ path: {} }}\nupstreams:\n  web:\n{settings}    backends: [{}]\n\
         routes: [{{ upstream: web }}]\n",
        log.display(),
        backends.join(", ")
    );
    Gateway::start_in(folder, &text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sockets_share_the_work_and_one_that_dies_is_not_missed() {
    let folder = folder();
    let [a, b] = ["a.sock", "b.sock"].map(|name| Backend::start(&folder.join(name)));
    let settings = "    host: backend\n    fail_timeout: 60s\n";
    let gateway = gateway(folder, &[a.to_string(), b.to_string()], settings).await;
    let mut client = Connection::open(gateway.address).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().text(), "yes");
    }
    for backend in [&a, &b] {
        assert_eq!((backend.heads("/").len(), backend.accepted()), (10, 1), "in turn, on kept connections");
        let head = backend.heads("/").pop().unwrap();
        assert!(head.contains("\r\nHost: localhost\r\n"), "{head}");
        assert_eq!(gateway.state(backend).await, "up");
    }
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    websocket::connect(&mut socket, "/socket").await.unwrap();
    websocket::send(&mut socket, TEXT, b"hello", true).await.unwrap();
    assert_eq!(websocket::receive(&mut socket).await, Some((TEXT, b"hello".to_vec())));

    let name = a.to_string();
    drop(a);
    for _ in 0..20 {
        assert_eq!(client.get("/dead").await.unwrap().text(), "yes");
    }
    assert_eq!(b.heads("/dead").len(), 20);
    eventually("the dead one is ejected", || async { gateway.state(&name).await == "ejected" }).await;
    let rescued =
        gateway.record_where("a rescue", |record| record["rescue"] != serde_json::Value::Null).await;
    assert_eq!(rescued["attempts"][0]["backend"], name, "{rescued}");
    let refused = gateway
        .record_where("a refusal", |record| record["attempts"][0]["cause"] == "connection_refused")
        .await;
    assert_eq!(refused["attempts"][1]["backend"], b.to_string(), "{refused}");
    let backends = get_admin(gateway.admin, "/api/v1/backends").await.unwrap().text();
    assert!(backends.contains(&name), "{backends}");
    let id = refused["request_id"].as_str().unwrap().to_owned();
    let story = get_admin(gateway.admin, &format!("/api/v1/explain?request_id={id}")).await.unwrap().text();
    assert!(story.contains(&name), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_missing_is_told_and_used_once_it_is_there() {
    let folder = folder();
    let path = folder.join("late.sock");
    let name = format!("unix:{}", path.display());
    let gateway = gateway(folder, std::slice::from_ref(&name), "    fail_timeout: 100ms\n").await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let record = gateway.record(&answer).await;
    assert_eq!(record["cause"], "connection_refused", "{record}");
    let attempt = &record["attempts"][0];
    assert_eq!(
        (&attempt["backend"], &attempt["phase"]),
        (&name.clone().into(), &"connect".into()),
        "{record}"
    );
    assert!(attempt["detail"].as_str().is_some_and(|detail| detail.contains("No such file")), "{record}");
    let backend = Backend::start(&path);
    eventually("it is used", || async { gateway.get("/").await.status == 200 }).await;
    drop(backend);
    let answer = gateway.get("/").await;
    assert_eq!(gateway.record(&answer).await["cause"], "connection_refused", "nobody listens there");
    let _revived = Backend::start(&path);
    eventually("it is used again", || async { gateway.get("/").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_find_out_about_sockets() {
    for kind in ["http: { path: /health }", "tcp: {}"] {
        let folder = folder();
        let path = folder.join("app.sock");
        let name = format!("unix:{}", path.display());
        let settings = format!(
            "    health_check: {{ {kind}, interval: 20ms, interval_down: 20ms, fall: 2, rise: 2 }}\n"
        );
        let gateway = gateway(folder, std::slice::from_ref(&name), &settings).await;
        eventually("it is down", || async { gateway.state(&name).await == "down" }).await;
        let backend = Backend::start(&path);
        eventually("it is up", || async { gateway.state(&name).await == "up" }).await;
        assert_eq!(gateway.get("/").await.text(), "yes");
        if kind.starts_with("http") {
            let head = backend.heads("/health").pop().unwrap();
            assert!(head.contains("\r\nHost: localhost\r\n"), "{head}");
        }
        std::fs::remove_file(&path).unwrap();
        eventually("it is down again", || async { gateway.state(&name).await == "down" }).await;
        assert!(gateway.errors().contains("cause=connection_refused"), "{}", gateway.errors());
    }
}
