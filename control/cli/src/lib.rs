//! What a program needs to call Warren: the configuration file, a connection with the token on it, and failures that
//! say whose fault they are.
//!
//! The command line is built on it, and so are the end-to-end tests and the benchmarks. It deliberately prints
//! nothing and knows no process.
#![forbid(unsafe_code)]

mod client;
mod config;
mod failure;

pub use client::{Bearer, Client, Wire};
pub use config::{Config, default_path};
pub use failure::{Failure, Outcome};
