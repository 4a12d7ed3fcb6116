//! Which plugins must accept an image: by its name, from the configuration, or asked for by hand.
//!
//! Closed where it fails: a plugin that is not there, lacks a grant, is stopped or refuses, refuses the image.

mod admit;
mod panel;
mod pattern;
mod prepare;
mod rules;

pub use admit::Admit;
pub use panel::{Panel, readers};
pub use prepare::PreparedImage;
pub use rules::{Policy, Requirement, Rule};
