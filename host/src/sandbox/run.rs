//! One run of a program: its store, its instance and its calls.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Instance, Lift, Linker, Lower, TypedFunc};

use super::confine::Confined;
use super::engine::Sandbox;
use super::powers::{self, Context, Powers};
use super::program::Program;
use crate::error::{Error, GuestFailure, Result};
use crate::limits::Limits;

/// A program in its store. Dropping it ends it.
pub(crate) struct Run<H: 'static> {
    program: Program,
    store: Store<Confined<H>>,
    /// For a program that can wait: where, and how much longer.
    waits: Option<(Runtime, Duration)>,
}

impl<H: Send + 'static> Run<H> {
    pub(crate) fn new(
        sandbox: &Sandbox,
        program: &Program,
        memory: u64,
        limits: &Limits,
        context: &Context,
        host: H,
    ) -> std::result::Result<Self, (Error, H)> {
        let (powers, waits) = match prepare(program, limits, context) {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, host)),
        };
        let store = sandbox.store(program, memory, limits, powers, host);
        Ok(Self { program: program.clone(), store, waits })
    }

    /// Links what the world has, by `link`, and what the program holds beyond it; then instantiates.
    pub(crate) fn instantiate(
        &mut self,
        sandbox: &Sandbox,
        link: impl FnOnce(&mut Linker<Confined<H>>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<Instance> {
        let mut linker = Linker::new(sandbox.engine());
        link(&mut linker)?;
        if let Some(held) = self.program.capabilities() {
            powers::link(&mut linker, held)?;
        }
        let component = self.program.component().clone();
        match &mut self.waits {
            None => linker.instantiate(&mut self.store, &component),
            Some((runtime, left)) => {
                let instance = linker.instantiate_async(&mut self.store, &component);
                within(runtime, left, instance).unwrap_or_else(|| Err(self.late()))
            }
        }
    }

    /// A function that the program exports, by itself or in an interface.
    pub(crate) fn export<P, R>(
        &mut self,
        instance: &Instance,
        interface: Option<&str>,
        name: &str,
    ) -> wasmtime::Result<TypedFunc<P, R>>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let absent = || wasmtime::Error::msg(format!("it does not export {}", interface.unwrap_or(name)));
        let outer = interface
            .map(|interface| instance.get_export_index(&mut self.store, None, interface).ok_or_else(absent))
            .transpose()?;
        let index = instance.get_export_index(&mut self.store, outer.as_ref(), name).ok_or_else(absent)?;
        instance.get_typed_func(&mut self.store, index)
    }

    /// Calls a function.
    pub(crate) fn call<P, R>(&mut self, function: TypedFunc<P, R>, parameters: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        match &mut self.waits {
            None => function.call(&mut self.store, parameters),
            Some((runtime, left)) => {
                let returned = function.call_async(&mut self.store, parameters);
                within(runtime, left, returned).unwrap_or_else(|| Err(self.late()))
            }
        }
    }

    pub(crate) fn state(&mut self) -> &mut Confined<H> {
        self.store.data_mut()
    }

    /// Ends it; gives the host back, and the failure of a host call if there was one.
    pub(crate) fn release(self) -> (H, Option<Error>) {
        self.store.into_data().release()
    }

    /// The program waited for longer than it may.
    fn late(&mut self) -> wasmtime::Error {
        let state = self.store.data_mut();
        let error = state.stopped(GuestFailure::Waited);
        state.fail(error);
        wasmtime::Error::msg("the plugin waited for too long")
    }
}

type Prepared = (Option<Box<Powers>>, Option<(Runtime, Duration)>);

fn prepare(program: &Program, limits: &Limits, context: &Context) -> Result<Prepared> {
    let Some(held) = program.capabilities() else { return Ok((None, None)) };
    let powers = Powers::new(program.name(), held, limits, context)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { action: "set up what a plugin waits on".into(), source })?;
    Ok((Some(Box::new(powers)), Some((runtime, limits.plugin_wait))))
}

/// Runs `work` for as long as is left; nothing if it is not done then.
fn within<T>(runtime: &Runtime, left: &mut Duration, work: impl Future<Output = T>) -> Option<T> {
    let begin = Instant::now();
    let done = runtime.block_on(async { tokio::time::timeout(*left, work).await });
    *left = left.saturating_sub(begin.elapsed());
    done.ok()
}
