//! What the drills need before they begin: the built binary, and a choice of the database.

use std::process::Command;

use mainstay::store::Dialect;

/// On which database a drill runs.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum On {
    Sqlite,
    /// On the server of `TEST_POSTGRES_URL`, in a database of its own.
    Postgres,
}

impl On {
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Sqlite => Dialect::Sqlite,
            Self::Postgres => Dialect::Postgres,
        }
    }
}

/// Builds the binary as this example was built: `cargo run --example` builds only the example.
pub(crate) fn build() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "mainstay-app", "--bin", "mainstay"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the binary cannot be built");
}
