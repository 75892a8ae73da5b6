//! The parquet crate panics over some damages, such as a bloom filter without
//! bytes (60.1). That is one more way to say that a file is damaged.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::super::asked::Trouble;

thread_local! {
    /// A panic of this thread is told by who reads the file.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Does `read`, and takes a panic for an error of the file.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !READING.get() {
                others(info);
            }
        }));
    });
    let outer = READING.replace(true);
    // What it has gathered is of use up to there, and nothing else is shared.
    let done = panic::catch_unwind(AssertUnwindSafe(read));
    READING.set(outer);
    done.unwrap_or_else(|payload| {
        let why = payload.downcast_ref::<String>().map(String::as_str);
        let why = why.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Trouble::Archive(format!("it is damaged: {why}; restore it, or move it away")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_what_is_wrong_with_the_file() {
        let none: [u8; 0] = [];
        let read = |place: usize| guarded(|| Ok(none.to_vec()[place]));
        let Err(Trouble::Archive(why)) = read(0) else { panic!("it was read") };
        assert!(why.starts_with("it is damaged: index out of bounds"), "{why}");
        assert!(guarded(|| Ok(7)).is_ok_and(|seven| seven == 7));
    }
}
