//! Takes the pictures of docs/pictures, in a guest (`cargo xtask pictures`): writes what makes a
//! terminal show them into /out, a file for each picture that is named.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use tests::pictures::Picture;

fn main() -> Result<()> {
    for name in std::env::args().skip(1) {
        let picture = Picture::named(&name).with_context(|| format!("no picture {name}"))?;
        let bytes = picture.take().with_context(|| name.clone())?;
        fs::write(Path::new("/out").join(&name), bytes)?;
    }
    Ok(())
}
