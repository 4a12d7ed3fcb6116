//! Runs a verifier: an image's name and manifest in, a word out.

use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;

use super::bindings::{Failure, interface, verification};
use super::engine::Sandbox;
use super::failure::one_line;
use super::powers::Context;
use super::program::Program;
use super::run::Run;
use super::{log, settings};

impl Sandbox {
    /// Asks a verifier about an image. Says why it accepts it, in one line. Blocks; the plugin may wait for the network if
    /// it holds that, for `plugin-wait` in all.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it does not accept the image; [`Error::Guest`] if it was stopped.
    pub fn verify(
        &self,
        program: &Program,
        limits: &Limits,
        context: &Context,
        subject: &verification::Subject,
    ) -> Result<String> {
        type Answer = std::result::Result<String, Failure>;
        let limits = &program.limits(limits);
        let _clocks = self.clocks();
        let mut run = Run::new(self, program, limits.guest_memory, limits, context, ()).map_err(|(error, ())| error)?;
        let outcome = run
            .instantiate(self, |linker| {
                log::link(linker)?;
                settings::link(linker)
            })
            .and_then(|instance| {
                let verify = run.export::<(verification::Subject,), (Answer,)>(
                    &instance,
                    Some(interface::VERIFICATION),
                    "verify",
                )?;
                run.state().enter();
                run.call(verify, (subject.clone(),)).map(|(answer,)| answer)
            });
        match run.end(outcome, limits).0 {
            Ok(said) => Ok(one_line(&said)),
            // The words for a layer's guest do not fit here.
            Err(Error::Refused { subject: what, reason }) if what == "the layer" => {
                Err(Error::Refused { subject: format!("`{}`", one_line(&subject.reference)), reason })
            }
            Err(other) => Err(other),
        }
    }
}
