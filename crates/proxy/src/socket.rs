//! The bytes of a client's connection, with TLS or without.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How long and how much is read of a request that was answered before it was complete, so that the
/// client can read the answer before the connection goes away (a reset would destroy it).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Without TLS.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The TCP connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether the handshake has chosen HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Writes what can be written without waiting.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(tcp) => drop(tcp.try_write(bytes)),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                // The buffer of the library has room for it, and if not, less is written.
                let _ = session.writer().write(bytes);
                send_records(tcp, session);
            }
        }
    }

    /// With TLS: tells the client that all was sent (RFC 8446 section 6.1), if that can be done without waiting.
    pub(crate) fn close_notify(&mut self) {
        if let Self::Tls(tls) = self {
            let (tcp, session) = tls.get_mut();
            session.send_close_notify();
            send_records(tcp, session);
        }
    }

    /// The same, to read what nobody needs deciphered.
    pub(crate) fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }
}

fn send_records(tcp: &TcpStream, session: &mut ServerConnection) {
    while session.wants_write() && session.write_tls(&mut Now(tcp)).is_ok_and(|count| count > 0) {}
}

/// Writes without waiting.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp().as_raw_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, data),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, parts),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// Closes our side and reads on for a while.
pub(crate) async fn linger(mut socket: Socket) {
    let drain = async {
        socket.shutdown().await?;
        let tcp = socket.tcp_mut();
        let mut waste = [0; 4096];
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match tcp.read(&mut waste).await? {
                0 => break,
                count => total += count,
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the connection is gone.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
