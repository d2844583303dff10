//! The process edge: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    adamant::rootfs::entry();
    adamant::build::check::entry();
    adamant::cli::main(std::env::args_os())
}
