//! What `wit-bindgen` makes of `wit/`: the imports once, and each world's exports on top of them.
//!
//! A component imports only the functions that its code calls, whatever is declared here. Types that a world uses it would
//! import, though, so only the world that is wanted is there, by a feature.

#![allow(missing_docs, unreachable_pub, unsafe_code, unused_qualifications, clippy::all, clippy::pedantic)]

pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package cofferdam:sdk;
            world imports {
                import cofferdam:layer/types@0.1.0;
                import cofferdam:layer/input@0.1.0;
                import cofferdam:layer/output@0.1.0;
                import cofferdam:layer/tree@0.1.0;
                import cofferdam:layer/log@0.1.0;
                import cofferdam:layer/bounds@0.1.0;
                import cofferdam:layer/settings@0.1.0;
            }
        ",
        world: "cofferdam:sdk/imports",
        generate_all,
    });

    pub use self::cofferdam::layer::{bounds, input, log, output, settings, tree, types};
}

macro_rules! world {
    ($world:ident = $feature:literal, $name:literal: $($interface:literal => $module:ident),*) => {
        #[cfg(feature = $feature)]
        pub mod $world {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $name,
                pub_export_macro: true,
                with: { $($interface: crate::bindings::imports::$module),* },
            });
        }
    };
}

world!(decoder = "decoder", "cofferdam:layer/decoder":
    "cofferdam:layer/types@0.1.0" => types,
    "cofferdam:layer/input@0.1.0" => input,
    "cofferdam:layer/output@0.1.0" => output,
    "cofferdam:layer/log@0.1.0" => log,
    "cofferdam:layer/bounds@0.1.0" => bounds
);
world!(extractor = "extractor", "cofferdam:layer/extractor":
    "cofferdam:layer/types@0.1.0" => types,
    "cofferdam:layer/input@0.1.0" => input,
    "cofferdam:layer/tree@0.1.0" => tree,
    "cofferdam:layer/log@0.1.0" => log,
    "cofferdam:layer/bounds@0.1.0" => bounds
);
world!(inspector = "inspector", "cofferdam:layer/inspector":
    "cofferdam:layer/types@0.1.0" => types,
    "cofferdam:layer/tree@0.1.0" => tree,
    "cofferdam:layer/log@0.1.0" => log,
    "cofferdam:layer/settings@0.1.0" => settings
);
world!(verifier = "verifier", "cofferdam:layer/verifier":
    "cofferdam:layer/types@0.1.0" => types,
    "cofferdam:layer/log@0.1.0" => log,
    "cofferdam:layer/settings@0.1.0" => settings
);
