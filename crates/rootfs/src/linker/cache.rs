/*!
The file format of `/etc/ld.so.cache`: glibc's "new" format, which all its loaders since 2.2 read
(glibc, sysdeps/generic/dl-cache.h). It has no extension section, so it has no libraries of
`glibc-hwcaps` directories; the loader then takes those of the directory above.
*/

use std::cmp::Ordering;

/// `CACHEMAGIC_NEW` and `CACHE_VERSION`.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// `struct cache_file_new` without its entries.
const HEADER: usize = 48;
/// `struct file_entry_new`.
const ENTRY: usize = 24;
/// `cache_file_new_flags_endian_little`. Loaders before 2.33 ignore it.
const LITTLE_ENDIAN: u8 = 2;

/// A library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Library {
    /// The name that programs ask for.
    pub(super) name: Vec<u8>,
    /// Its path.
    pub(super) path: Vec<u8>,
    /// Its machine, see [`super::elf`].
    pub(super) flags: u32,
}

/// The cache of these libraries. Of two with the same name and machine the loader takes the first.
pub(super) fn encode(mut libraries: Vec<Library>) -> Vec<u8> {
    // The loader searches by halves, from the last name to the first.
    libraries.sort_by(|one, other| compare_names(&other.name, &one.name).then(other.flags.cmp(&one.flags)));
    let strings_at = HEADER + libraries.len() * ENTRY;
    let (mut entries, mut strings) = (Vec::new(), Vec::new());
    let mut add = |text: &[u8]| {
        let at = number(strings_at + strings.len());
        strings.extend_from_slice(text);
        strings.push(0);
        at
    };
    for library in &libraries {
        entries.extend_from_slice(&library.flags.to_le_bytes());
        entries.extend_from_slice(&add(&library.name));
        entries.extend_from_slice(&add(&library.path));
        // The kernel's version and the capabilities of the processor that it needs.
        entries.extend_from_slice(&[0; 12]);
    }
    let mut cache = MAGIC.to_vec();
    cache.extend_from_slice(&number(libraries.len()));
    cache.extend_from_slice(&number(strings.len()));
    cache.push(LITTLE_ENDIAN);
    cache.resize(HEADER, 0);
    cache.extend_from_slice(&entries);
    cache.extend_from_slice(&strings);
    cache
}

/// The order of names in the cache: numbers in them count as numbers (`_dl_cache_libcmp`).
pub(super) fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        match (one.first(), other.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let order = take_number(&mut one).cmp(&take_number(&mut other));
                if order != Ordering::Equal {
                    return order;
                }
            }
            (Some(a), _) if a.is_ascii_digit() => return Ordering::Greater,
            (_, Some(b)) if b.is_ascii_digit() => return Ordering::Less,
            (Some(a), Some(b)) if a != b => return a.cmp(b),
            _ => (one, other) = (&one[1..], &other[1..]),
        }
    }
}

/// A number at the beginning, as the loader computes it: in 32 bits that overflow.
fn take_number(text: &mut &[u8]) -> i32 {
    let mut number = 0_i32;
    while let Some((digit, rest)) = text.split_first().filter(|(digit, _)| digit.is_ascii_digit()) {
        number = number.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = rest;
    }
    number
}

/// As the format has it. The sizes are bounded, see [`super`].
fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::process::Command;

    use super::{Library, compare_names, encode};

    fn library(name: &str) -> Library {
        Library {
            name: name.into(),
            path: format!("/lib/{name}").into(),
            flags: 0x0303,
        }
    }

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        assert_eq!(compare_names(b"liba.so.10", b"liba.so.9"), Ordering::Greater);
        assert_eq!(compare_names(b"liba.so.1", b"liba.so"), Ordering::Greater);
        assert_eq!(compare_names(b"liba1", b"libab"), Ordering::Greater);
        assert_eq!(compare_names(b"libz", b"liba"), Ordering::Greater);
        assert_eq!(compare_names(b"liba.so.1", b"liba.so.1"), Ordering::Equal);
    }

    /// The machine's own ldconfig reads it.
    #[test]
    fn the_cache_is_readable_by_glibc() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let names = ["libz.so.1", "liba.so.9", "liba.so.10", "libcuda.so"];
        std::fs::write(file.path(), encode(names.map(library).into())).unwrap();
        let listed = Command::new("/sbin/ldconfig")
            .args(["-p", "-C"])
            .arg(file.path())
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let listed: Vec<_> = listed.lines().map(str::trim).collect();
        assert!(listed[0].starts_with("4 libs found"), "{listed:?}");
        let expected = ["libz.so.1", "libcuda.so", "liba.so.10", "liba.so.9"];
        for (line, name) in listed[1..].iter().zip(expected) {
            assert_eq!(*line, format!("{name} (libc6,x86-64) => /lib/{name}"));
        }
    }
}
