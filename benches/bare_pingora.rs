//! Pingora with nothing added: one backend, the same time limits, allocator and runtime as the gateway. The
//! measure of what the gateway itself costs. Started by `compare.py`: `bare_pingora LISTEN BACKEND`.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measuring device"
)]

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.0, false, String::new());
        let minute = Some(Duration::from_secs(60));
        peer.options.connection_timeout = Some(Duration::from_secs(1));
        peer.options.read_timeout = minute;
        peer.options.write_timeout = minute;
        peer.options.idle_timeout = minute;
        Ok(Box::new(peer))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("bare_pingora LISTEN BACKEND");
    let backend = arguments.next().and_then(|address| address.parse().ok()).expect("BACKEND is IP:port");
    let conf = ServerConf { threads: 1, work_stealing: false, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(backend));
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
