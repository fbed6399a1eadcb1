//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::peer::Name;

/// Measures the same routes on bare axum, on Mainstay and on an Express stack.
#[derive(Parser)]
#[command(name = "bench", version, about)]
pub(crate) struct Options {
    /// How many times every peer is measured on every route; the peers take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,

    /// Seconds of load for each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,

    /// Keep-alive connections that load a peer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,

    /// A PostgreSQL address for the product route; the schema `mainstay_bench` in it is replaced and dropped at the end
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,

    /// The peers to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Name::ALL)]
    pub(crate) peers: Vec<Name>,

    /// Also write every sample and every median to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Fail unless Mainstay serves at least this share of bare axum's requests per second of CPU on the small answer
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) floor: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=10.0).contains(&share) => Ok(share),
        _ => Err("a share such as 0.70".to_owned()),
    }
}
