//! TLS towards clients: which certificate, who the client is, and what becomes of those who are no use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, SignatureScheme};

use crate::harness::backend::page;
use crate::harness::gateway::folder;
use crate::harness::tls::{Authority, shake_hands, valid};
use crate::harness::{Act, Answer, Backend, Connection, Gateway, eventually, get, request};

/// An RSA key, which takes long to make.
const RSA: &str = include_str!("../harness/rsa.pem");

/// A gateway with one TLS listener before one backend; `tls` is more of its section, `more` are other sections.
async fn start(folder: PathBuf, tls: &str, backend: SocketAddr, more: &str) -> Gateway {
    let log = folder.join("access.log");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', tls: {{ {tls} }} }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         access_log: {{ path: {} }}\nupstreams: {{ app: ['{backend}'] }}\n{more}",
        log.display()
    );
    Gateway::start_in(folder, &text).await
}

const ROUTES: &str = "routes: [{ upstream: app }]\n";
const SITE: &str = "certificates: [{ cert: site.crt, key: site.key }]";

/// An authority, and a folder with a certificate of it for `site.test`.
fn site() -> (Authority, PathBuf) {
    let (authority, folder) = (Authority::new(), folder());
    authority.write(&folder, "site", valid("site.test"));
    (authority, folder)
}

async fn open(gateway: &Gateway, client: &Arc<ClientConfig>) -> std::io::Result<Connection> {
    Ok(Connection::open_tls(shake_hands(gateway.address, client, "site.test").await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_for_https_is_refreshed_behind_the_clients_back() {
    let fields = "Cache-Control: max-age=0, stale-while-revalidate=60\r\n";
    let backend = Backend::start(page(fields, "one")).await;
    let (authority, folder) = site();
    let routes = "routes: [{ upstream: app, cache: standard }]\n";
    let gateway = start(folder, SITE, backend.address, routes).await;
    let client = Arc::new(authority.client(None));
    let text = async || open(&gateway, &client).await.unwrap().get("/page").await.unwrap().text();
    assert_eq!(text().await, "one");
    backend.set(page(fields, "two"));
    eventually("the new page is served", || async { text().await == "two" }).await;
    let is_https = |head: &String| head.to_lowercase().contains("x-forwarded-proto: https\r\n");
    assert!(backend.heads().iter().all(is_https), "{:?}", backend.heads());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_tls_are_https_for_backends_and_copies_and_are_kept() {
    let backend = Backend::start(Act::Reply(|head| {
        let proto = head.lines().find(|line| line.starts_with("X-Forwarded-Proto")).unwrap_or_default();
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{proto}",
            proto.len()
        )
    }))
    .await;
    let (authority, folder) = site();
    let routes =
        "routes: [{ upstream: app, cache: standard, response_headers: { set: { X-Scheme: '{scheme}' } } }]\n";
    let gateway = start(folder, SITE, backend.address, routes).await;
    let client = Arc::new(authority.client(None));
    let mut connection = open(&gateway, &client).await.unwrap();
    for _ in 0..3 {
        let answer = connection.get_with("/a", "X-Forwarded-Proto: http\r\n").await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "X-Forwarded-Proto: https"));
        assert_eq!(answer.header("x-scheme"), Some("https"));
    }
    assert_eq!(backend.requests(), 1, "the second and third are hits");
    let large = vec![b'x'; 300_000];
    backend
        .set(Act::Bytes([b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".as_slice(), &large].concat()));
    let answer = connection.get("/large").await.unwrap();
    assert!(answer.complete && answer.body == large);
    let body = "y".repeat(100_000);
    connection
        .send(format!("POST /p HTTP/1.1\r\nHost: site.test\r\nContent-Length: 100000\r\n\r\n{body}GET /next HTTP/1.1\r\nHost: site.test\r\n\r\n"))
        .await
        .unwrap();
    assert_eq!(connection.answer(false).await.unwrap().status, 200);
    assert_eq!(connection.answer(false).await.unwrap().status, 200, "the pipelined one");
    assert_eq!(gateway.metric("goodgate_tls_handshakes_total{result=\"ok\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_the_one_for_the_name_and_the_client() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    authority.write(&folder, "wild", valid("*.wild.test"));
    authority.write(&folder, "exact", valid("a.wild.test"));
    let rsa = KeyPair::from_pem(RSA).unwrap();
    std::fs::write(folder.join("rsa.crt"), authority.pem_with(&rsa, &["a.wild.test"])).unwrap();
    std::fs::write(folder.join("rsa.key"), RSA).unwrap();
    let files =
        ["site", "wild", "rsa", "exact"].map(|name| format!("{{ cert: {name}.crt, key: {name}.key }}"));
    let gateway =
        start(folder, &format!("certificates: [{}]", files.join(", ")), backend.address, ROUTES).await;
    let shown = |name: &'static str, accepts_only_rsa: bool| {
        let (authority, address) = (&authority, gateway.address);
        async move {
            let mut config = authority.client(None);
            config.dangerous().set_certificate_verifier(Arc::new(Recording {
                schemes: if accepts_only_rsa {
                    vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
                } else {
                    vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256]
                },
            }));
            let stream = shake_hands(address, &Arc::new(config), name).await.unwrap();
            let der = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
            let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
            let is_rsa = matches!(
                certificate.public_key().parsed().unwrap(),
                x509_parser::public_key::PublicKey::RSA(_)
            );
            (names[0].to_string().replace("DNSName(", "").replace(')', ""), is_rsa)
        }
    };
    for (name, rsa_only, expected) in [
        ("site.test", false, ("site.test", false)),
        ("b.wild.test", false, ("*.wild.test", false)),
        ("a.wild.test", false, ("a.wild.test", false)),
        ("A.Wild.Test", true, ("a.wild.test", true)),
        ("x.b.wild.test", false, ("site.test", false)),
        ("wild.test", false, ("site.test", false)),
        ("127.0.0.1", false, ("site.test", false)),
    ] {
        assert_eq!(shown(name, rsa_only).await, (expected.0.to_owned(), expected.1), "{name}");
    }
}

/// Accepts every certificate that is signed in one of these ways.
#[derive(Debug)]
struct Recording {
    schemes: Vec<SignatureScheme>,
}

impl tokio_rustls::rustls::client::danger::ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        _: &tokio_rustls::rustls::pki_types::CertificateDer<'_>,
        _: &[tokio_rustls::rustls::pki_types::CertificateDer<'_>],
        _: &tokio_rustls::rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: tokio_rustls::rustls::pki_types::UnixTime,
    ) -> Result<tokio_rustls::rustls::client::danger::ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(tokio_rustls::rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &tokio_rustls::rustls::pki_types::CertificateDer<'_>,
        _: &tokio_rustls::rustls::DigitallySignedStruct,
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, tokio_rustls::rustls::Error>
    {
        Ok(tokio_rustls::rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &tokio_rustls::rustls::pki_types::CertificateDer<'_>,
        _: &tokio_rustls::rustls::DigitallySignedStruct,
    ) -> Result<tokio_rustls::rustls::client::danger::HandshakeSignatureValid, tokio_rustls::rustls::Error>
    {
        Ok(tokio_rustls::rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_proves_who_it_is_and_cannot_pretend() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    std::fs::write(folder.join("clients.pem"), authority.pem()).unwrap();
    let tls = format!("{SITE}, client_ca: clients.pem");
    let more =
        "routes: [{ upstream: app, request_headers: { set: { X-Subject: '{client_cert_subject}' } } }]\n";
    let gateway = start(folder, &tls, backend.address, more).await;
    let known = Arc::new(authority.client(Some(valid("sensor-7"))));
    let forged = "Client-Cert: :Zm9v:\r\nClient-Cert-Chain: :Zm9v:\r\n";
    let answer = open(&gateway, &known).await.unwrap().get_with("/", forged).await.unwrap();
    assert_eq!(answer.status, 200);
    let head = backend.heads().pop().unwrap();
    assert!(head.contains("\r\nClient-Cert: :MII") && !head.contains("Zm9v"), "{head}");
    assert!(head.contains("x-subject: CN="), "{head}");
    // With TLS 1.3 a client hears of its refusal when it reads.
    let stranger = Arc::new(Authority::new().client(Some(valid("sensor-7"))));
    let nobody = Arc::new(authority.client(None));
    for client in [&nobody, &stranger] {
        let refused = match open(&gateway, client).await {
            Err(_) => true,
            Ok(mut connection) => connection.get("/").await.is_err(),
        };
        assert!(refused);
    }
    assert_eq!(backend.requests(), 1);
    eventually("both are counted", || async {
        gateway.metric("goodgate_tls_handshakes_total{result=\"client_certificate\"}").await >= 1.0
    })
    .await;
    gateway.replace("client_ca: clients.pem", "client_ca: clients.pem, client_auth: optional");
    gateway.reload("ok").await;
    assert_eq!(open(&gateway, &nobody).await.unwrap().get_with("/", forged).await.unwrap().status, 200);
    assert!(!backend.heads().pop().unwrap().to_ascii_lowercase().contains("client-cert"), "nobody is nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_also_after_a_reload_and_old_versions_are_refused() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    let gateway = start(folder, SITE, backend.address, ROUTES).await;
    let client = Arc::new(authority.client(None));
    for (expected, reload) in
        [(HandshakeKind::Full, false), (HandshakeKind::Resumed, false), (HandshakeKind::Resumed, true)]
    {
        if reload {
            gateway.reload("ok").await;
        }
        let stream = shake_hands(gateway.address, &client, "site.test").await.unwrap();
        // Tickets come behind the handshake: they are read with the answer.
        let mut connection = Connection::open_tls(stream);
        assert_eq!(connection.get("/").await.unwrap().status, 200);
        assert_eq!(connection.handshake_kind(), Some(expected));
    }
    let old = Arc::new(authority.client_of_tls12());
    assert!(open(&gateway, &old).await.is_ok());
    gateway.replace(SITE, &format!("{SITE}, min_version: '1.3'"));
    gateway.reload("ok").await;
    assert!(open(&gateway, &old).await.is_err());
    assert!(open(&gateway, &client).await.is_ok());
    assert_eq!(gateway.metric("goodgate_tls_handshakes_total{result=\"incompatible\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_swapped_a_hundred_times_under_load_without_a_failed_handshake() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    let gateway = start(folder.clone(), SITE, backend.address, ROUTES).await;
    let client = Arc::new(authority.client(None));
    let mut kept = open(&gateway, &client).await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            // Each has sessions of its own, and none is resumed.
            let mut config = authority.client(None);
            config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
            let (config, stop, done, address) =
                (Arc::new(config), Arc::clone(&stop), Arc::clone(&done), gateway.address);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let stream = shake_hands(address, &config, "site.test").await.expect("a handshake");
                    let answer = Connection::open_tls(stream).get("/").await.expect("an answer");
                    assert_eq!(answer.status, 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let renewed = || gateway.metric("goodgate_certificate_reloads_total{result=\"ok\"}");
    let start = Instant::now();
    let mut swaps = 0;
    while swaps < 100 || renewed().await < 3.0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{swaps} swaps");
        // Neither at once nor together: sometimes what is read does not belong together.
        authority.write(&folder, "site", valid("site.test"));
        swaps += 1;
        let before = done.load(Ordering::Relaxed);
        eventually("load goes on", || async { done.load(Ordering::Relaxed) > before }).await;
    }
    let (last, key) = authority.pem_of(valid("site.test"));
    std::fs::write(folder.join("site.key"), key).unwrap();
    std::fs::write(folder.join("site.crt"), &last).unwrap();
    let last = x509_parser::pem::parse_x509_pem(last.as_bytes()).unwrap().1.contents;
    eventually("the last one is shown", || async {
        let stream = shake_hands(gateway.address, &client, "site.test").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec() == last
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.unwrap();
    }
    assert_eq!(kept.get("/").await.unwrap().status, 200, "who was there stays");
    assert!(done.load(Ordering::Relaxed) > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_file_changes_nothing_and_the_end_is_told_in_time() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    let gateway = start(folder.clone(), SITE, backend.address, ROUTES).await;
    let client = Arc::new(authority.client(None));
    let failed = || gateway.metric("goodgate_certificate_reloads_total{result=\"failed\"}");
    for (count, bad) in [(1.0, "garbage"), (2.0, RSA)] {
        std::fs::write(folder.join("site.key"), bad).unwrap();
        eventually("it is refused", || async { failed().await >= count }).await;
        assert!(open(&gateway, &client).await.is_ok());
    }
    std::fs::remove_file(folder.join("site.key")).unwrap();
    eventually("the missing file is told", || async { failed().await >= 3.0 }).await;
    assert!(open(&gateway, &client).await.is_ok());
    assert!(gateway.errors().contains("the one before is shown on"), "{}", gateway.errors());
    let expiry = gateway.metric("goodgate_certificate_expiry_timestamp_seconds").await;
    assert!(expiry > 4e9, "{expiry}");
    let expired = crate::harness::tls::Identity { name: "site.test", is_expired: true };
    authority.write(&folder, "site", expired);
    eventually("the end is told", || async { gateway.errors().contains("a certificate has expired") }).await;
    let expiry = || gateway.metric("goodgate_certificate_expiry_timestamp_seconds");
    eventually("the metric shows it", || async { expiry().await < 1.7e9 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_and_junk_are_cut_and_nobody_else_notices() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (authority, folder) = site();
    let more = format!("limits: {{ handshake_timeout: 1s }}\n{ROUTES}");
    let gateway = start(folder, SITE, backend.address, &more).await;
    let client = Arc::new(authority.client(None));
    let before = gateway.resident_bytes();
    let mut stalled = Vec::new();
    for at in 0..200 {
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        // Nothing, half a record, or a record that does not end.
        let bytes: &[u8] =
            [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"]
                [at % 3];
        tcp.write_all(bytes).await.unwrap();
        stalled.push(tcp);
    }
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(open(&gateway, &client).await.unwrap().get("/").await.unwrap().status, 200);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for mut tcp in stalled {
        let mut rest = Vec::new();
        let _ =
            tokio::time::timeout(crate::harness::PATIENCE, tcp.read_to_end(&mut rest)).await.expect("closed");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let counted = || gateway.metric("goodgate_tls_handshakes_total{result=\"timeout\"}");
    eventually("all are counted", || async { counted().await == 200.0 }).await;
    let plain = get(gateway.address, "/").await.unwrap();
    assert_eq!((plain.status, plain.header("connection")), (400, Some("close")));
    assert!(plain.text().contains("speaks https"), "{}", plain.text());
    for junk in
        [b"\x16\x03\x01\x00\x05hello".as_slice(), b"\x16GET / HTTP/1.1\r\n\r\n", &[0x16; 400], &[0; 70_000]]
    {
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        let _ = tcp.write_all(junk).await;
        let mut rest = Vec::new();
        let _ =
            tokio::time::timeout(crate::harness::PATIENCE, tcp.read_to_end(&mut rest)).await.expect("closed");
    }
    assert_eq!(open(&gateway, &client).await.unwrap().get("/").await.unwrap().status, 200);
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    assert!(gateway.resident_bytes() < before + (16 << 20), "{before} {}", gateway.resident_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_sent_to_https_but_not_what_proves_a_name() {
    let backend = Backend::start(Act::Answer(200)).await;
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0', redirect_to_https: true }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         access_log: {{ path: off }}\nupstreams: {{ app: ['{}'] }}\n{ROUTES}",
        backend.address
    );
    let location = |answer: &Answer| answer.header("location").unwrap_or_default().to_owned();
    let gateway = Gateway::start_in(folder(), &text).await;
    let answer = request(
        gateway.address,
        "POST //a?b=c HTTP/1.1\r\nHost: Site.Test:8080\r\nContent-Length: 0\r\n\r\n",
    )
    .await
    .unwrap();
    assert_eq!((answer.status, location(&answer).as_str()), (308, "https://site.test//a?b=c"));
    let mut connection = Connection::open(gateway.address).await.unwrap();
    for _ in 0..2 {
        assert_eq!(connection.get("/").await.unwrap().status, 308, "the connection is kept");
    }
    let answer = request(gateway.address, "GET / HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(answer.status, 400, "nobody knows where to");
    assert_eq!(connection.get("/.well-known/acme-challenge/x").await.unwrap().status, 200);
    gateway.replace("redirect_to_https: true", "redirect_to_https: 8443");
    gateway.reload("ok").await;
    let answer = get(gateway.address, "/x").await.unwrap();
    assert_eq!((answer.status, location(&answer).as_str()), (308, "https://test:8443/x"));
    assert_eq!(backend.requests(), 1);
}
