//! What a plugin may not do: a hostile one tries it, for each capability and each limit, and beside each denial stands
//! what a plugin that was granted it can do.
//!
//! The plugin (`tests/hostile/guests/plugin`) is a verifier and an inspector whose settings say what to try. What it says
//! came of it is what it saw.

mod files;
mod imports;
mod limits;
mod nested;
mod network;
mod server;
mod tls;
mod trial;
