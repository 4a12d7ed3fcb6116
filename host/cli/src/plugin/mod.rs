//! `plugin …`: components that extend the program, and what they may do.

mod add;
mod grant;
mod list;
mod new;
mod pack;
mod source;
mod test;

use crate::args::PluginCommand;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) fn run(session: &Session, command: &PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::Add(args) => add::run(session, args),
        PluginCommand::List => list::list(session),
        PluginCommand::Inspect { plugin } => list::inspect(session, plugin),
        PluginCommand::Grant(args) => grant::grant(session, args),
        PluginCommand::Revoke(args) => grant::revoke(session, args),
        PluginCommand::Rm { names } => grant::remove(session, names),
        PluginCommand::Test(args) => test::run(session, args),
        PluginCommand::New { world, directory } => new::run(session, *world, directory),
        PluginCommand::Pack { plugin, output } => pack::run(session, plugin, output),
    }
}
