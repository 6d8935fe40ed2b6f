//! The identity of a client and the name that it asked for, over the life of a connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually};

const CERTIFICATES: &str =
    "certificates: [{ cert: site.crt, key: site.key }, { cert: other.crt, key: other.key }]";

/// A gateway with HTTP/2 and certificates for `site.test` and `other.test`; `tls` is more of its section.
async fn start(authority: &Authority, backend: &Backend, tls: &str, route: &str) -> Gateway {
    let folder: PathBuf = folder();
    authority.write(&folder, "site", valid("site.test"));
    authority.write(&folder, "other", valid("other.test"));
    std::fs::write(folder.join("clients.pem"), authority.pem()).unwrap();
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', http2: true, tls: {{ {CERTIFICATES}{tls} }} }}]\n\
         admin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\nupstreams: {{ app: ['{}'] }}\n\
         routes: [{{ upstream: app{route} }}]\n",
        folder.join("access.log").display(),
        backend.address
    );
    Gateway::start_in(folder, &text).await
}

const MUTUAL: &str = ", client_ca: clients.pem";
const SUBJECT: &str = ", request_headers: { set: { X-Subject: '{client_cert_subject}' } }";

async fn open(gateway: &Gateway, client: &Arc<ClientConfig>) -> std::io::Result<Connection> {
    Ok(Connection::open_tls(shake_hands(gateway.address, client, "site.test").await?))
}

async fn open_http2(gateway: &Gateway, client: &Arc<ClientConfig>) -> std::io::Result<SendRequest<Bytes>> {
    let mut config = ClientConfig::clone(client);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(std::io::Error::other)?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn status(client: &SendRequest<Bytes>, host: &str) -> Result<StatusCode, h2::Error> {
    let request = Request::get(format!("https://{host}/page")).body(()).unwrap();
    let (response, _) = client.clone().ready().await?.send_request(request, true)?;
    Ok(response.await?.status())
}

async fn ask(connection: &mut Connection, host: &str) -> Answer {
    connection.send(format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.unwrap();
    connection.answer(false).await.unwrap()
}

/// Whether a client without a kept connection is let in.
async fn is_let_in(gateway: &Gateway, client: &Arc<ClientConfig>) -> bool {
    match open(gateway, client).await {
        Ok(mut connection) => connection.get("/page").await.is_ok_and(|answer| answer.status == 200),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_client_certificate_is_refused_on_open_connections_and_new_ones() {
    let (authority, backend) =
        (Authority::new(), Backend::start(page("Cache-Control: max-age=60\r\n", "x")).await);
    for route in ["", ", cache: standard"] {
        let gateway = start(&authority, &backend, MUTUAL, route).await;
        let end = SystemTime::now() + Duration::from_secs(3);
        let client = Arc::new(authority.client_until("Example", "sensor", end));
        let mut kept = open(&gateway, &client).await.unwrap();
        let http2 = open_http2(&gateway, &client).await.unwrap();
        assert_eq!(kept.get("/page").await.unwrap().status, 200);
        assert_eq!(status(&http2, "site.test").await.unwrap(), 200);
        eventually("the end of the certificate", || async { SystemTime::now() > end }).await;
        let answer = kept.get("/page").await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (421, Some("close")));
        assert_eq!(
            gateway.record(&answer).await["detail"],
            "The client certificate of this connection has expired."
        );
        assert_eq!(status(&http2, "site.test").await.unwrap(), 421);
        eventually("the connection ends", || async { status(&http2, "site.test").await.is_err() }).await;
        assert!(!is_let_in(&gateway, &client).await, "a session of before is not resumed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_proves_its_identity_does_so_with_every_connection() {
    let (authority, backend) = (Authority::new(), Backend::start(Act::Answer(200)).await);
    for tls in [MUTUAL, ", client_ca: clients.pem, client_auth: optional"] {
        let gateway = start(&authority, &backend, tls, "").await;
        let mut tls12 = authority.client_of_tls12();
        tls12.resumption = tokio_rustls::rustls::client::Resumption::in_memory_sessions(8);
        let clients = [authority.client(Some(valid("sensor"))), tls12];
        for client in clients.into_iter().map(Arc::new).take(if tls == MUTUAL { 1 } else { 2 }) {
            for _ in 0..3 {
                let mut connection = open(&gateway, &client).await.unwrap();
                assert_eq!(connection.get("/").await.unwrap().status, 200);
                assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
            }
        }
    }
}

/// What happens to the configuration, given another authority.
type Change = fn(&Gateway, &str);

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_changes_the_trusted_clients_ends_their_connections() {
    let (authority, backend) = (Authority::new(), Backend::start(Act::Answer(200)).await);
    let other = Authority::new().pem();
    let changes: [(&str, Change); 3] = [
        (MUTUAL, |gateway, other| std::fs::write(gateway.folder.join("clients.pem"), other).unwrap()),
        (MUTUAL, |gateway, _| gateway.replace(MUTUAL, "")),
        ("", |gateway, _| gateway.replace(CERTIFICATES, &format!("{CERTIFICATES}{MUTUAL}"))),
    ];
    for (tls, change) in changes {
        let gateway = start(&authority, &backend, tls, "").await;
        let client = Arc::new(authority.client(Some(valid("sensor"))));
        let mut kept = open(&gateway, &client).await.unwrap();
        let http2 = open_http2(&gateway, &client).await.unwrap();
        assert_eq!(kept.get("/").await.unwrap().status, 200);
        assert_eq!(status(&http2, "site.test").await.unwrap(), 200);
        gateway.reload("ok").await;
        assert_eq!(kept.get("/").await.unwrap().status, 200, "the same clients are trusted");
        change(&gateway, &other);
        gateway.reload("ok").await;
        assert_eq!(kept.get("/").await.unwrap().status, 421, "{tls}");
        assert_eq!(status(&http2, "site.test").await.unwrap(), 421, "{tls}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_has_one_reading() {
    let (authority, backend) = (Authority::new(), Backend::start(Act::Answer(200)).await);
    let gateway = start(&authority, &backend, MUTUAL, SUBJECT).await;
    let end = SystemTime::now() + Duration::from_secs(600);
    for (organization, name, subject) in [
        ("admins", "root", "O=admins, CN=root"),
        ("admins, CN=root", "x", "O=admins\\, CN=root, CN=x"),
        ("a+CN=root", "#1 ", "O=a\\+CN=root, CN=\\#1\\20"),
        ("\u{e9}\r\nX-Admin: 1", "\"", "O=\\C3\\A9\\0D\\0AX-Admin: 1, CN=\\\""),
    ] {
        let client = Arc::new(authority.client_until(organization, name, end));
        assert!(is_let_in(&gateway, &client).await);
        let head = backend.heads().pop().unwrap();
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-subject: ")).unwrap();
        assert_eq!(&line["x-subject: ".len()..], subject, "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_name_with_another_certificate_is_misdirected() {
    let (authority, backend) =
        (Authority::new(), Backend::start(page("Cache-Control: max-age=60\r\n", "x")).await);
    for (tls, route) in [("", ""), (MUTUAL, ""), ("", ", cache: standard"), (MUTUAL, ", cache: fallback")] {
        let gateway = start(&authority, &backend, tls, route).await;
        let client = Arc::new(authority.client(Some(valid("sensor"))));
        let http2 = open_http2(&gateway, &client).await.unwrap();
        let mut kept = open(&gateway, &client).await.unwrap();
        for (host, expected) in [
            ("site.test", 200),
            ("Site.Test.:8443", 200),
            ("other.test", 421),
            ("OTHER.test.:443", 421),
            ("unknown.test", 200),
            ("site.test", 200),
        ] {
            let answer = ask(&mut kept, host).await;
            assert_eq!(answer.status, expected, "{host} {tls} {route}");
            if answer.header("connection") == Some("close") {
                kept = open(&gateway, &client).await.unwrap();
            }
            let status = status(&http2, host).await.unwrap();
            assert_eq!(status, expected, "HTTP/2: {host} {tls} {route}");
        }
        // A copy for the other name is served to its own clients only.
        let stream = shake_hands(gateway.address, &client, "other.test").await.unwrap();
        assert_eq!(ask(&mut Connection::open_tls(stream), "other.test").await.status, 200);
        assert_eq!(ask(&mut kept, "other.test").await.status, 421);
        // A client without SNI has asked for no name.
        let mut config = ClientConfig::clone(&client);
        config.enable_sni = false;
        let stream = shake_hands(gateway.address, &Arc::new(config), "site.test").await.unwrap();
        let expected = if tls.is_empty() { 200 } else { 421 };
        assert_eq!(ask(&mut Connection::open_tls(stream), "other.test").await.status, expected);
    }
}
