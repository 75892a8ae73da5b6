//! Addresses of the kernel's functions → their names, from /proc/kallsyms.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Where the kernel lists its symbols.
const LIST: &str = "/proc/kallsyms";
/// No function is longer: what lies farther behind a symbol belongs to none that
/// is known.
const LONGEST: u64 = 1 << 20;

/// Functions of the kernel and of its modules, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    functions: Vec<Function>,
    /// All names, one behind the other.
    names: String,
}

/// A function.
#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    /// Where its name is.
    start: u32,
    length: u32,
}

impl Symbols {
    /// Those of the running kernel. With none at all the addresses are hidden.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn read() -> io::Result<Self> {
        Self::parse(BufReader::with_capacity(1 << 16, File::open(LIST)?))
    }

    /// Those of a list in the kernel's form: `ADDRESS TYPE NAME[\t[MODULE]]`.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn parse(mut list: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        let mut line = Vec::new();
        while list.read_until(b'\n', &mut line)? > 0 {
            symbols.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        symbols.functions.sort_by_key(|function| function.address);
        symbols.functions.shrink_to_fit();
        Ok(symbols)
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let is_function = matches!(kind, "t" | "T" | "w" | "W");
        // What is hidden is 0.
        let address = u64::from_str_radix(address, 16).unwrap_or(0);
        if !is_function || address == 0 {
            return;
        }
        let (Ok(start), Ok(length)) = (self.names.len().try_into(), name.len().try_into()) else {
            return;
        };
        self.names.push_str(name);
        self.functions.push(Function { address, start, length });
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function that has this address in it.
    pub fn name(&self, address: u64) -> Option<&str> {
        let behind = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        let near = address - function.address < LONGEST;
        let start = function.start as usize;
        self.names.get(start..start + function.length as usize).filter(|_| near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ffffffff81000100 T second\n\
                        ffffffff81000000 t first\n\
                        ffffffff81000080 D data\n\
                        \n\
                        nonsense\n\
                        ffffffffc0000000 t nf_confirm\t[nf_conntrack]\n";

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let symbols = Symbols::parse(LIST.as_bytes()).unwrap();
        let name = |address| symbols.name(address);
        assert_eq!(name(0xffff_ffff_8100_0000), Some("first"));
        // Data is none.
        assert_eq!(name(0xffff_ffff_8100_00ff), Some("first"));
        assert_eq!(name(0xffff_ffff_8100_0100), Some("second"));
        assert_eq!(name(0xffff_ffff_c000_0042), Some("nf_confirm"));
        assert_eq!(name(0xffff_ffff_c010_0000), None);
        assert_eq!(name(0xffff_ffff_80ff_ffff), None);
    }

    #[test]
    fn hidden_addresses_are_none() {
        let symbols = Symbols::parse("0000000000000000 T first\n".as_bytes()).unwrap();
        assert!(symbols.is_empty() && symbols.name(0).is_none());
    }
}
