/*!
`book`: builds the documentation in `docs/` as a book with mdBook.
*/

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Directory of the documents.
const DOCS: &str = "docs";
/// Where readers of the book find files that are not part of it.
const FILES: &str = "https://github.com/xtlsoft/stoppablecontainer/blob/main/";

/// `book`: writes the book to `target/book`.
pub(crate) fn command(workspace: &Workspace, progress: &Progress) -> Result<()> {
    progress.expect(2);
    let tools = Tools::of(workspace);
    tools.prepare_mdbook(progress)?;
    progress.step("Build the book", |step| {
        let pages = workspace.target().join("book-pages");
        copy(&workspace.join(DOCS), &pages, workspace.root())?;
        let book = workspace.target().join("book");
        let mut command = tools.mdbook();
        command.arg("build").arg(&pages).arg("--dest-dir").arg(&book);
        step.run(&mut command)?;
        step.say(format!("      {}", book.join("index.html").display()));
        Ok(())
    })
}

/// Copies the pages and their pictures. Files outside the book are included from the clone, and
/// links to them lead to the repository.
fn copy(docs: &Path, pages: &Path, root: &Path) -> Result<()> {
    if pages.exists() {
        fs::remove_dir_all(pages).with_context(|| format!("removing {}", pages.display()))?;
    }
    copy_directory(docs, pages, root)
}

fn copy_directory(docs: &Path, pages: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(pages).with_context(|| format!("making {}", pages.display()))?;
    for entry in fs::read_dir(docs).with_context(|| format!("reading {}", docs.display()))? {
        let path = entry
            .with_context(|| format!("reading {}", docs.display()))?
            .path();
        let copy = pages.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_directory(&path, &copy, root)?;
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&copy, outside(&text, root)).with_context(|| format!("writing {}", copy.display()))?;
    }
    Ok(())
}

/// A page with the paths of files outside `docs` replaced.
fn outside(page: &str, root: &Path) -> String {
    let root = root.display();
    page.replace("{{#include ../", &format!("{{{{#include {root}/"))
        .replace("](../", &format!("]({FILES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_in_directories_are_copied_and_old_pages_removed() {
        let dir = std::env::temp_dir().join(format!("xtask-book-{}", std::process::id()));
        let (docs, pages) = (dir.join("docs"), dir.join("pages"));
        fs::create_dir_all(docs.join("speed")).unwrap();
        fs::create_dir_all(&pages).unwrap();
        fs::write(docs.join("speed/starts.svg"), "<svg/>").unwrap();
        fs::write(docs.join("speed.md"), "[a](../a.md)").unwrap();
        fs::write(pages.join("old.md"), "").unwrap();
        copy(&docs, &pages, Path::new("/r")).unwrap();
        let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
        let copied = (read("speed/starts.svg"), read("speed.md"));
        let old = pages.join("old.md").exists();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(copied, ("<svg/>".to_owned(), format!("[a]({FILES}a.md)")));
        assert!(!old);
    }

    #[test]
    fn only_paths_outside_the_book_change() {
        let page = "{{#include ../a.yaml}} {{#include b.md}} [c](../d.md) [e](f.md#g)";
        let expected =
            format!("{{{{#include /r/a.yaml}}}} {{{{#include b.md}}}} [c]({FILES}d.md) [e](f.md#g)");
        assert_eq!(outside(page, Path::new("/r")), expected);
    }
}
