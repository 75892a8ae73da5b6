//! What the C library keeps of memory that was freed.

/// Has it keep little. By default glibc (2.36) has up to eight arenas for each processor, about one
/// for each thread here, and none of them uses what another has free: under faults 160 MiB were
/// kept after 15 minutes, 144 of them free. Buffers of a MiB and more, which grow while something
/// stalls, go back to the kernel at once; that limit would follow the largest one otherwise. A fixed
/// limit fixes the end of the heap that is kept too, at 128 KiB (malloc/malloc.c, 2.36): with 8 MiB
/// a buffer that comes and goes costs no call of the kernel, for which other threads would wait.
///
/// To be called before a thread is started.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt has no safe form")]
pub fn keep_little() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};

    const ARENAS: i32 = 2;
    const LARGE: i32 = 1 << 20;
    const KEPT: i32 = 8 << 20;
    let parameters = [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, KEPT)];
    for (parameter, value) in parameters {
        // SAFETY: it takes numbers only, and no other thread uses the allocator yet. Where it
        // refuses them all stays as it was.
        unsafe { mallopt(parameter, value) };
    }
}

/// Has it give free pages back once a minute, on a thread of its own. What a fault has filled is
/// free afterwards, and small pieces that are in use keep it from shrinking: under faults 66 MiB
/// became 82 in one of them, and stayed so.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim has no safe form")]
pub fn give_back_regularly() {
    use std::time::Duration;

    use nix::libc::malloc_trim;
    use tracing::debug;

    use crate::daemon::thread::spawn_without_signals;

    const PERIOD: Duration = Duration::from_secs(60);
    let thread = spawn_without_signals("heap", || {
        loop {
            std::thread::sleep(PERIOD);
            // SAFETY: it takes a number, and locks each arena while it looks at it.
            unsafe { malloc_trim(0) };
        }
    });
    if let Err(error) = thread {
        debug!("free memory is not given back: {error}");
    }
}

/// Other C libraries keep little by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}

/// The same.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_regularly() {}
