//! Which interfaces of WASI a capability stands for.

use cofferdam_documents::plugin::Capabilities;
use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};

use crate::confine::Confined;

/// Links what `held` stands for, and nothing else. Streams and waiting (`wasi:io`) come with whatever speaks of them.
pub(crate) fn link<H: Send + 'static>(linker: &mut Linker<Confined<H>>, held: &Capabilities) -> wasmtime::Result<()> {
    let http = !held.http.is_empty();
    if held.runtime || held.clock || http {
        io::error::add_to_linker::<_, Table>(linker, |state| state.ctx().table)?;
        io::poll::add_to_linker::<_, Table>(linker, |state| state.ctx().table)?;
        io::streams::add_to_linker::<_, Table>(linker, |state| state.ctx().table)?;
    }
    if held.runtime {
        runtime(linker)?;
    }
    if held.runtime && held.write {
        watch_files(linker)?;
    }
    if held.clock {
        clocks::wall_clock::add_to_linker::<_, WasiClocks>(linker, Confined::clocks)?;
        clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(linker, Confined::clocks)?;
    }
    if held.random {
        random::random::add_to_linker::<_, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    }
    if http {
        let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
        wasmtime_wasi_http::p2::bindings::http::types::add_to_linker::<_, WasiHttp>(
            linker,
            &(&options).into(),
            Confined::http,
        )?;
        wasmtime_wasi_http::p2::bindings::http::outgoing_handler::add_to_linker::<_, WasiHttp>(linker, Confined::http)?;
    }
    Ok(())
}

/// The table of resources alone.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// What holds no power: it starts, it speaks to the log, it sees no file that was not granted besides.
fn runtime<H: Send + 'static>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, Confined::cli)?;
    linker.instance("wasi:filesystem/preopens@0.2.12")?.func_wrap(
        "get-directories",
        |mut store: StoreContextMut<'_, Confined<H>>, (): ()| {
            let state = store.data_mut();
            state.powers().sought();
            Ok((state.filesystem().get_directories()?,))
        },
    )?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, Confined::filesystem)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, |state| state.ctx().ctx.random())
}

type Opening = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

/// Opens files as before, and takes note of them: what is unlinked and still open takes room that no walk would find.
fn watch_files<H: Send + 'static>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:filesystem/types@0.2.12")?.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, Confined<H>>, (directory, follow, path, how, what): Opening| {
            Box::new(async move {
                let state = store.data_mut();
                let opened = state.filesystem().open_at(directory, follow, path, how, what).await;
                let opened = match opened {
                    Ok(opened) => opened,
                    Err(error) => return Ok((Err::<_, ErrorCode>(error.downcast()?),)),
                };
                let powers = state.powers();
                if let Descriptor::File(file) = powers.table.get(&opened)?
                    && let Some(scratch) = &mut powers.scratch
                {
                    scratch.opened(&file.file);
                }
                Ok((Ok(opened),))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
