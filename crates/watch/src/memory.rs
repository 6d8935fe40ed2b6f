//! What is known of backends, written down, so that a restart does not send requests to those that are known to be
//! dead: one small file with a checksum, replaced as a whole.

mod form;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};
use goodgate_files::Folder;
use goodgate_telemetry::Metrics;
use goodgate_upstream::Upstream;
use log::{info, warn};
use parking_lot::Mutex;

use form::{Clock, Form, Past, UpstreamForm};

/// The name of the file in `server.state_dir`.
const FILE: &str = "upstreams.state";
/// The name of its successor until that is complete.
const DRAFT: &str = "upstreams.state.new";
const MAGIC: &str = "goodgate-upstreams 1";
/// A file that is larger is none of ours.
const BYTES_MAX: u64 = 64 << 20;
/// What was seen of backends longer ago than this says nothing of them now.
const HEALTH_AGE_MAX: Duration = Duration::from_mins(10);
/// Even if nothing has changed, the file says so often that it is up to date.
const REFRESH: Duration = Duration::from_mins(1);

/// The memory of a gateway.
#[derive(Debug)]
pub struct Memory {
    folder: PathBuf,
    file: PathBuf,
    metrics: Arc<Metrics>,
    written: Mutex<Option<Written>>,
}

#[derive(Debug)]
struct Written {
    text: String,
    at: Instant,
    failed: bool,
}

/// What was read at the start.
#[derive(Debug, Default)]
pub struct Recalled(Option<(Form, Past)>);

impl Memory {
    /// The memory in this folder, which is made if it is not there.
    pub fn new(folder: &Path, metrics: Arc<Metrics>) -> Self {
        if let Err(error) = Folder::open_or_create(folder) {
            warn!(folder:% = folder.display(), error:% = error; "server.state_dir cannot be used: nothing is remembered over a restart");
        }
        Self { folder: folder.to_owned(), file: folder.join(FILE), metrics, written: Mutex::default() }
    }

    /// Reads what was written down. A file that is not good is told and left out of account.
    pub fn read(&self) -> Recalled {
        match read(&self.folder) {
            Ok(None) => Recalled::default(),
            Ok(Some(form)) => {
                let past = Past::new(form.written_ms, &Clock::now());
                info!(file:% = self.file.display(), age:? = past.age; "what was known of backends is recalled");
                Recalled(Some((form, past)))
            }
            Err(error) => {
                warn!(file:% = self.file.display(), error:% = error; "what was known of backends cannot be recalled, and they begin anew");
                Recalled::default()
            }
        }
    }

    /// Writes down what is known, if that is news. Blocking.
    pub fn write(&self, upstreams: &[Arc<Upstream>]) {
        let clock = Clock::now();
        let forms: Vec<UpstreamForm> =
            upstreams.iter().map(|upstream| UpstreamForm::of(upstream, &clock)).collect();
        let Ok(text) = serde_json::to_string(&forms) else { return };
        let mut written = self.written.lock();
        let is_known = |old: &Written| !old.failed && old.text == text && old.at.elapsed() < REFRESH;
        if written.as_ref().is_some_and(is_known) {
            return;
        }
        let done = replace(&self.folder, &sealed(&clock.form(&text)));
        self.metrics.state_written(done.is_ok());
        let had_failed = written.as_ref().is_some_and(|old| old.failed);
        match &done {
            Err(error) if !had_failed => {
                warn!(file:% = self.file.display(), error:% = error; "what is known of backends cannot be written down");
            }
            Ok(()) if had_failed => {
                info!(file:% = self.file.display(); "what is known of backends is written down again");
            }
            Ok(()) | Err(_) => {}
        }
        *written = Some(Written { text, at: Instant::now(), failed: done.is_err() });
    }
}

impl Recalled {
    /// What operators ordered, before names are looked up.
    pub fn orders(&self, upstreams: &[Arc<Upstream>]) {
        for (upstream, form, past) in self.each(upstreams) {
            upstream.recall_orders(form.orders(upstream, past), past.now);
        }
    }

    /// Where names led, of those that could not be looked up; and who is out.
    pub fn health(&self, upstreams: &[Arc<Upstream>]) {
        for (upstream, form, past) in self.each(upstreams) {
            if past.age < upstream.spec().dns.keep {
                upstream.recall_names(&form.names(), past.now);
            }
            if past.age < HEALTH_AGE_MAX {
                upstream.recall_backends(&form.backends(past), past.now);
            }
        }
    }

    fn each<'a>(
        &'a self,
        upstreams: &'a [Arc<Upstream>],
    ) -> impl Iterator<Item = (&'a Arc<Upstream>, &'a UpstreamForm, &'a Past)> {
        self.0.iter().flat_map(move |(file, past)| {
            upstreams.iter().filter_map(move |upstream| {
                let form = file.upstreams.iter().find(|form| form.name == upstream.spec().name)?;
                Some((upstream, form, past))
            })
        })
    }
}

/// None: there is no file.
fn read(folder: &Path) -> io::Result<Option<Form>> {
    let file = match Folder::open_or_create(folder)?.open_to_read(FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::Error::other("the file is too large to be one of ours"));
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    let body = text
        .split_once('\n')
        .filter(|(head, body)| *head == head_of(body))
        .map(|(_, body)| body)
        .ok_or_else(|| io::Error::other("the file is damaged, or of another version"))?;
    serde_json::from_str(body).map(Some).map_err(io::Error::other)
}

fn head_of(body: &str) -> String {
    let sum = Blake2b::<U16>::digest(body.as_bytes());
    let hex: Vec<String> = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{MAGIC} {}", hex.concat())
}

fn sealed(body: &str) -> String {
    format!("{}\n{body}", head_of(body))
}

/// Whoever reads meanwhile has the old file or the new one.
fn replace(folder: &Path, text: &str) -> io::Result<()> {
    let folder = Folder::open_or_create(folder)?;
    let mut draft = folder.create(DRAFT)?;
    draft.write_all(text.as_bytes())?;
    draft.sync_data()?;
    folder.rename(DRAFT, FILE)
}

impl Clock {
    fn form(&self, upstreams: &str) -> String {
        format!("{{\"written_ms\":{},\"upstreams\":{upstreams}}}\n", self.millis(self.now))
    }
}

#[cfg(test)]
mod tests;
