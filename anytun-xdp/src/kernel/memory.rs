//! Memory that the process has no use for any more.

/// Gives back to the kernel what was freed. The allocator keeps it otherwise: what reading a configuration took would stay
/// resident for as long as the node runs. Takes its lock and some milliseconds, so it is nothing for a worker.
pub fn give_back() {
    // Other allocators have no such call, or need none.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and releases only what belongs to nobody.
    unsafe {
        libc::malloc_trim(0);
    }
}
