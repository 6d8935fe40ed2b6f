//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::backends::backends;
use crate::explain::explain;
use crate::survival::survival;
use crate::{control, demo, run};

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
    /// Check a configuration file: exit code 0 if it is good, 1 and every problem if it is not.
    Check {
        /// The configuration file.
        #[arg(default_value = CONFIG)]
        file: PathBuf,
    },
    /// Tell the running gateway to load its configuration anew, and wait until it has.
    Reload {
        /// The configuration file that the gateway was started with.
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Ask the running gateway whether it is alive (for container health checks).
    Health {
        /// The configuration file that the gateway was started with.
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
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
        Command::Check { file } => Ok(check(&file)),
        Command::Reload { config } => control::reload(&config),
        Command::Health { config } => control::health(&config),
        Command::Explain { request_id, whom, json } => explain(&request_id, &whom, json),
        Command::Survival { whom, json } => survival(&whom, json),
        Command::Backends { whom, upstream, json } => backends(&whom, json, upstream.as_deref()),
        Command::Demo => demo::demo(),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn check(file: &Path) -> ExitCode {
    match goodgate_config::load(file) {
        Ok(_) => {
            println!("{}: good", file.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}
