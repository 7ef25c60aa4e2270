use std::io::Read;

use super::*;

const UPPER: &str = "key/upper";
const HELD: &str = "9 8 0:2 / /any\\040where rw,relatime shared:1 master:2 - overlay stoppablecontainer rw,lowerdir+=/a,upperdir=/x/key/upper,workdir=/x/key/work\n";
const OTHER: &str = "7 1 0:5 / /key/upper rw - tmpfs upperdir=/x/key/upper rw,upperdir=/x/key/upper\n";

fn none() -> TimeBudget {
    TimeBudget(std::time::Duration::ZERO)
}

fn find(table: &str) -> Found {
    super::find(table.as_bytes(), UPPER, &mut none()).unwrap()
}

/// A mount table with `count` mounts of other filesystems.
fn others(count: usize) -> impl Read {
    std::io::Cursor::new(OTHER.repeat(count))
}

#[test]
fn only_the_upper_directory_of_an_overlay_counts() {
    assert_eq!(find(""), Found::No);
    assert_eq!(find(OTHER), Found::No);
    assert_eq!(find(HELD), Found::Yes);
    assert_eq!(find(&format!("{OTHER}{HELD}{OTHER}")), Found::Yes);
    for option in [
        "upperdir=/x/otherkey/upper",
        "upperdir=/x/key/upper/below",
        "upperdir=/x/key\\057upper\\054",
        "lowerdir=/x/key/upper",
        "workdir=/x/key/upper",
        "xupperdir=/x/key/upper",
        "upperdir",
        "",
    ] {
        let line = format!("9 8 0:2 / / rw - overlay x rw,{option}\n");
        assert_eq!(find(&line), Found::No, "{option}");
        assert_eq!(find(&format!("{line}{HELD}")), Found::Yes, "{option}");
    }
    for option in [
        "upperdir=/a\\054b/key/upper",
        "upperdir=/proc/self/fd/7/key/upper,x",
    ] {
        let line = format!("9 8 0:2 / / rw - overlay x rw,{option}");
        assert_eq!(find(&line), Found::Yes, "{option}");
    }
}

#[test]
fn a_line_that_is_none_hides_no_other() {
    for line in [
        "\n",
        "x\n",
        "1 2 3 4 5 6\n",
        "1 2 3 4 5 6 7 8\n",
        "1 2 3 4 5 6 -\n",
        "1 2 3 4 5 6 - overlay\n",
    ] {
        // Where the broken line swallows the beginning of the next one, the one after that is
        // whole.
        assert_eq!(find(&format!("{line}{OTHER}{HELD}")), Found::Yes, "{line:?}");
    }
}

#[test]
fn i2_lines_of_megabytes_are_understood() {
    let long = "\\012".repeat(1 << 20);
    let at = format!("9 8 0:2 / /{long} rw - overlay x rw,upperdir=/x/key/upper\n");
    let lower = format!("9 8 0:2 / / rw - overlay x rw,lowerdir=/{long},upperdir=/x/key/upper\n");
    let upper = format!("9 8 0:2 / / rw - overlay x rw,upperdir=/{long}/key/upper\n");
    for line in [at, lower, upper] {
        assert_eq!(find(&line), Found::Yes);
    }
}

#[test]
fn i2_a_large_table_is_read_to_its_end() {
    let count = usize::try_from(ANY_CASE).unwrap() / OTHER.len() * 2;
    let mut budget = TimeBudget::new();
    let table = others(count).chain(HELD.as_bytes());
    assert_eq!(super::find(table, UPPER, &mut budget).unwrap(), Found::Yes);
    assert_ne!(budget, TimeBudget::new());
}

#[test]
fn i2_without_patience_ordinary_tables_are_read_all_the_same() {
    let endless = std::io::repeat(b'x');
    let found = super::find(endless, UPPER, &mut none());
    assert_eq!(found.unwrap(), Found::Unknown);
    let ordinary = others(1000).chain(HELD.as_bytes());
    let found = super::find(ordinary, UPPER, &mut none());
    assert_eq!(found.unwrap(), Found::Yes);
}
