use super::*;

/// How a kernel answers to an API.
type Kernel = fn(LowerdirApi) -> Result<LowerdirApi, OverlayError>;

/// What a kernel says when `lowerdir+` is set. The errors are those that the kernels gave: a test
/// that had made them up kept an engine that started nothing on any kernel before 6.13.
fn not_known(errno: Errno) -> OverlayError {
    OverlayError::System("lowerdir+", errno)
}

/// What becomes of `EINVAL` at creation, on a kernel that reads options when they are set or one
/// that does not.
fn invalid(api: LowerdirApi, takes_any_option: bool) -> OverlayError {
    refusal(Errno::INVAL, api, || takes_any_option, format!("{api:?}"))
}

#[test]
fn the_oldest_words_are_found_that_a_kernel_understands() {
    let kernels: [(&str, Kernel, LowerdirApi); 4] = [
        ("6.13", Ok, LowerdirApi::Descriptors),
        (
            "6.12",
            |api| match api {
                LowerdirApi::Descriptors => Err(not_known(Errno::BADF)),
                api => Ok(api),
            },
            LowerdirApi::Paths,
        ),
        (
            // Read, not run: Debian has none between 6.1 and 6.12.
            "6.5",
            |api| match api {
                LowerdirApi::Descriptors => Err(not_known(Errno::BADF)),
                LowerdirApi::Paths => Err(not_known(Errno::INVAL)),
                LowerdirApi::Joined => Ok(api),
            },
            LowerdirApi::Joined,
        ),
        (
            // A descriptor is refused when it is set, for it is not a string; an unknown string
            // when all is read.
            "5.10 and 6.1",
            |api| match api {
                LowerdirApi::Descriptors => Err(not_known(Errno::OPNOTSUPP)),
                LowerdirApi::Paths => Err(invalid(api, true)),
                LowerdirApi::Joined => Ok(api),
            },
            LowerdirApi::Joined,
        ),
    ];
    for (kernel, mount, expected) in kernels {
        let found = first_supported(LowerdirApi::Descriptors, mount);
        assert_eq!(
            found.map_err(|e| e.to_string()),
            Ok((expected, expected)),
            "{kernel}"
        );
    }
}

/// An overlay that is refused in words that the kernel understood is not asked for in others: their
/// error would say something else.
#[test]
fn the_error_is_the_first_that_is_about_the_overlay() {
    let log = |result: Result<((), LowerdirApi), OverlayError>| match result {
        Err(OverlayError::Refused { log, source }) => (log, source),
        other => panic!("{other:?}"),
    };
    let modern = first_supported(LowerdirApi::Descriptors, |api| match api {
        LowerdirApi::Joined => Err(OverlayError::TooManyLayers(100)),
        api => Err(invalid(api, false)),
    });
    assert_eq!(log(modern), ("Descriptors".to_owned(), Errno::INVAL));
    let between = first_supported(LowerdirApi::Descriptors, |api| match api {
        LowerdirApi::Descriptors => Err(not_known(Errno::BADF)),
        LowerdirApi::Paths => Err(invalid(api, false)),
        LowerdirApi::Joined => Err(OverlayError::TooManyLayers(100)),
    });
    assert_eq!(log(between), ("Paths".to_owned(), Errno::INVAL));
    let old = |joined: fn() -> OverlayError| {
        first_supported(LowerdirApi::Descriptors, move |api| {
            Err::<(), _>(match api {
                LowerdirApi::Descriptors => not_known(Errno::OPNOTSUPP),
                LowerdirApi::Paths => invalid(api, true),
                LowerdirApi::Joined => joined(),
            })
        })
    };
    assert_eq!(
        log(old(|| invalid(LowerdirApi::Joined, true))),
        ("Joined".to_owned(), Errno::INVAL)
    );
    assert!(matches!(
        old(|| OverlayError::TooManyLayers(100)),
        Err(OverlayError::TooManyLayers(100))
    ));
}

#[test]
fn i2_an_overlay_in_use_is_that_in_every_dialect() {
    for api in [LowerdirApi::Descriptors, LowerdirApi::Paths, LowerdirApi::Joined] {
        let error = refusal(Errno::BUSY, api, || true, String::new());
        assert!(matches!(error, OverlayError::InUse), "{api:?}: {error}");
    }
}
