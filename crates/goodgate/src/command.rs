//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::backends::backends;
use crate::explain::explain;
use crate::survival::survival;
use crate::{control, demo, run, warnings};

/// Where the configuration is unless the command line says otherwise.
const CONFIG: &str = "/etc/goodgate/goodgate.yaml";

/// An edge load balancer and caching reverse proxy whose users never see an avoidable 502.
#[derive(Parser)]
#[command(name = "goodgate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run {
        /// The configuration file.
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Check configuration files: exit code 0 if all are good, 1 and every problem if one is not. Prints warnings.
    Check {
        /// The configuration files; `-` is the standard input [default: /etc/goodgate/goodgate.yaml].
        files: Vec<PathBuf>,
        /// A configuration file, as the other commands name it.
        #[arg(long, short)]
        config: Vec<PathBuf>,
    },
    /// Have the running gateway load its configuration again, and print what came of it.
    Reload {
        /// The configuration file that the gateway was started with.
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Ask the running gateway whether it is alive (for container health checks).
    Health {
        #[command(flatten)]
        whom: Whom,
    },
    /// Tell the story of one failed request: what happened, which rules decided, what to do.
    Explain {
        /// The request's identifier: the value of X-Request-Id.
        request_id: String,
        #[command(flatten)]
        whom: Whom,
        /// The records as JSON, as the access log has them.
        #[arg(long)]
        json: bool,
    },
    /// Tell who would notice if an upstream died now: which share of each route's GET traffic a copy would
    /// answer, for how long, and what stands in the way for the rest.
    Survival {
        #[command(flatten)]
        whom: Whom,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the backends: state, since when, why, weight, requests under way, times, and what operators have changed.
    Backends {
        #[command(flatten)]
        whom: Whom,
        /// Of this upstream only.
        #[arg(long, short)]
        upstream: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the gateway with three sample backends inside, to play with.
    Demo,
}

/// Which running gateway is asked.
#[derive(Args)]
pub(crate) struct Whom {
    /// The configuration file that the gateway was started with [default: /etc/goodgate/goodgate.yaml].
    #[arg(long, short)]
    pub(crate) config: Option<PathBuf>,
    /// Another admin listener than that of the file.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
}

impl Whom {
    /// The configuration file, where no other admin listener is named.
    pub(crate) fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIG))
    }
}

/// Does what the command line says.
pub(crate) fn execute() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { config } => run::run(&config),
        Command::Check { files, config } => Ok(check(files, config)),
        Command::Reload { config } => control::reload(&config),
        Command::Health { whom } => control::health(&whom),
        Command::Explain { request_id, whom, json } => explain(&request_id, &whom, json),
        Command::Survival { whom, json } => survival(&whom, json),
        Command::Backends { whom, upstream, json } => backends(&whom, json, upstream.as_deref()),
        Command::Demo => demo::demo(),
    }
}

fn check(mut files: Vec<PathBuf>, config: Vec<PathBuf>) -> ExitCode {
    files.extend(config);
    if files.is_empty() {
        files.push(CONFIG.into());
    }
    let bad = files.iter().filter(|file| !is_good(file)).count();
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn is_good(file: &Path) -> bool {
    match goodgate_config::load(file) {
        Ok(loaded) => {
            for warning in warnings::all(&loaded) {
                eprintln!("{}", control::tame(&warning));
            }
            println!("{}: good", file.display());
            true
        }
        Err(problems) => {
            eprintln!("{problems}");
            false
        }
    }
}
