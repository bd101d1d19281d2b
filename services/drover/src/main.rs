//! Entry of the executable.

/// Of many small allocations that one thread makes and another frees (ADR 1).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Of a huge page all 2 MiB are resident as soon as one byte is used, and each thread begins one for each size (ADR 1).
    // A kernel that has no such switch has none to switch off.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
    drover::main()
}
