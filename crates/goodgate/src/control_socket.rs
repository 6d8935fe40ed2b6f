//! The control socket: how commands of this machine reach the gateway that runs, whatever its admin listener is by now.
//!
//! An abstract Unix socket named after the process, so that no file is left behind and a read-only container needs none.
//! The kernel says which user is at the other end: root and the user of the gateway are served, as with signals. See
//! `docs/decisions/0028-control-socket.md`.

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use goodgate_admin::Admin;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, geteuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::reload::Outcome;

/// Commands at a time.
const CONNECTIONS_MAX: usize = 16;
/// The longest question, in bytes, and how long it may take to come.
const QUESTION_BYTES_MAX: u64 = 8192;
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The question that loads the configuration again. All others are paths of the admin API.
const RELOAD: &str = "reload";

/// A reload that was asked for, with the place for its outcome.
pub(crate) type Request = Option<oneshot::Sender<Arc<Outcome>>>;

/// The socket of a process: its number alone is not unique where several containers share a network.
fn address(pid: Pid) -> Result<SocketAddr> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("/proc cannot be read")?;
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let started = behind_name.split_whitespace().nth(19).context("/proc has no start time")?;
    Ok(SocketAddr::from_abstract_name(format!("goodgate/{pid}/{started}"))?)
}

/// Listens on the socket of this process.
pub(crate) fn bind() -> Result<UnixListener> {
    let listener = UnixListener::bind_addr(&address(Pid::this())?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves commands until the process ends.
pub(crate) async fn serve(listener: UnixListener, admin: Arc<Admin>, reloads: mpsc::Sender<Request>) {
    let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (admin, reloads) = (Arc::clone(&admin), reloads.clone());
        tokio::spawn(async move {
            // A command that leaves needs no answer.
            let _ = converse(stream, &admin, &reloads).await;
            drop(place);
        });
    }
}

async fn converse(
    mut stream: tokio::net::UnixStream,
    admin: &Admin,
    reloads: &mpsc::Sender<Request>,
) -> Result<()> {
    let user = stream.peer_cred()?.uid();
    if user != 0 && user != geteuid().as_raw() {
        bail!("the user {user} is not the gateway's");
    }
    let mut question = String::new();
    let (reader, mut writer) = stream.split();
    timeout(QUESTION_LIMIT, reader.take(QUESTION_BYTES_MAX).read_to_string(&mut question)).await??;
    let answer = if question == RELOAD {
        let (done, outcome) = oneshot::channel();
        reloads.send(Some(done)).await?;
        (200, outcome.await?.json())
    } else {
        admin.local_page(&question)
    };
    let (status, body) = answer;
    writer.write_all(format!("{status}\n{body}").as_bytes()).await?;
    Ok(writer.shutdown().await?)
}

/// Loads the configuration of the process again and waits for the outcome.
pub(crate) fn reload(pid: Pid, limit: Duration) -> Result<Outcome> {
    let (_, answer) = ask(pid, RELOAD, limit)?;
    Outcome::read(&answer).context("the answer of the control socket cannot be read")
}

/// What the process answers: a status and a body. `question` is the path of an API page, with its query.
pub(crate) fn ask(pid: Pid, question: &str, limit: Duration) -> Result<(u16, String)> {
    let unreachable = || {
        format!(
            "the control socket of process {pid} does not answer: run the command as root or as the user of the \
             gateway, and in its network namespace"
        )
    };
    let mut stream = UnixStream::connect_addr(&address(pid)?).with_context(unreachable)?;
    let server = getsockopt(&stream, PeerCredentials)?;
    if server.pid() != pid.as_raw() {
        bail!("the control socket of process {pid} belongs to process {}", server.pid());
    }
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(question.as_bytes()).with_context(unreachable)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).with_context(unreachable)?;
    let text = String::from_utf8(bytes).with_context(unreachable)?;
    let (status, body) = text.split_once('\n').with_context(unreachable)?;
    Ok((status.parse().with_context(unreachable)?, body.to_owned()))
}
