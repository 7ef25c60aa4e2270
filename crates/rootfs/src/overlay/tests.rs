use super::*;

/// What a kernel makes of a dialect.
type Kernel = fn(Dialect) -> Result<Dialect, OverlayError>;

/// What a kernel says when `lowerdir+` is set. The errors are those that the kernels gave: a test
/// that had made them up kept an engine that started nothing on any kernel before 6.13.
fn not_known(errno: Errno) -> OverlayError {
    OverlayError::System("lowerdir+", errno)
}

/// What becomes of `EINVAL` at creation, on a kernel that reads options when they are set or one that does not.
fn invalid(dialect: Dialect, takes_any_option: bool) -> OverlayError {
    refusal(Errno::INVAL, dialect, || takes_any_option, format!("{dialect:?}"))
}

#[test]
fn the_oldest_words_are_found_that_a_kernel_understands() {
    let kernels: [(&str, Kernel, Dialect); 4] = [
        ("6.13", Ok, Dialect::Descriptors),
        (
            "6.12",
            |dialect| match dialect {
                Dialect::Descriptors => Err(not_known(Errno::BADF)),
                dialect => Ok(dialect),
            },
            Dialect::Paths,
        ),
        (
            // Read, not run: Debian has none between 6.1 and 6.12.
            "6.5",
            |dialect| match dialect {
                Dialect::Descriptors => Err(not_known(Errno::BADF)),
                Dialect::Paths => Err(not_known(Errno::INVAL)),
                Dialect::Joined => Ok(dialect),
            },
            Dialect::Joined,
        ),
        (
            // A descriptor is refused when it is set, for it is no string; an unknown string when all is read.
            "5.10 and 6.1",
            |dialect| match dialect {
                Dialect::Descriptors => Err(not_known(Errno::OPNOTSUPP)),
                Dialect::Paths => Err(invalid(dialect, true)),
                Dialect::Joined => Ok(dialect),
            },
            Dialect::Joined,
        ),
    ];
    for (kernel, mount, expected) in kernels {
        let found = understood(Dialect::Descriptors, mount);
        assert_eq!(
            found.map_err(|e| e.to_string()),
            Ok((expected, expected)),
            "{kernel}"
        );
    }
}

/// An overlay that is refused in words that the kernel understood is not asked for in others: their error would say
/// something else.
#[test]
fn the_error_is_the_first_that_is_about_the_overlay() {
    let log = |result: Result<((), Dialect), OverlayError>| match result {
        Err(OverlayError::Refused { log, source }) => (log, source),
        other => panic!("{other:?}"),
    };
    let modern = understood(Dialect::Descriptors, |dialect| match dialect {
        Dialect::Joined => Err(OverlayError::TooManyLayers(100)),
        dialect => Err(invalid(dialect, false)),
    });
    assert_eq!(log(modern), ("Descriptors".to_owned(), Errno::INVAL));
    let between = understood(Dialect::Descriptors, |dialect| match dialect {
        Dialect::Descriptors => Err(not_known(Errno::BADF)),
        Dialect::Paths => Err(invalid(dialect, false)),
        Dialect::Joined => Err(OverlayError::TooManyLayers(100)),
    });
    assert_eq!(log(between), ("Paths".to_owned(), Errno::INVAL));
    let old = |joined: fn() -> OverlayError| {
        understood(Dialect::Descriptors, move |dialect| {
            Err::<(), _>(match dialect {
                Dialect::Descriptors => not_known(Errno::OPNOTSUPP),
                Dialect::Paths => invalid(dialect, true),
                Dialect::Joined => joined(),
            })
        })
    };
    assert_eq!(
        log(old(|| invalid(Dialect::Joined, true))),
        ("Joined".to_owned(), Errno::INVAL)
    );
    assert!(matches!(
        old(|| OverlayError::TooManyLayers(100)),
        Err(OverlayError::TooManyLayers(100))
    ));
}

#[test]
fn i2_an_overlay_in_use_is_that_in_every_dialect() {
    for dialect in [Dialect::Descriptors, Dialect::Paths, Dialect::Joined] {
        let error = refusal(Errno::BUSY, dialect, || true, String::new());
        assert!(matches!(error, OverlayError::InUse), "{dialect:?}: {error}");
    }
}
