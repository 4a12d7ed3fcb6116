//! Prints each component's size and what it imports and exports: `imports FILE…`. For the scripts and tests here; who has
//! Cofferdam says `cofferdam plugin inspect FILE`.

use std::io::Write;

use wasmparser::{Parser, Payload};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for path in std::env::args_os().skip(1) {
        let bytes = std::fs::read(&path)?;
        writeln!(out, "{} {} bytes", path.display(), bytes.len())?;
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::MemorySection(section) => {
                    for memory in section {
                        writeln!(out, "  memory of {} KiB at the beginning", memory?.initial * 64)?;
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        writeln!(out, "  import {}", import?.name.name)?;
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        writeln!(out, "  export {}", export?.name.name)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}
