//! Kernel modules in an order in which they can be loaded. A kernel's package has no modules.dep
//! (depmod makes it at installation), so what a module needs is read from its own `.modinfo`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A module, unpacked.
#[derive(Debug)]
pub(super) struct Module {
    /// As the kernel spells it, with `_` for `-`.
    pub(super) name: String,
    /// The ELF file.
    pub(super) content: Vec<u8>,
}

/// The wanted modules of the kernel under `directory` (lib/modules/RELEASE), with all that they
/// need before them. Those that this kernel has built in or does not have are left out: which
/// there are differs between series, and a command that misses one says so itself.
///
/// # Errors
/// A module cannot be read, or another that it cannot do without is missing.
pub(super) fn in_load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    collect(&directory.join("kernel"), &mut files)?;
    let built_in = directory.join("modules.builtin");
    let built_in = fs::read_to_string(&built_in)
        .with_context(|| format!("cannot read {}", built_in.display()))?;
    let seen = built_in.lines().filter_map(|line| name_of(Path::new(line))).collect();
    let mut closure = Closure { files, seen, order: Vec::new() };
    for name in wanted {
        closure.visit(name)?;
    }
    Ok(closure.order)
}

struct Closure {
    files: HashMap<String, PathBuf>,
    /// Built in, or visited.
    seen: HashSet<String>,
    order: Vec<Module>,
}

impl Closure {
    /// Adds a module after what it needs. Returns whether the kernel has it.
    fn visit(&mut self, name: &str) -> Result<bool> {
        let name = name.replace('-', "_");
        if self.seen.contains(&name) {
            return Ok(true);
        }
        let Some(file) = self.files.get(&name) else { return Ok(false) };
        let content = read(file)?;
        self.seen.insert(name.clone());
        let needs = Needs::of(&content).with_context(|| format!("module {}", file.display()))?;
        for soft in &needs.soft {
            // A soft dependency may be an alias; this one matters, being asked for by libcrc32c.
            if !self.visit(soft)? && soft == "crc32c" {
                self.visit("crc32c_generic")?;
            }
        }
        for hard in &needs.hard {
            ensure!(self.visit(hard)?, "module {name} needs {hard}, which is not there");
        }
        self.order.push(Module { name, content });
        Ok(true)
    }
}

/// All module files below a directory.
fn collect(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let list = fs::read_dir(directory);
    for entry in list.with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The name of the module in a file such as `nf-nat.ko.xz`.
fn name_of(file: &Path) -> Option<String> {
    let (name, packing) = file.file_name()?.to_str()?.rsplit_once(".ko")?;
    (packing.is_empty() || packing.starts_with('.')).then(|| name.replace('-', "_"))
}

/// A module's ELF file, unpacked by the host: not every busybox can, nor every kernel.
fn read(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut command = Command::new(program);
    let output = command.args(["-d", "-c", "-q"]).arg(file).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} cannot unpack {}", file.display());
    Ok(output.stdout)
}

/// What a module needs before it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    hard: Vec<String>,
    /// May be missing.
    soft: Vec<String>,
}

impl Needs {
    fn of(module: &[u8]) -> Result<Self> {
        let Some(info) = section(module, b".modinfo") else { bail!("it has no .modinfo") };
        Ok(Self::parse(info))
    }

    /// Reads `.modinfo`: strings `KEY=VALUE` with a NUL after each, such as `depends=a,b` and
    /// `softdep=pre: c d post: e`.
    fn parse(info: &[u8]) -> Self {
        let mut needs = Self::default();
        for entry in info.split(|&byte| byte == 0) {
            let entry = String::from_utf8_lossy(entry);
            match entry.split_once('=') {
                Some(("depends", list)) => {
                    let names = list.split(',').filter(|name| !name.is_empty());
                    needs.hard.extend(names.map(str::to_owned));
                }
                Some(("softdep", list)) => {
                    let mut before = false;
                    for word in list.split_ascii_whitespace() {
                        match word {
                            "pre:" => before = true,
                            "post:" => before = false,
                            name if before => needs.soft.push(name.to_owned()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        needs
    }
}

/// A section of a little-endian ELF64 file.
fn section<'f>(file: &'f [u8], name: &[u8]) -> Option<&'f [u8]> {
    const NAME: usize = 0;
    const OFFSET: usize = 24;
    const SIZE: usize = 32;
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = number(file, 40, 8)?;
    let (size, count, names) = (number(file, 58, 2)?, number(file, 60, 2)?, number(file, 62, 2)?);
    let header = |index: usize| file.get(table.checked_add(index.checked_mul(size)?)?..);
    let content = |header: &[u8]| {
        let begin = number(header, OFFSET, 8)?;
        file.get(begin..begin.checked_add(number(header, SIZE, 8)?)?)
    };
    let names = content(header(names)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let own = names.get(number(header, NAME, 4)?..)?;
        (own.split(|&byte| byte == 0).next()? == name).then(|| content(header)).flatten()
    })
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8], offset: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(offset..offset.checked_add(length)?)?;
    let mut whole = [0; 8];
    whole.get_mut(..length)?.copy_from_slice(bytes);
    usize::try_from(u64::from_le_bytes(whole)).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Needs, in_load_order, name_of, section};

    /// An ELF file with the sections "", `.modinfo` and `.shstrtab`.
    fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file.extend(info);
        file.extend(names);
        let table = file.len() as u64;
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        let sections = [(0, 0, 0), (1, 64, info.len()), (10, 64 + info.len(), names.len())];
        for (name, offset, size) in sections {
            let mut header = [0; 64];
            header[0] = name;
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend(header);
        }
        file
    }

    #[test]
    fn modinfo_tells_what_a_module_needs() {
        let info = b"license=GPL\0softdep=pre: crc32c a-b post: later\0depends=nf_conntrack,x\0\
                     softdep=post: z pre: last\0description=depends=no\0";
        let needs = Needs::of(&module(info)).unwrap();
        assert_eq!(needs.hard, ["nf_conntrack", "x"]);
        assert_eq!(needs.soft, ["crc32c", "a-b", "last"]);
        assert_eq!(Needs::parse(b"depends=\0name=x\0"), Needs::default());
    }

    #[test]
    fn a_damaged_file_has_no_sections() {
        let whole = module(b"depends=a\0");
        assert_eq!(section(&whole, b".modinfo"), Some(b"depends=a\0".as_slice()));
        assert_eq!(section(&whole, b".modinf"), None);
        for length in 0..64 {
            assert_eq!(section(&whole[..length], b".modinfo"), None, "{length}");
        }
        let mut wild = whole;
        wild[40..48].fill(0xff);
        assert_eq!(section(&wild, b".modinfo"), None);
    }

    #[test]
    fn file_names_give_module_names() {
        let name = |file: &str| name_of(Path::new(file));
        assert_eq!(name("kernel/net/nf-nat.ko.xz").as_deref(), Some("nf_nat"));
        assert_eq!(name("veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("a.kotlin"), None);
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(directory.path().join("modules.builtin"), "kernel/lib/built-in.ko\n").unwrap();
        let put = |name: &str, info: &[u8]| {
            fs::write(kernel.join(name), module(info)).unwrap();
        };
        put("a.ko", b"depends=b-c,built-in\0");
        put("b-c.ko", b"depends=d\0softdep=pre: absent\0");
        put("d.ko", b"depends=\0");
        put("broken.ko", b"depends=absent\0");
        let names = |wanted: &[&str]| -> anyhow::Result<Vec<String>> {
            let modules = in_load_order(directory.path(), wanted)?;
            Ok(modules.into_iter().map(|module| module.name).collect())
        };
        assert_eq!(names(&["a", "d", "absent", "built_in"]).unwrap(), ["d", "b_c", "a"]);
        let error = names(&["broken"]).unwrap_err().to_string();
        assert_eq!(error, "module broken needs absent, which is not there");
    }
}
