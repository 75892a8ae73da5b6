//! The guest's only file system: programs of the host with their libraries, the kernel's modules,
//! and the command with its files. It is not compressed; unpacking costs the guest more than
//! reading.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{cpio, init, kernel, modules};
use crate::packages::find;

type Archive = cpio::Archive<BufWriter<File>>;

/// Nothing in the guest loads a module when it is asked for, so all that a test could want are
/// there from the beginning. virtio is for disks and consoles that QEMU may be given.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_conntrack_ftp",
    "nf_conntrack_tftp",
    "nf_nat",
    "nf_nat_ftp",
    "nf_nat_tftp",
    "nf_tables",
    "nft_counter",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_reject_inet",
    "nft_log",
    "nft_limit",
    "nft_objref",
    "x_tables",
    "ip_tables",
    "ip6_tables",
    "iptable_filter",
    "iptable_nat",
    "xt_conntrack",
    "xt_tcpudp",
    "xt_CT",
    "xt_helper",
    "nft_compat",
    "veth",
    "dummy",
    "bridge",
];
/// Programs besides busybox. dash is /bin/sh, because busybox's own shell prefers its applets,
/// and so its `ip`, to the programs of these names.
/// Of those that busybox has as well, tests use options that only util-linux knows.
const PROGRAMS: [&str; 7] = ["dash", "ip", "nft", "conntrack", "nsenter", "setpriv", "unshare"];
/// What the guest gets too if the host has it.
const OPTIONAL: [&str; 2] = ["ulogd", "strace"];
/// Where the host may have plugins of ulogd2. They stay where they are, because the program looks
/// for them there.
const PLUGINS: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/ulogd", "/usr/lib64/ulogd", "/usr/lib/ulogd"];
const DIRECTORIES: [&str; 11] = [
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "root",
    "var/log",
    "host",
    init::OUT,
    "etc",
    "lib/modules",
];
const FILES: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n"),
];

/// Writes the archive.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn write(
    into: &Path,
    kernel: &Path,
    directory: Option<&Path>,
    command: &[String],
) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(into)?));
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    // The kernel wants it for the first process before anything is mounted.
    archive.device("dev/console", 5, 1)?;
    for (name, content) in FILES {
        archive.file(name, 0o644, content.as_bytes())?;
    }
    archive.file("init", 0o755, init::SCRIPT.as_bytes())?;
    archive.file(init::COMMAND, 0o644, script(command).as_bytes())?;
    add_programs(&mut archive)?;
    add_modules(&mut archive, kernel)?;
    if let Some(directory) = directory {
        add_directory(&mut archive, directory, "host")?;
    }
    archive.finish()?;
    Ok(())
}

/// The command for a shell, each word as it is.
fn script(command: &[String]) -> String {
    let words = command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ") + "\n"
}

fn add_programs(archive: &mut Archive) -> Result<()> {
    for directory in ["sbin", "usr/bin", "usr/sbin"] {
        archive.link(directory, "/bin")?;
    }
    archive.link("var/run", "/run")?;
    archive.link("bin/sh", "dash")?;
    let program = |name| find(name).with_context(|| format!("{name} is not on this host"));
    for name in PROGRAMS {
        add_elf(archive, &program(name)?, &format!("bin/{name}"))?;
    }
    for name in OPTIONAL {
        if let Some(program) = find(name) {
            add_elf(archive, &program, &format!("bin/{name}"))?;
        }
    }
    for plugins in PLUGINS.map(Path::new) {
        if plugins.is_dir() {
            add_directory(archive, plugins, &plugins.to_string_lossy())?;
        }
    }
    let busybox = program("busybox")?;
    add_elf(archive, &busybox, "bin/busybox")?;
    let applets = Command::new(&busybox).arg("--list").output()?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines() {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

fn add_modules(archive: &mut Archive, kernel: &Path) -> Result<()> {
    let mut order = String::new();
    for module in modules::in_load_order(&kernel::modules(kernel)?, MODULES)? {
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.content)?;
        order += &(module.name + "\n");
    }
    archive.file(init::ORDER, 0o644, order.as_bytes())
}

/// Adds all files of a directory; what is neither a file, a directory nor a link is left out.
fn add_directory(archive: &mut Archive, directory: &Path, name: &str) -> Result<()> {
    let list = fs::read_dir(directory);
    for entry in list.with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        let own = entry.file_name().into_string();
        let own = own.ok().with_context(|| format!("{:?} is not UTF-8", entry.path()))?;
        let name = format!("{name}/{own}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            archive.directory(&name)?;
            add_directory(archive, &entry.path(), &name)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            archive.link(&name, target.to_str().context("a link is not UTF-8")?)?;
        } else if kind.is_file() {
            add_elf(archive, &entry.path(), &name)?;
        }
    }
    Ok(())
}

/// Adds a file and, if it is a program or a library, the libraries that it needs.
fn add_elf(archive: &mut Archive, file: &Path, name: &str) -> Result<()> {
    let cannot = || format!("cannot read {}", file.display());
    let permissions = fs::metadata(file).with_context(cannot)?.permissions().mode() & 0o7777;
    let content = fs::read(file).with_context(cannot)?;
    archive.file(name, permissions, &content)?;
    let runs = permissions & 0o111 != 0 || name.ends_with(".so");
    if runs && content.starts_with(b"\x7fELF") {
        for library in libraries(file)? {
            let name = library.to_string_lossy();
            if !archive.contains(&name) {
                archive.file(&name, 0o755, &fs::read(&library)?)?;
            }
        }
    }
    Ok(())
}

/// The shared libraries of a program and its loader, by their paths.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // For a static program it fails, and lists none.
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in lines such as `NAME => PATH (ADDRESS)` and `PATH (ADDRESS)`.
fn listed(ldd: &str) -> Vec<PathBuf> {
    let paths = ldd.lines().filter_map(|line| {
        let (file, _address) = line.trim().rsplit_once(" (0x")?;
        let path = file.split_once(" => ").map_or(file, |(_, path)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{listed, script};

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let words = ["sh", "-c", "echo 'a  b' $0"].map(str::to_owned);
        assert_eq!(script(&words), "'sh' '-c' 'echo '\\''a  b'\\'' $0'\n");
    }

    #[test]
    fn libraries_and_the_loader_are_listed() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibx.so => not found\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(ldd), expected.map(Path::new));
        assert!(listed("\tnot a dynamic executable\n").is_empty());
    }
}
