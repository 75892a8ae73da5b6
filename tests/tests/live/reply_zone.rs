//! A zone of one direction, as `conntrack -I --reply-zone 9` makes it: told of the direction that
//! it holds for.

use anyhow::{Context, Result, ensure};
use tests::daemon::{Launch, Program};
use tests::lab::SingleNs;
use tests::poll;

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn it_is_in_json_and_in_the_list() -> Result<()> {
    let single = SingleNs::new()?;
    let text = "[global]\nlogfile=\"@DIR@/daemon.log\"\nstack=ct1:NFCT,json1:JSON\n\
                [ct1]\nevent_mask=1\nhash_enable=0\n\
                [json1]\nfile=\"@DIR@/flows.log.json\"\nschema=full\nsync=1\n";
    let daemon = Launch::new(Program::Flowlog, single.namespace(), text)?.start()?;
    single.namespace().run(
        "conntrack -I -s 192.0.2.1 -d 192.0.2.2 -p udp --sport 7 --dport 8 --timeout 60 \
         --reply-zone 9",
    )?;
    let line = poll::until("the flow", || {
        let text = daemon.text("flows.log.json");
        Ok(text.lines().find(|line| line.contains("192.0.2.1")).map(str::to_owned))
    })
    .with_context(|| daemon.log())?;
    ensure!(line.contains(r#""zone":0,"reply_zone":9"#), "{line}");
    let program = Program::Flowlog.path()?.display().to_string();
    let list = single.namespace().run(&format!("{program} list -o json"))?;
    ensure!(list.contains(r#""zone":0,"reply_zone":9"#), "{list}");
    Ok(())
}
