/*!
Certificates of the admission webhook: one authority in a Secret that all replicas share, a serving
certificate per replica that never leaves its memory, and the authority's certificate published as
`caBundle`.

`README.md` beside this crate says who trusts whom and when what happens. The decisions are pure
([`material`]); [`Keeper`] watches, decides and writes.
*/

#![forbid(unsafe_code)]

pub mod authority;
pub mod hooks;
mod keeper;
pub mod leaf;
mod lifetimes;
pub mod material;
pub mod publish;
mod resolver;
pub mod secret;
pub mod supplied;

pub use keeper::{Keeper, Options, Source, Status};
pub use lifetimes::{Lifetimes, ParseDurationError, Validity, parse_duration};
pub use resolver::Resolver;
