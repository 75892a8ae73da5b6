//! Pages of docs, of which tests run the commands.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A page's text, by its name in docs.
#[derive(Debug)]
pub struct Page {
    text: String,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn read(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self { text })
    }

    /// The block that begins with ` ```LANGUAGE ` and holds `words`; the first one.
    ///
    /// # Errors
    /// There is none.
    pub fn block(&self, language: &str, words: &str) -> Result<&str> {
        let mut blocks = self.blocks().filter(|(own, _)| *own == language);
        let found = blocks.find(|(_, block)| block.contains(words)).map(|(_, block)| block);
        found.with_context(|| format!("no block of {language} has {words:?}"))
    }

    /// Language and text of each block.
    fn blocks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Page;

    /// Files that pages link to; what is behind `#` is not looked for.
    #[test]
    fn links_lead_somewhere() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut pages = vec![root.join("README.md")];
        let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
        assert!(pages.len() > 5, "{pages:?}");
        for page in pages {
            let text = fs::read_to_string(&page).unwrap();
            let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
                let file = link.split('#').next().unwrap_or_default();
                let target = page.parent().unwrap().join(file);
                assert!(target.exists(), "{} links to {link}, which is not there", page.display());
            }
        }
    }

    #[test]
    fn blocks_are_found_by_language_and_words() {
        let text = "a\n\n```sh\nls\n```\nb\n```\nx ls\n```\n```sh\nls -l\ncat\n```\n".to_owned();
        let page = Page { text };
        assert_eq!(page.block("sh", "ls").unwrap(), "ls");
        assert_eq!(page.block("sh", "-l").unwrap(), "ls -l\ncat");
        assert_eq!(page.block("", "ls").unwrap(), "x ls");
        assert!(page.block("sh", "x").is_err());
    }
}
