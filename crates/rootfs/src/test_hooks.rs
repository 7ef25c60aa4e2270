//! For tests alone: what they see and choose of an [`attach`](crate::attach()).

use crate::attach::{self, AttachError, Attached, Hooks, Request};
use crate::overlay::LowerdirApi;

/// Like [`attach`](crate::attach()), with a call for every step that is done.
pub fn attach_observed(
    request: Request<'_>,
    observer: &(dyn Fn(&'static str) + Sync),
) -> Result<Attached, AttachError> {
    let hooks = Hooks {
        observer: Some(observer),
        ..Hooks::default()
    };
    attach::attach_with_hooks(request, hooks)
}

/// Like [`attach`](crate::attach()) on a kernel that gets the layers in this way alone.
pub fn attach_with_api(request: Request<'_>, api: LowerdirApi) -> Result<Attached, AttachError> {
    let hooks = Hooks {
        api: Some(api),
        ..Hooks::default()
    };
    attach::attach_with_hooks(request, hooks)
}
