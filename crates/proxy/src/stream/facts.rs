//! What Pingora may know of a client's connection besides its bytes: next to nothing.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, SocketDigest, Ssl, TimingDigest, UniqueID,
};

use super::ClientStream;
use crate::socket::Socket;

impl UniqueID for ClientStream {
    fn id(&self) -> i32 {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Ssl for ClientStream {
    /// That there is TLS, for requests behind the client's back, which have nothing else of its connection.
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        let has_tls = matches!(self.socket, Some(Socket::Tls(_)));
        has_tls.then(|| Arc::new(SslDigest::new("", "", None, None, Vec::new())))
    }
}

impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
