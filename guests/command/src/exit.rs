//! The exit code. Rust's own way to end under WASI 0.2 knows success and failure only; the interface has had a code since
//! 0.2.12, and every version of WASI 0.2 from then on.

#[cfg(target_os = "wasi")]
mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    wit_bindgen::generate!({
        inline: "
            package cofferdam:command;

            world exit {
                import wasi:cli/exit@0.2.12;
            }

            package wasi:cli@0.2.12 {
                interface exit {
                    exit: func(status: result);
                    exit-with-code: func(status-code: u8);
                }
            }
        ",
        generate_all,
    });
}

/// Ends the program.
pub(crate) fn with(code: u8) -> std::process::ExitCode {
    #[cfg(target_os = "wasi")]
    if code != 0 {
        bindings::wasi::cli::exit::exit_with_code(code);
    }
    code.into()
}
