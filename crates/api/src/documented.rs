//! Constants whose documentation is data as well, for `docs/api.md`.

/// Defines text constants and a table of their values with their documentation, so that each stands in one place.
macro_rules! documented {
    (
        $(#[doc = $about:literal])+
        $table:ident:
        $($(#[doc = $doc:literal])+ $name:ident = $value:literal;)+
    ) => {
        $($(#[doc = $doc])+ pub const $name: &str = $value;)+
        $(#[doc = $about])+
        pub const $table: &[(&str, &str)] = &[$(($value, concat!($($doc),+))),+];
    };
}

pub(crate) use documented;
