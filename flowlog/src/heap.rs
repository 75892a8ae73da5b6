//! What the C library keeps of memory that was freed.

/// Has it keep little. By default glibc (2.36) has up to eight arenas for each processor, about one
/// for each thread here, and none of them uses what another has free: under faults 160 MiB were
/// kept after 15 minutes, 144 of them free. Buffers of a MiB and more, which grow while something
/// stalls, go back to the kernel at once; that limit would follow the largest one otherwise.
///
/// To be called before a thread is started.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt has no safe form")]
pub fn keep_little() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, mallopt};

    const ARENAS: i32 = 2;
    const LARGE: i32 = 1 << 20;
    for (parameter, value) in [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE)] {
        // SAFETY: it takes numbers only, and no other thread uses the allocator yet. Where it
        // refuses them all stays as it was.
        unsafe { mallopt(parameter, value) };
    }
}

/// Other C libraries keep little by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}
