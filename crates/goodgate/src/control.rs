//! Commands that talk to a running gateway: `reload` and `health`; and how one asks its admin API.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use goodgate_config::{Loaded, Token, defaults};
use nix::unistd::Pid;

use crate::command::Whom;
use crate::control_socket;
use crate::reload::Outcome;

/// How long the gateway may take to answer on its admin side.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long a reload may take: files are read, and names that are new are looked up.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What the admin side answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Has the gateway that runs with this file load it again, and prints what came of it. The gateway reads and judges the
/// file, so that what is reported is what it does.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(crate) fn reload(file: &Path) -> Result<ExitCode> {
    let pid = find(file)?;
    let Outcome { problems, warnings, restart } = control_socket::reload(pid, RELOAD_LIMIT)?;
    for problem in &problems {
        eprintln!("{}", tame(problem));
    }
    if !problems.is_empty() {
        bail!("process {pid} has not loaded {}: it keeps its configuration", file.display());
    }
    println!("process {pid} has loaded {}", file.display());
    for warning in warnings {
        println!("{}", tame(&warning));
    }
    for setting in restart {
        println!("{setting}: differs from the running setting and takes effect after a restart");
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 0 if the gateway answers `/livez`. A file that has become bad since the start makes no gateway unhealthy: then
/// the control socket is asked.
pub(crate) fn health(whom: &Whom) -> Result<ExitCode> {
    let status = match found(whom) {
        Ok((address, _)) => ask(address, "/livez", None)?.status,
        Err(error) => match find(whom.file()) {
            Ok(pid) => control_socket::ask(pid, "/livez", ANSWER_LIMIT)?.0,
            Err(_) => return Err(error),
        },
    };
    if status == 200 {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("not alive: the admin side answered {status}")
}

pub(crate) fn load(file: &Path) -> Result<Loaded> {
    goodgate_config::load(file).map_err(|problems| anyhow!("the configuration is not good\n{problems}"))
}

/// The process that runs this binary's `run` with this file.
fn find(file: &Path) -> Result<Pid> {
    let wanted = fs::canonicalize(file).with_context(|| format!("{} cannot be found", file.display()))?;
    let own = std::process::id();
    let processes = fs::read_dir("/proc").context("/proc cannot be read")?;
    let found = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own))
        .find(|pid| runs(*pid, &wanted));
    found
        .map(Pid::from_raw)
        .ok_or_else(|| anyhow!("no running goodgate has {} as its --config", wanted.display()))
}

fn runs(pid: i32, wanted: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let words: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let is_run = words.first().is_some_and(|program| program.ends_with("goodgate"))
        && words.iter().any(|word| word == "run");
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let is_wanted = |file: &str| fs::canonicalize(folder.join(file)).is_ok_and(|file| file == wanted);
    let named = words.iter().any(|word| is_wanted(word.strip_prefix("--config=").unwrap_or(word)));
    is_run && (named || wanted == Path::new("/etc/goodgate/goodgate.yaml"))
}

/// The answer of the admin side to a GET.
fn ask(address: SocketAddr, path: &str, token: Option<&Token>) -> Result<Answer> {
    let unreachable = || format!("the admin listener at {address} does not answer");
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).with_context(unreachable)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).with_context(unreachable)?;
    stream.set_write_timeout(Some(ANSWER_LIMIT)).with_context(unreachable)?;
    let token = token.map_or(String::new(), |token| format!("Authorization: {}\r\n", token.authorization()));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(unreachable)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).with_context(unreachable)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").with_context(unreachable)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.with_context(unreachable)?, body: body.to_owned() })
}

/// Where to connect to for an address that stands for all of the machine's.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// Asks the gateway that the command line means: by the control socket if it runs on this machine, else by its admin
/// listener. An address that is given goes without a token unless a file is named, too: the secret of this machine's
/// gateway is not for any address. What the gateway refuses is an error that says why.
pub(crate) fn ask_whom(whom: &Whom, path: &str) -> Result<Answer> {
    if whom.address.is_none()
        && let Ok(pid) = find(whom.file())
        && let Ok((status, body)) = control_socket::ask(pid, path, ANSWER_LIMIT)
    {
        return judged(Answer { status, body }, &format!("of process {pid}"));
    }
    let (address, token) = found(whom)?;
    judged(ask(address, path, token.as_ref())?, &format!("at {address}"))
}

fn judged(answer: Answer, whose: &str) -> Result<Answer> {
    match answer.status {
        200 => Ok(answer),
        404 if answer.body.starts_with("There is no record") => Ok(answer),
        403 => bail!(
            "the admin side {whose} wants its token: set admin.token_file, and name that configuration file \
             (--config)"
        ),
        400 => bail!("{}", tame(answer.body.trim_start_matches("400: ").trim_end())),
        status => bail!("the admin side {whose} answered {status}: is that a goodgate of this version?"),
    }
}

/// The admin listener and its token. Without an address and a configuration file it is the default one.
fn found(whom: &Whom) -> Result<(SocketAddr, Option<Token>)> {
    let Some(address) = &whom.address else {
        if whom.config.is_none() && !whom.file().exists() {
            return Ok((defaults::ADMIN, None));
        }
        let admin = load(whom.file())?.config.admin;
        return Ok((reachable(admin.address), admin.token));
    };
    let resolved = address.to_socket_addrs().with_context(|| format!("--address {address}"))?.next();
    let resolved = resolved.ok_or_else(|| anyhow!("--address {address} has no address"))?;
    let token = whom.config.as_deref().map(load).transpose()?.and_then(|loaded| loaded.config.admin.token);
    Ok((resolved, token))
}

/// The text with all that a terminal would obey as `\u….`: whoever answers is not trusted with it. In JSON it
/// stays the same text.
pub(crate) fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (letter.is_control() && letter != '\n') {
            let _ = write!(tame, "\\u{:04x}", u32::from(letter));
        } else {
            tame.push(letter);
        }
    }
    tame
}
