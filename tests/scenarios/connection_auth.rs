//! Backends that tie a user to the connection (NTLM, Negotiate): no other client is taken for that user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::websocket::read_head;
use crate::harness::{Act, Backend, Connection, Gateway, eventually};

/// Takes everything on a connection for the user whose second message has come on it.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let this = Self { address: listener.local_addr().unwrap(), connections, requests };
        let (connections, requests) = (Arc::clone(&this.connections), Arc::clone(&this.requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&requests)));
            }
        });
        this
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<AtomicUsize>) {
    let (mut user, mut is_challenged) = (String::new(), false);
    while let Some(head) = read_head(&mut stream).await {
        requests.fetch_add(1, Ordering::SeqCst);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let message = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let challenge = match message.as_deref().and_then(|message| message.split_once(' ')) {
            Some(("NTLM", "hello")) => {
                is_challenged = true;
                Some("NTLM challenge")
            }
            Some(("NTLM" | "Negotiate", name))
                if is_challenged || message.as_deref().unwrap().starts_with("Neg") =>
            {
                user = name.to_owned();
                None
            }
            _ if user.is_empty() && path != "/open" => Some("Negotiate, NTLM"),
            _ => None,
        };
        if path == "/die" {
            return;
        }
        let body = format!("user={user}");
        let head = match challenge {
            Some(challenge) => format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"),
            None => "200 OK\r\nCache-Control: public, max-age=60".to_owned(),
        };
        let response = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn config(servers: &[SocketAddr], more: &str, route: &str) -> String {
    let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!(
        "{more}upstreams:\n  web:\n    backends: [{}]\nroutes:\n  - upstream: web\n{route}",
        list.join(", ")
    )
}

/// As a browser does. The engine's pool loses an idle connection now and then: then the handshake begins again.
async fn log_in(client: &mut Connection, name: &str) {
    for _ in 0..20 {
        let answer = client.get_with("/", "Authorization: NTLM hello\r\n").await.unwrap();
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("NTLM challenge")));
        let answer = client.get_with("/", &format!("Authorization: NTLM {name}\r\n")).await.unwrap();
        if answer.status == 200 {
            assert_eq!(answer.text(), format!("user={name}"));
            return;
        }
    }
    panic!("{name} cannot log in");
}

/// A request of a user who has logged in, once more if the connection was lost. Whether it was not.
async fn ask_as(client: &mut Connection, name: &str) -> bool {
    let answer = client.get("/").await.unwrap();
    if answer.status == 401 {
        assert_eq!(answer.text(), "user=");
        log_in(client, name).await;
        return false;
    }
    assert_eq!(answer.text(), format!("user={name}"));
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_gets_a_connection_on_which_another_has_logged_in() {
    let servers = [Server::start().await, Server::start().await];
    let gateway = Gateway::start(&config(&servers.each_ref().map(|server| server.address), "", "")).await;
    let mut alice = Connection::open(gateway.address).await.unwrap();
    let mut bob = Connection::open(gateway.address).await.unwrap();
    assert_eq!(bob.get("/open").await.unwrap().text(), "user=");
    assert_eq!(alice.get("/").await.unwrap().status, 401);
    log_in(&mut alice, "alice").await;
    let mut kept = 0;
    for _ in 0..20 {
        kept += usize::from(ask_as(&mut alice, "alice").await);
        assert_eq!(bob.get("/open").await.unwrap().text(), "user=");
        assert_eq!(gateway.get("/open").await.text(), "user=");
        assert_eq!(gateway.get("/").await.status, 401);
    }
    assert!(kept >= 10, "the connection is known: {kept} of 20");
    log_in(&mut bob, "bob").await;
    ask_as(&mut alice, "alice").await;
    ask_as(&mut bob, "bob").await;
    drop((alice, bob));
    for _ in 0..20 {
        assert_eq!(gateway.get("/open").await.text(), "user=", "not when they have left either");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_message_is_bound_too() {
    let server = Server::start().await;
    let gateway = Gateway::start(&config(&[server.address], "", "")).await;
    assert_eq!(gateway.get("/open").await.text(), "user=");
    for scheme in ["Negotiate", "negotiate"] {
        let mut alice = Connection::open(gateway.address).await.unwrap();
        let answer = alice.get_with("/open", &format!("Authorization: {scheme} alice\r\n")).await.unwrap();
        assert_eq!(answer.status, 200);
        for _ in 0..10 {
            assert_eq!(gateway.get("/open").await.text(), "user=");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_front_shares_no_connection_between_its_users() {
    let server = Server::start().await;
    let gateway = Gateway::start(&config(&[server.address], "trusted_proxies: [127.0.0.1]\n", "")).await;
    let mut proxy = Connection::open(gateway.address).await.unwrap();
    let answer = proxy.get_with("/", "Authorization: Negotiate alice\r\n").await.unwrap();
    assert_eq!(answer.text(), "user=alice");
    for _ in 0..5 {
        assert_eq!(proxy.get("/open").await.unwrap().text(), "user=");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_such_a_user_gets_is_not_stored() {
    for mode in ["standard", "fallback"] {
        let server = Server::start().await;
        let gateway = Gateway::start(&config(&[server.address], "", &format!("    cache: {mode}\n"))).await;
        let mut alice = Connection::open(gateway.address).await.unwrap();
        log_in(&mut alice, "alice").await;
        for _ in 0..3 {
            ask_as(&mut alice, "alice").await;
            let text = alice.get("/open").await.unwrap().text();
            assert!(["user=alice", "user="].contains(&text.as_str()), "{text}");
        }
        let answer = gateway.get("/open").await;
        assert_eq!(answer.text(), "user=", "{mode}: {answer:?}");
        assert_eq!(gateway.get("/").await.status, 401, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn such_a_request_is_neither_repeated_nor_mirrored() {
    let servers = [Server::start().await, Server::start().await];
    let mirror = Backend::start(Act::Answer(200)).await;
    let text = format!(
        "upstreams:\n  web:\n    max_fails: 0\n    backends: [{}, {}]\n  copy: ['{}']\nroutes:\n  - upstream: web\n    mirror: {{ upstream: copy }}\n",
        servers[0].address, servers[1].address, mirror.address
    );
    let gateway = Gateway::start(&text).await;
    let asked = || servers.iter().map(|server| server.requests.load(Ordering::SeqCst)).sum::<usize>();
    let mut client = Connection::open(gateway.address).await.unwrap();
    let answer = client.get_with("/die", "Authorization: Negotiate alice\r\n").await.unwrap();
    assert_eq!((answer.status, asked()), (502, 1));
    let mut client = Connection::open(gateway.address).await.unwrap();
    let answer = client.get_with("/", "Authorization: Negotiate alice\r\n").await.unwrap();
    assert_eq!(answer.text(), "user=alice");
    // One of another kind sets off its copy after the others would have.
    assert_eq!(gateway.get("/open").await.status, 200);
    eventually("the copy", || async { mirror.requests() > 0 }).await;
    assert!(mirror.heads().iter().all(|head| head.contains("/open")), "{:?}", mirror.heads());
}
