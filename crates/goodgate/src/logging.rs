//! The error log: `env_logger` on standard error, the libraries beneath quiet unless asked.
//!
//! Lines are written by a thread of their own, since whoever reads standard error may stop to. What ends the
//! process flushes the logger before, so that the last words are not lost.

use std::io::IsTerminal;
use std::sync::Arc;

use env_logger::{Builder, Env, Logger, Target, WriteStyle};
use goodgate_telemetry::{ErrorLog, Metrics};
use log::{Log, Metadata, Record};

/// What is logged unless `RUST_LOG` says otherwise. Pingora tells of each failed request, which is what
/// the access log is for.
const DEFAULT: &str =
    "info,pingora_proxy=off,pingora_core=off,pingora_cache=off,hickory_resolver=error,hickory_proto=error";

/// Makes lines and hands them to the thread.
struct Lines {
    logger: Logger,
    out: ErrorLog,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.logger.log(record);
    }

    fn flush(&self) {
        self.out.wait();
    }
}

pub(crate) fn start() {
    let filter = Env::default().default_filter_or(DEFAULT);
    let mut builder = Builder::from_env(filter);
    builder.format_timestamp_millis();
    let Ok(out) = ErrorLog::open() else {
        // Without threads there will be no gateway either, but it can be said why.
        let _ = builder.try_init();
        return;
    };
    let is_plain = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    if is_plain("RUST_LOG_STYLE") && is_plain("NO_COLOR") && std::io::stderr().is_terminal() {
        builder.write_style(WriteStyle::Always);
    }
    let logger = builder.target(Target::Pipe(Box::new(out.clone()))).build();
    let level = logger.filter();
    // A second start (demo within tests) keeps the first logger.
    if log::set_boxed_logger(Box::new(Lines { logger, out })).is_ok() {
        log::set_max_level(level);
    }
}

/// A panic costs one connection: it is counted and logged in one line. One of the main thread ends the process.
pub(crate) fn count_panics(metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        log::error!(panic:% = panic; "a bug of goodgate's was caught");
        if std::thread::current().name() == Some("main") {
            log::logger().flush();
        }
    }));
}
