//! Runs an inspector: shows it the entries of one layer, and takes its report.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_tree::claim;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, TypedFunc};

use super::bindings::{Failure, inspection, interface, tree};
use super::confine::Confined;
use super::engine::Sandbox;
use super::entry::shown;
use super::program::Program;
use super::run::Run;
use super::ticker::Running;
use super::{log, settings};

type Answer<T> = std::result::Result<T, Failure>;

/// An inspector at work on one layer.
pub struct Inspection {
    /// Nothing after a failure: who failed is not asked again.
    run: Option<Run<()>>,
    program: Program,
    limits: Limits,
    see: TypedFunc<(tree::Entry,), (Answer<inspection::Interest>,)>,
    content: TypedFunc<(Vec<u8>,), (Answer<()>,)>,
    finish: TypedFunc<(), (Answer<Vec<u8>>,)>,
    _clocks: Running,
}

impl Sandbox {
    /// Begins an inspection of a layer.
    ///
    /// # Errors
    ///
    /// As all calls of [`Inspection`]: [`Error::Refused`], [`Error::Corrupt`] or [`Error::Limit`] as the inspector says;
    /// [`Error::Guest`] if it was stopped.
    pub fn inspection(&self, program: &Program, limits: &Limits, digest: &str, media_type: &str) -> Result<Inspection> {
        let limits = program.limits(limits);
        let clocks = self.clocks();
        let mut run = Run::new(self, program, limits.guest_memory, &limits, program.context(), ())
            .map_err(|(error, ())| error)?;
        let made = run.instantiate(self, link).and_then(|instance| {
            let place = Some(interface::INSPECTION);
            let begin = run.export::<(inspection::Subject,), (Answer<()>,)>(&instance, place, "begin")?;
            let functions = (
                run.export(&instance, place, "see")?,
                run.export(&instance, place, "content")?,
                run.export(&instance, place, "finish")?,
            );
            run.state().enter();
            let subject = inspection::Subject { digest: digest.to_owned(), media_type: media_type.to_owned() };
            let (begun,) = run.call(begin, (subject,))?;
            Ok(begun.map(|()| functions))
        });
        match made {
            Ok(Ok((see, content, finish))) => Ok(Inspection {
                run: Some(run),
                program: program.clone(),
                limits,
                see,
                content,
                finish,
                _clocks: clocks,
            }),
            other => run.end(other, &limits).0.map(|_| unreachable!("only failures come here")),
        }
    }
}

/// Links what an inspector imports. Some compilers import all of the interface whose types they use.
fn link(linker: &mut Linker<Confined<()>>) -> wasmtime::Result<()> {
    log::link(linker)?;
    settings::link(linker)?;
    linker.instance(interface::TREE)?.func_wrap(
        "put",
        |mut store: StoreContextMut<'_, Confined<()>>, (_,): (tree::Entry,)| {
            store.data_mut().serve(|state| Err::<(), _>(state.misuse("an inspector puts nothing")))
        },
    )
}

impl Inspection {
    /// Who it is.
    pub fn name(&self) -> &str {
        self.program.name()
    }

    /// By which its report is found.
    pub fn report_key(&self) -> &Digest {
        self.program.report_key()
    }

    /// Shows an entry. Says whether its content is asked for.
    pub fn see(&mut self, entry: claim::Entry) -> Result<bool> {
        let see = self.see;
        let interest = self.call(1, see, (shown(entry),))?;
        Ok(interest == inspection::Interest::Content)
    }

    /// Gives the next bytes of the entry's content: at most 1 MiB.
    pub fn content(&mut self, bytes: &[u8]) -> Result<()> {
        let content = self.content;
        self.call(bytes.len() as u64, content, (bytes.to_vec(),))
    }

    /// Ends the inspection of a whole layer. Gives the report, which may be empty.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let finish = self.finish;
        if let Some(run) = &mut self.run {
            // So that a report is measured by its own limit, and not by what one call may carry otherwise.
            run.carry(usize::try_from(self.limits.report_bytes).unwrap_or(usize::MAX).saturating_add(1 << 16));
        }
        let report = self.call(0, finish, ())?;
        if report.len() as u64 > self.limits.report_bytes {
            return Err(Error::Limit {
                subject: format!("the report of `{}`", self.program.name()),
                what: "bytes in a plugin's report",
                limit: self.limits.report_bytes,
            });
        }
        match self.run.take() {
            Some(run) => run.end(Ok(Ok(report)), &self.limits).0,
            None => Ok(report),
        }
    }

    /// Calls the inspector; `bytes` go in and buy time.
    fn call<P, T>(&mut self, bytes: u64, function: TypedFunc<P, (Answer<T>,)>, parameters: P) -> Result<T>
    where
        P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower + Send + Sync,
        T: Send + Sync + 'static,
        (Answer<T>,): wasmtime::component::ComponentNamedList + wasmtime::component::Lift,
    {
        let gone = || Error::Guest {
            guest: self.program.name().to_owned(),
            failure: cofferdam_core::error::GuestFailure::Misuse("it was asked again after it had failed".into()),
        };
        let mut run = self.run.take().ok_or_else(gone)?;
        let state = run.state();
        // What the host gives is progress; only what a guest asks for can be idle.
        if bytes > 0 {
            state.moved(bytes)?;
        }
        state.enter();
        let outcome = run.call(function, parameters);
        let in_time = run.state().leave();
        match (outcome, in_time) {
            (Ok((Ok(said),)), Ok(())) => {
                self.run = Some(run);
                Ok(said)
            }
            (outcome, in_time) => {
                if let Err(error) = in_time {
                    run.state().fail(error);
                }
                run.end(outcome.map(|(answer,)| answer), &self.limits).0
            }
        }
    }
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").field("program", &self.program).finish_non_exhaustive()
    }
}
