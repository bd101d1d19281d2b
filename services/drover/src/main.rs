//! Entry of the executable.

/// Of many small allocations that one thread makes and another frees (ADR 1).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    drover::main()
}
