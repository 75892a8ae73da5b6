//! SYSLOG: lines to a syslog daemon. To a socket of this host in the form of
//! syslog(3), over UDP and TCP in that of RFC 5424.

use std::fmt::Write as _;
use std::io;

use super::clock::{self, PerSecond};
use super::output::{Address, Counted, Destination, Output, Settings as OutputSettings};
use crate::stats::{SinkPlugin, SinkStats};
use crate::zone::Zone;

/// How SYSLOG is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to: a socket.
    pub output: OutputSettings,
    /// Facility and level: `facility << 3 | level`.
    pub priority: u8,
    /// What messages are said to come from.
    pub ident: String,
}

/// The sink.
pub struct Syslog {
    form: Form,
    output: Output,
}

/// How a message looks.
enum Form {
    /// `<PRI>Nov  2 22:46:30 ident[pid]: message`, one datagram each.
    Local { style: Style, front: PerSecond },
    /// RFC 5424, and over TCP its length before it (RFC 6587, 3.4.1), so that
    /// nothing within can be taken for its end.
    Remote { front: Vec<u8>, rest: Vec<u8>, counted: bool, message: Vec<u8> },
}

struct Style {
    priority: u8,
    tag: String,
}

impl Syslog {
    /// Begins to connect.
    ///
    /// # Errors
    /// As [`Output::open`].
    pub fn open(settings: &Settings, host: &str, stats: SinkStats) -> io::Result<Self> {
        let Settings { output, priority, ident } = settings;
        let form = match output.destination {
            Destination::Socket(Address::Tcp(..)) => remote(*priority, ident, host, true),
            Destination::Socket(Address::Udp(..)) => remote(*priority, ident, host, false),
            _ => local(*priority, ident),
        };
        let counted = Counted { noun: SinkPlugin::Syslog.noun(), stats };
        Ok(Self { form, output: Output::open(output, counted)? })
    }

    /// Takes a line, which ends with a line feed, of an event at `at`
    /// (nanoseconds since the epoch).
    pub fn push(&mut self, at: u64, line: &[u8]) {
        match &mut self.form {
            Form::Local { style, front } => {
                let front = front.at(at, |zone, second, out| style.write(zone, second, out));
                // As syslog(3) hands it on, the line feed included.
                self.output.push(front, line);
            }
            Form::Remote { front, rest, counted, message } => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                message.clear();
                message.extend_from_slice(front);
                // The finest that RFC 5424 allows.
                clock::rfc3339(at, 6, message);
                message.extend_from_slice(rest);
                message.extend_from_slice(line);
                if *counted {
                    let mut length = itoa::Buffer::new();
                    // One blank between length and message.
                    let mut front = [b' '; 8];
                    let digits = length.format(message.len() as u32).as_bytes();
                    front[..digits.len()].copy_from_slice(digits);
                    self.output.push(&front[..=digits.len()], message);
                } else {
                    self.output.push(message, b"");
                }
            }
        }
    }

    /// Where it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Where it writes, to be written to.
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }
}

fn local(priority: u8, ident: &str) -> Form {
    let tag = format!("{ident}[{}]: ", std::process::id());
    Form::Local { style: Style { priority, tag }, front: PerSecond::local() }
}

impl Style {
    #[cold]
    fn write(&self, zone: &Zone, second: u64, out: &mut Vec<u8>) {
        let Self { priority, tag } = self;
        // Writing to a vector cannot fail.
        let _ = io::Write::write_fmt(out, format_args!("<{priority}>"));
        clock::syslog(zone, second, out);
        out.push(b' ');
        out.extend_from_slice(tag.as_bytes());
    }
}

fn remote(priority: u8, ident: &str, host: &str, counted: bool) -> Form {
    let (host, ident) = (name(host, 255), name(ident, 48));
    let mut rest = String::new();
    // Neither a message id nor structured data. Writing to a string cannot fail.
    let _ = write!(rest, " {host} {ident} {} - - ", std::process::id());
    Form::Remote {
        front: format!("<{priority}>1 ").into_bytes(),
        rest: rest.into_bytes(),
        counted,
        message: Vec::with_capacity(2048),
    }
}

/// A name as RFC 5424 allows it: printable ASCII without blanks, `-` for none.
fn name(text: &str, longest: usize) -> String {
    let printable = text.chars().filter(char::is_ascii_graphic).take(longest).collect::<String>();
    if printable.is_empty() { "-".to_owned() } else { printable }
}

#[cfg(test)]
mod tests;
