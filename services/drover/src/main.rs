//! Entry of the executable.

fn main() -> std::process::ExitCode {
    drover::main()
}
