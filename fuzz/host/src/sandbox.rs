//! What the engine's generator makes of `wit/layer.wit`.

pub mod claim;
