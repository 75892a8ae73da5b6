//! The kernel proper out of a bzImage. QEMU boots it directly by its PVH entry, which spares the
//! guest unpacking itself: seconds, where the processor is emulated.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The file's name beside the kernel's packages.
pub(super) const NAME: &str = "vmlinux";

/// Unpacks a bzImage into an ELF file.
///
/// # Errors
/// It is none, or it is packed in a way unknown here, or files cannot be read or written.
pub(super) fn extract(image: &Path, into: &Path) -> Result<()> {
    let image = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let packed = payload(&image).context("the kernel is no x86 bzImage")?;
    // A file as standard input needs nobody who feeds it while the output is read.
    let mut input = tempfile::NamedTempFile::new()?;
    input.write_all(packed)?;
    let Some((program, flags)) = unpacker(packed) else {
        bail!("the kernel is packed in an unknown way: {:02x?}", &packed[..packed.len().min(8)]);
    };
    let output = Command::new(program)
        .args(flags)
        .stdin(File::open(input.path())?)
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    // The status says little: after the packed data comes its size, which some take amiss.
    ensure!(output.stdout.starts_with(b"\x7fELF"), "{program} cannot unpack the kernel");
    fs::write(into, output.stdout).with_context(|| format!("cannot write {}", into.display()))
}

/// The packed part (Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
/// payload_length).
fn payload(image: &[u8]) -> Option<&[u8]> {
    const SECTOR: usize = 512;
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // A zero means four, for very old boot loaders.
    let setup = match usize::from(*image.get(0x1f1)?) {
        0 => 4,
        sectors => sectors,
    };
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let begin = ((setup + 1) * SECTOR).checked_add(word(0x248)?)?;
    image.get(begin..begin.checked_add(word(0x24c)?)?)
}

fn unpacker(packed: &[u8]) -> Option<(&'static str, &'static [&'static str])> {
    const KNOWN: [(&[u8], &str, &[&str]); 4] = [
        (b"\x28\xb5\x2f\xfd", "zstd", &["-dcq"]),
        (b"\xfd7zXZ\0", "xz", &["-dc", "--single-stream"]),
        (b"\x02\x21\x4c\x18", "lz4", &["-dcq"]),
        (b"\x1f\x8b", "gzip", &["-dc"]),
    ];
    let known = KNOWN.into_iter().find(|(magic, ..)| packed.starts_with(magic));
    known.map(|(_, program, flags)| (program, flags))
}

#[cfg(test)]
mod tests {
    use super::{payload, unpacker};

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 2;
        image[0x248] = 0x10;
        image[0x24c] = 4;
        image[0x610..0x614].copy_from_slice(b"\x28\xb5\x2f\xfd");
        let packed = payload(&image).unwrap();
        assert_eq!(packed, b"\x28\xb5\x2f\xfd");
        assert_eq!(unpacker(packed).unwrap().0, "zstd");
        image[0x24c..0x250].fill(0xff);
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"\x7fELF"), None);
    }
}
