//! `flowlog list`: the table of tracked connections, once. It reads the dump
//! itself, since the line also tells which attributes the kernel left out.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::ConntrackMessage;

use self::entry::Entry;
use crate::capture::netlink::attr::Message;
use crate::capture::netlink::exchange::{exchange, persistently};
use crate::capture::netlink::now_ns;
use crate::capture::netlink::request::request;
use crate::capture::netlink::socket::NetfilterSocket;
use crate::netns;

pub(super) mod entry;
pub(super) mod extended;
pub(super) mod json;

/// How the table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `conntrack -L -o extended` prints it.
    Extended,
    /// One JSON object per line.
    Json,
}

/// Prints the table of the namespace `netns` (a name or path; absent: the
/// current one) to standard output, and how many entries it has to standard
/// error.
///
/// # Errors
/// The namespace cannot be entered, the kernel does not tell the table, or
/// standard output cannot be written to; a closed pipe is no error.
pub fn run(format: Format, netns: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut entries = 0u64;
    let mut undecoded = None;
    let mut printed = Ok(());
    let all = ConntrackMessage::Get(vec![]);
    let dump = request(NetfilterProtoFamily::Unspec, 0, all, NLM_F_REQUEST | NLM_F_DUMP, 1);
    let mut each = |message: &Message<'_>| {
        match Entry::decode(message) {
            Ok(entry) => {
                printed = print(&mut out, &entry, format);
                entries += 1;
            }
            Err(error) => undecoded = Some(error),
        }
        // The rest of the dump would be for nobody.
        if printed.is_ok() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    let read = netns::within(netns, || {
        let mut begun = false;
        persistently(|| {
            let socket = NetfilterSocket::open()?;
            let read = exchange(&socket, &dump, |message| {
                begun = true;
                each(message)
            });
            // Made again, it would print what it has printed once more.
            read.map_err(|error| if begun { io::Error::other(error) } else { error })
        })
    })?;
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        result => result.context("standard output cannot be written to")?,
    }
    read.map_err(|error| refused(&error))?;
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "flowlog: {entries} flow entries have been shown.");
    match undecoded {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error).context(
            "entries are missing above: the kernel tells them in a way that is not known; \
             report it",
        ),
    }
}

fn print(out: &mut impl Write, entry: &Entry, format: Format) -> io::Result<()> {
    match format {
        Format::Extended => writeln!(out, "{}", extended::Line { entry, now: now_ns() }),
        Format::Json => writeln!(out, "{}", json::text(&entry.flow)),
    }
}

fn refused(error: &io::Error) -> anyhow::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => "it needs CAP_NET_ADMIN: run it as root",
        Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP) => {
            "the kernel has no ctnetlink: load the module nf_conntrack_netlink"
        }
        _ => "see `flowlog check`",
    };
    anyhow!("the table of connections cannot be read: {error}; {remedy}")
}
