//! The binary `mainstay`.

use std::process::ExitCode;

// Half the time of the system's allocator under many small allocations on several threads, and memory that comes back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mainstay_app::cli::run()
}
