//! A disk that is slow or fails, for one program and some of its files: a library for LD_PRELOAD
//! makes each sync of a file whose path has a word in it take as long as is wanted, or fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What every sync goes through. `SLOW_FILES` is the word, `SLOW_SWITCH` a file that has the time
/// in milliseconds; it is read each time, so that the disk becomes fast again when it is removed.
/// Syncs fail while the file `FAIL_SWITCH` exists, and once for each file `FAIL_ONCE`.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_meant(int fd) {
    char link[64], path[4096];
    const char *word = getenv("SLOW_FILES");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !word) return 0;
    path[length] = 0;
    return strstr(path, word) != NULL;
}

static int fails(int fd) {
    const char *always = getenv("FAIL_SWITCH"), *once = getenv("FAIL_ONCE");
    if (!always || !once || !is_meant(fd)) return 0;
    if (access(always, F_OK) != 0 && unlink(once) != 0) return 0;
    errno = EIO;
    return 1;
}

static void wait_for(int fd) {
    const char *file = getenv("SLOW_SWITCH");
    if (!file || !is_meant(fd)) return;
    FILE *given = fopen(file, "r");
    if (!given) return;
    long milliseconds = 0;
    int found = fscanf(given, "%ld", &milliseconds);
    fclose(given);
    for (; found == 1 && milliseconds > 0; milliseconds -= 50) {
        struct timespec time = { 0, 50 * 1000 * 1000 };
        nanosleep(&time, NULL);
        if (access(file, F_OK) != 0) return;
    }
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for(fd);
    return fails(fd) ? -1 : real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for(fd);
    return fails(fd) ? -1 : real(fd);
}
"#;

/// The library, and what it does at present.
#[derive(Debug)]
pub struct SlowDisk {
    dir: TempDir,
}

impl SlowDisk {
    /// Makes it, by the C compiler that builds flowlog's dependencies; nothing is slow yet.
    ///
    /// # Errors
    /// There is no compiler.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-slow-").tempdir()?;
        fs::write(dir.path().join("slow.c"), SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o", "slow.so", "slow.c", "-ldl"]);
        let status = compiler.current_dir(dir.path()).status().context("cc")?;
        ensure!(status.success(), "the library does not compile");
        Ok(Self { dir })
    }

    /// The environment of the program, in whose files with that word in their path syncs are slow
    /// or fail.
    pub fn environment(&self, word: &str) -> [(&'static str, String); 5] {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(self.dir.path().join("slow.so"))),
            ("SLOW_FILES", word.to_owned()),
            ("SLOW_SWITCH", text(self.switch())),
            ("FAIL_SWITCH", text(self.failing())),
            ("FAIL_ONCE", text(self.dir.path().join("once"))),
        ]
    }

    /// From now on each sync takes that long.
    ///
    /// # Errors
    /// The switch cannot be written.
    pub fn slow_down(&self, time: Duration) -> Result<()> {
        // Whole, or not there.
        let new = self.dir.path().join("new");
        fs::write(&new, time.as_millis().to_string())?;
        Ok(fs::rename(new, self.switch())?)
    }

    /// From now on syncs are as fast as they are, also those that have begun.
    ///
    /// # Errors
    /// It was not slow.
    pub fn speed_up(&self) -> Result<()> {
        Ok(fs::remove_file(self.switch())?)
    }

    /// The next sync fails with EIO.
    ///
    /// # Errors
    /// The switch cannot be written.
    pub fn fail_once(&self) -> Result<()> {
        Ok(fs::write(self.dir.path().join("once"), "")?)
    }

    /// Whether a sync has failed since [`SlowDisk::fail_once`].
    pub fn has_failed(&self) -> bool {
        !self.dir.path().join("once").exists()
    }

    /// From now on each sync fails with EIO.
    ///
    /// # Errors
    /// As [`SlowDisk::fail_once`].
    pub fn fail(&self) -> Result<()> {
        Ok(fs::write(self.failing(), "")?)
    }

    /// From now on syncs work.
    ///
    /// # Errors
    /// They did before.
    pub fn work(&self) -> Result<()> {
        Ok(fs::remove_file(self.failing())?)
    }

    fn failing(&self) -> PathBuf {
        self.dir.path().join("failing")
    }

    fn switch(&self) -> PathBuf {
        Path::join(self.dir.path(), "switch")
    }
}
