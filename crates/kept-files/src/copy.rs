/*!
What `kubectl stopc cp` and the wrapper in a container say to each other besides the files.

```text
exec-wrapper pack VERSION PATH
exec-wrapper unpack VERSION keep|leave PATH [BASE]
```

Paths are escaped ([`crate::path`]). `keep` keeps owners and modes. `unpack` reports its success on
its standard output, and both write notes to standard error.
*/

/// Version of the arguments and of the stream.
pub const VERSION: &str = "1";
/// How a note begins, after the prefix of the wrapper's lines. Other lines are errors.
pub const NOTE: &str = "note: ";

const DONE: &str = "copied";

/// The report of a complete copy.
pub fn done(files: u64, bytes: u64) -> String {
    format!("{DONE} {files} {bytes}")
}

/// Whether the output of `unpack` reports a complete copy.
pub fn is_done(output: &str) -> bool {
    output.lines().any(|line| {
        let words: Vec<_> = line.split(' ').collect();
        matches!(words[..], [DONE, files, bytes] if files.parse::<u64>().is_ok() && bytes.parse::<u64>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_report_is_a_success() {
        assert!(is_done(&done(3, u64::MAX)));
        for output in ["", "copied", "copied x", "error: 1"] {
            assert!(!is_done(output), "{output:?}");
        }
    }
}
