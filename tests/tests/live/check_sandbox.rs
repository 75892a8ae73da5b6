//! `flowlog check` in a user namespace whose /proc/sys is read-only, as in a container: it
//! promises nothing that the sandbox forbids.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::daemon::Program;

const READ_ONLY: &str =
    "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$@\"";

fn check(wrapper: &[&str]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("c.conf");
    std::fs::write(
        &file,
        format!(
            "[global]\nlogfile=\"stderr\"\n\
             stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
             [ct1]\ncapture=netlink\nset_sysctls=1\nactivate=1\n\
             netlink_socket_buffer_maxsize=268435456\n[emu1]\nfile={:?}\n",
            dir.path().join("flows.log")
        ),
    )?;
    let (first, rest) = wrapper.split_first().unwrap_or((&"env", &[]));
    let mut command = Command::new(first);
    command.args(rest).arg(Program::Flowlog.path()?).args(["check", "-c"]).arg(&file);
    let done = command.output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(!text.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(text)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_the_sandbox_forbids_is_not_promised() -> Result<()> {
    let text = check(&["unshare", "-Urnm", "sh", "-c", READ_ONLY, "sh"])?;
    ensure!(text.contains("flowlog cannot set it to 1"), "{text}");
    ensure!(!text.contains("will set it to 1"), "{text}");
    ensure!(text.contains("the receive buffer may not grow to 268435456"), "{text}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn root_is_promised_what_it_gets() -> Result<()> {
    let text = check(&["unshare", "-n"])?;
    ensure!(!text.contains("cannot set it"), "{text}");
    ensure!(text.contains("the receive buffer can grow to 268435456 bytes"), "{text}");
    Ok(())
}
