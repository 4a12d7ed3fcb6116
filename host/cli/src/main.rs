//! The `cofferdam` command: one file per verb, data on stdout, progress and messages on stderr.

mod args;
mod configure;
mod confine;
mod df;
mod environment;
mod failure;
mod fsck;
mod gc;
mod guest;
mod image_name;
mod images;
mod inspect;
mod interrupt;
mod layer_extract;
mod layer_list;
mod layer_verify;
mod limits;
mod machine;
mod mount_spec;
mod output;
mod plugin;
mod policy;
mod progress;
mod pull;
mod rm;
mod session;
mod tag;
mod unpack;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Args, Command, GuestCommand, LayerCommand};
use failure::Failure;
use session::Session;

fn main() -> ExitCode {
    if let Err(error) = machine::prepare() {
        return failure::report(&error.into(), false);
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to stdout and are no failure; clap knows which is which.
            let json = std::env::args_os().any(|word| word == "--json");
            if error.use_stderr() && (json || reason(&error).is_some()) {
                return failure::report(&misunderstood(&error), json);
            }
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    let json = args.global.json;
    machine::tell_as_json(json);
    let session = match Session::new(args.global) {
        Ok(session) => session,
        Err(error) => return failure::report(&error, json),
    };
    let outcome = run(&session, args.command);
    progress::end();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, session.json()),
    }
}

/// The library's own error about a word of the command line.
fn reason(error: &clap::Error) -> Option<&cofferdam::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// What clap says of a command line, without its layout for terminals.
fn misunderstood(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let (said, more) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = reason(error).and_then(cofferdam::Error::hint).unwrap_or_else(|| words(more));
    failure::usage(words(said.trim_start_matches("error:")), (!hint.is_empty()).then_some(hint))
}

fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Pull(args) => pull::run(session, &args),
        Command::Unpack(args) => unpack::run(session, &args),
        Command::MountSpec(args) => mount_spec::run(session, &args),
        Command::Images => images::run(session),
        Command::Inspect { image } => inspect::run(session, &image),
        Command::Rm { images } => rm::run(session, &images),
        Command::Tag { image, name } => tag::run(session, &image, &name),
        Command::Gc(args) => gc::run(session, &args),
        Command::Df => df::run(session),
        Command::Fsck(args) => fsck::run(session, &args),
        Command::Layer(LayerCommand::Extract(args)) => layer_extract::run(session, &args),
        Command::Layer(LayerCommand::List(args)) => layer_list::run(session, &args),
        Command::Layer(LayerCommand::Verify(args)) => layer_verify::run(session, &args),
        Command::Guest(GuestCommand::List) => guest::list(session),
        Command::Guest(GuestCommand::Inspect { name }) => guest::inspect(session, name.as_deref()),
        Command::Guest(GuestCommand::Export { directory }) => guest::export(session, &directory),
        Command::Plugin(command) => plugin::run(session, &command),
        Command::Limits => limits::run(session),
        Command::Completions { shell } => {
            session.bare_wall()?.enforce()?;
            // Into memory first: the generator panics when it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "cofferdam", &mut script);
            output::raw(&script)
        }
    }
}
