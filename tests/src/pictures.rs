//! The pictures of docs/pictures: each is what a terminal shows of one command while there is
//! traffic. `cargo xtask pictures` has them taken in a guest by the program `pictures`, and draws
//! them.

use std::fs;
use std::net::UdpSocket;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Program;
use crate::lab::Lab;
use crate::mass::mass_of;
use crate::namespace::Namespace;
use crate::process::Guarded;
use crate::terminal::Terminal;
use crate::traffic::{self, PORTS};

/// One picture.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Its file, without `.svg`.
    pub name: &'static str,
    /// What is typed at the prompt.
    pub command: &'static str,
    /// Of the terminal.
    pub columns: u16,
    /// Of the terminal. Of what scrolls they show the end.
    pub rows: u16,
    /// What happens meanwhile.
    pub traffic: Traffic,
    /// For how long there is traffic, seconds from the start on, unless the program ends before.
    pub seconds: u64,
    /// Keys, and after how many milliseconds each is pressed.
    pub keys: &'static [(u64, &'static str)],
}

/// What goes through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing.
    None,
    /// A mix of all protocols each second; then somebody deletes some of its connections.
    Mix,
    /// The same; besides packets that the ruleset refuses, and a table that is full at times.
    Troubles,
    /// The same as the first, and some hundred connections a second more.
    Busy,
}

/// All of them.
pub const PICTURES: &[Picture] = &[
    Picture {
        name: "watch",
        command: "flowlog watch --event new,destroy --proto tcp --src 10.0.0.0/8",
        columns: 196,
        rows: 20,
        traffic: Traffic::Mix,
        seconds: 8,
        keys: &[],
    },
    Picture {
        name: "check",
        command: "flowlog check -c /etc/flowlog.conf",
        columns: 126,
        rows: 40,
        traffic: Traffic::None,
        seconds: 30,
        keys: &[],
    },
    Picture {
        name: "trace",
        command: "flowlog trace --port 5,6,9001 --src 10.0.0.0/8 --stack 2",
        columns: 150,
        rows: 40,
        traffic: Traffic::Troubles,
        seconds: 6,
        keys: &[],
    },
    Picture {
        name: "top",
        command: "flowlog top",
        columns: 120,
        rows: 30,
        traffic: Traffic::Busy,
        seconds: 20,
        keys: &[(17_000, "3")],
    },
];

/// Connections of [`Traffic::Busy`] in a round, besides the mix.
const BUSY: u32 = 400;
/// Until the first round of traffic: the program gets ready, on an emulated processor.
const START: Duration = Duration::from_secs(5);
/// From one round of traffic to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// What is shown last may still be on its way when the traffic ends; later a screen of rates would
/// show that nothing happens any more.
const LAST: Duration = Duration::from_millis(300);
/// The first source port of the first round.
const FIRST_PORT: u16 = 40_000;
/// What the router refuses in [`Traffic::Troubles`]: new connections to port 6.
const REFUSING: &str = "
table inet refusing {
    chain forward {
        type filter hook forward priority filter + 1;
        udp dport 6 drop
    }
}
";
/// Room in the table, of each namespace.
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

impl Picture {
    /// The picture of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PICTURES.iter().find(|picture| picture.name == name)
    }

    /// Runs the command on the router of a network that is made for it, and returns what makes a
    /// terminal show what it shows then. Only in a guest: the namespaces have plain names, and
    /// sysctls of the whole host change.
    ///
    /// # Errors
    /// The network cannot be made, or the command failed.
    pub fn take(&self) -> Result<Vec<u8>> {
        let lab = Lab::with_plain_names().context("the namespaces cannot be made")?;
        match self.traffic {
            Traffic::Troubles => lab.router().nft(REFUSING)?,
            Traffic::Busy => lab.add_mass_rules()?,
            Traffic::None | Traffic::Mix => {}
        }
        let args = self.command.strip_prefix("flowlog ").context("not flowlog")?;
        let size = (self.rows, self.columns);
        let mut terminal = Terminal::start(lab.router(), Program::Flowlog.path()?, args, size)?;
        let begin = Instant::now();
        let mut rounds = Rounds { lab: &lab, traffic: self.traffic, number: 0 };
        let mut next_round = START;
        let mut keys = self.keys;
        while begin.elapsed() < Duration::from_secs(self.seconds) {
            if let Some(code) = terminal.process.ended()? {
                let rows = terminal.rows();
                // A check that finds something to say ends with 1.
                ensure!(matches!(code, Some(0 | 1)), "{code:?} {rows:#?} {}", terminal.stderr()?);
                break;
            }
            if let [(at, key), rest @ ..] = keys
                && begin.elapsed() >= Duration::from_millis(*at)
            {
                terminal.keys(key)?;
                keys = rest;
            }
            if begin.elapsed() >= next_round {
                // Where a round takes long, none is made up for.
                next_round = begin.elapsed() + PERIOD;
                rounds.make().context("the traffic did not go as it should")?;
            }
            sleep(Duration::from_millis(20));
        }
        sleep(LAST);
        Ok(terminal.look(vt100::Screen::contents_formatted))
    }
}

/// Traffic, round by round.
struct Rounds<'l> {
    lab: &'l Lab,
    traffic: Traffic,
    number: u32,
}

impl Rounds<'_> {
    fn make(&mut self) -> Result<()> {
        let number = self.number;
        self.number += 1;
        if self.traffic == Traffic::None {
            return Ok(());
        }
        let router = self.lab.router();
        traffic::mix(self.lab, FIRST_PORT + u16::try_from(number)? * PORTS)?;
        match self.traffic {
            Traffic::Troubles => self.troubles()?,
            Traffic::Busy => {
                mass_of(self.lab, number * BUSY..(number + 1) * BUSY)?;
            }
            Traffic::None | Traffic::Mix => {}
        }
        // It dumps the table, and takes out what has expired.
        conntrack(router, &["-D", "-p", "tcp", "--orig-port-dst", "9001"])
    }

    /// A packet that the ruleset refuses, and one for which there is no room.
    fn troubles(&self) -> Result<()> {
        let before = fs::read_to_string(MAX)?;
        let send = |port: u16| {
            self.lab.client().enter(|| {
                let socket = UdpSocket::bind("10.77.1.2:0")?;
                socket.send_to(b"question", ("10.77.2.2", port))?;
                Ok(())
            })
        };
        send(6)?;
        fs::write(MAX, "1")?;
        let sent = send(5);
        fs::write(MAX, before.trim())?;
        sent
    }
}

fn conntrack(namespace: &Namespace, args: &[&str]) -> Result<()> {
    let mut command = namespace.command("conntrack");
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    match Guarded::spawn(&mut command)?.wait()? {
        // It ends with 1 if there is nothing to delete.
        Some(0 | 1) => Ok(()),
        code => bail!("conntrack {args:?} ended with {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::PICTURES;

    #[test]
    fn each_has_a_name_of_its_own_and_runs_flowlog() {
        for (place, picture) in PICTURES.iter().enumerate() {
            assert!(picture.command.starts_with("flowlog "), "{}", picture.name);
            assert!(PICTURES[..place].iter().all(|other| other.name != picture.name));
        }
    }
}
