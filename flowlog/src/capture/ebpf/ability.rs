//! What can be had on this host, found by trying: everything is loaded and
//! attached once by each method, and let go.

use super::btf::{self, KernelBtf};
use super::hooks::{self, Hook};
use super::layout::layout;
use super::probes::Probes;
use super::unable::{self, Unable};
use super::{Method, Settings};
use crate::capture::filter::Filter;
use crate::config::Attach;
use crate::event::Kinds;

/// What a method can do here.
pub struct Ability {
    /// The method.
    pub method: Method,
    /// The functions that programs were attached to; or why not, and what to
    /// do.
    pub state: Result<Vec<&'static str>, (String, &'static str)>,
}

/// What each method can do here.
pub fn abilities() -> Vec<Ability> {
    [Method::Fentry, Method::Kprobe]
        .map(|method| {
            let state = attempt(method).map_err(|error| (error.to_string(), error.remedy()));
            Ability { method, state }
        })
        .into()
}

fn attempt(method: Method) -> Result<Vec<&'static str>, Unable> {
    unable::preconditions(method)?;
    let btf = KernelBtf::open(btf::DIRECTORY.as_ref())?;
    let everything = Settings {
        mask: Kinds::all(),
        tracked: true,
        filter: Filter::default(),
        attach: Attach::Auto,
        ring: 1 << 16,
        netns: None,
        own_netns: 0,
        all_updates: false,
        traced: None,
        retried: false,
    };
    let for_programs = everything.for_programs(layout(&btf)?);
    let mut probes = Probes::new(method, &for_programs, everything.sizes(), false)?;
    let needed = [hooks::REMOVED, hooks::INSERTED, hooks::EXPECTED, hooks::CHANGED];
    let mut functions = Vec::new();
    for hook in &needed {
        functions.push(first_function(&mut probes, hook, &btf)?);
    }
    // Without these, causes are missing and nothing else.
    functions.extend(
        hooks::ACTIVITIES.iter().filter_map(|hook| first_function(&mut probes, hook, &btf).ok()),
    );
    Ok(functions)
}

fn first_function(
    probes: &mut Probes,
    hook: &Hook,
    btf: &KernelBtf,
) -> Result<&'static str, Unable> {
    Ok(probes.attach(hook, btf)?.attachments[0].function)
}
