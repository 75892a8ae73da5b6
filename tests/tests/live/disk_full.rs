//! A full disk: lines wait, none is torn or written twice, and what does not fit into the buffer
//! any more is counted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{self, ensure_equal, multiset, totals};
use tests::poll;

use super::burst_lines;

/// Lines of a flow are about 190 bytes long.
const DISK: usize = 64 << 10;

/// A small file system of its own, unmounted on drop.
pub(super) struct SmallDisk {
    dir: TempDir,
    size: usize,
}

impl SmallDisk {
    /// One of so many bytes.
    pub(super) fn new(size: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-disk-").tempdir()?;
        let option = format!("size={size}");
        mount(Some("flowlog-test"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(&*option))
            .context("mounting a tmpfs")?;
        Ok(Self { dir, size })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fills it, if it is empty, with a file but for less than `room` bytes.
    pub(super) fn fill(&self, room: usize) -> Result<PathBuf> {
        let path = self.path("filler");
        File::create(&path)?.write_all(&vec![0; self.size - room])?;
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

fn parse(path: &Path) -> Result<Vec<lines::Line>> {
    lines::parse(&fs::read_to_string(path)?)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn lines_wait_for_room_synced() -> Result<()> {
    lines_wait_for_room("sync=1")
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn lines_wait_for_room_unsynced() -> Result<()> {
    lines_wait_for_room("sync=0")
}

/// 200 lines are more than the room left and less than the disk holds without the filler.
fn lines_wait_for_room(sync: &str) -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(DISK)?;
    let log = disk.path("flows.log");
    let filler = disk.fill(8192)?;
    let text = config("event_mask=1\nhash_enable=0", sync)
        .replace("@DIR@/flows.log", &log.to_string_lossy());
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    for round in 0..4 {
        udp_burst(&single, 4000, round * 50, 50)?;
    }
    daemon.wait_log("cannot be written")?;
    parse(&log).context("while the disk is full")?;
    fs::remove_file(filler)?;
    poll::until("all lines", || {
        // A line may be seen while it is written.
        let text = fs::read_to_string(&log)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        Ok((lines::parse(&text[..whole])?.len() >= 200).then_some(()))
    })?;
    udp_burst(&single, 4000, 200, 10)?;
    let finished = daemon.stop()?;
    ensure_equal(sync, &burst_lines("NEW", 4000, 0..210), &multiset(parse(&log)?))?;
    let totals = totals(&finished.log);
    ensure!(totals.get("logemu.lost_lines") == Some(&0), "{totals:?}");
    Ok(())
}

/// A small buffer cannot keep 3000 lines: written and lost add up to what was made.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_full_buffer_counts_its_losses() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(DISK)?;
    let log = disk.path("flows.log");
    let filler = disk.fill(8192)?;
    let text = config("event_mask=1\nhash_enable=0", "sync=1\nbuffer_max_bytes=4096")
        .replace("@DIR@/flows.log", &log.to_string_lossy());
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    udp_burst(&single, 4000, 0, 3000)?;
    daemon.wait_log("cannot be written")?;
    fs::remove_file(filler)?;
    let finished = daemon.stop()?;
    let written = multiset(parse(&log)?);
    let lost = totals(&finished.log).get("logemu.lost_lines").copied().unwrap_or_default();
    ensure!(lost > 0, "nothing was lost, so nothing was tested");
    ensure!(written.len() as u64 + lost == 3000, "{} written + {lost} lost", written.len());
    let expected = burst_lines("NEW", 4000, 0..3000);
    let stranger = written.iter().find(|(text, n)| **n > 1 || !expected.contains_key(*text));
    ensure!(stranger.is_none(), "twice or never sent: {stranger:?}");
    Ok(())
}
