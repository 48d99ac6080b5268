//! The `bertc` command.

fn main() -> std::process::ExitCode {
    bertc::cli::main()
}
