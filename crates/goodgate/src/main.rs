//! The binary: command line and wiring. Everything that decides lives in the other rooms.

mod backends;
mod bind;
mod certificates;
mod command;
mod control;
mod control_socket;
mod demo;
mod explain;
mod logging;
mod offload;
mod reload;
mod run;
mod signals;
mod stop;
mod survival;
mod warnings;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = command::execute();
    log::logger().flush();
    match result {
        Ok(code) => code,
        Err(error) => {
            // One clear line: the chain of what failed and why.
            eprintln!("goodgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
