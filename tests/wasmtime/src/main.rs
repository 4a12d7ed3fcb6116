//! `wasmtime run` and `wasmtime compile`, as the authors of wasmtime wrote them.

use clap::Parser;
use wasmtime_cli::commands::{CompileCommand, RunCommand};

#[derive(Parser)]
#[command(name = "wasmtime", version)]
enum Command {
    /// Runs a module or component.
    Run(RunCommand),
    /// Compiles a module or component.
    Compile(CompileCommand),
}

fn main() -> wasmtime::Result<()> {
    match Command::parse() {
        Command::Run(run) => run.execute(),
        Command::Compile(compile) => compile.execute(),
    }
}
