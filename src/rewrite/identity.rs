/*!
Who the main container runs as. A runtime takes user and groups from the image's config and its
`/etc/passwd`; the wrapper image has neither, so what the node agent resolved in the kept filesystem
is written out as numbers.
*/

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec};
use stoppablecontainer_api::Identity;

use super::Denial;

/// Value of `supplementalGroupsPolicy` with which groups of the image do not count.
const STRICT: &str = "Strict";

/// Most groups that a process may have (NGROUPS_MAX): with more of them no runtime starts one.
pub(super) const MAX_GROUPS: usize = 65536;

/// Takes back what an earlier call wrote into a container for whose pod another webhook has named a
/// user since: the user of the image gave way to it had it been named in time, as in a plain pod.
pub(super) fn give_way(
    container: &mut Container,
    pod: &PodSecurityContext,
    template: Option<&Container>,
    identity: &Identity,
) {
    let template = template
        .and_then(|c| c.security_context.clone())
        .unwrap_or_default();
    let Some(context) = container.security_context.as_mut() else {
        return;
    };
    let is_ours = template.run_as_user.is_none() && context.run_as_user == Some(identity.uid);
    if !is_ours || pod.run_as_user.is_none() {
        return;
    }
    context.run_as_user = None;
    if template.run_as_group.is_none() && context.run_as_group == Some(identity.gid) {
        context.run_as_group = None;
    }
}

/// Sets user and group where neither the container nor the pod does, and holds the result against
/// `runAsNonRoot` as the kubelet would. Root is what the wrapper image gives anyway: it is not
/// written out, so that a policy that looks for `runAsUser: 0` sees in the pod what it would see in
/// the template.
pub(super) fn set(
    container: &mut Container,
    pod: &PodSecurityContext,
    identity: &Identity,
    image_user: &str,
    path: &str,
) -> Result<(), Denial> {
    let own = container.security_context.clone().unwrap_or_default();
    let asked = own.run_as_user.or(pod.run_as_user);
    let uid = asked.unwrap_or(identity.uid);
    if uid == 0 && own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        // An earlier rewrite may have written the image's 0 down, so ask what the agent resolved.
        return Err(if identity.uid == 0 && identity.user == image_user {
            Denial::RunsAsRootByImage {
                container: path.to_owned(),
                user: image_user.to_owned(),
            }
        } else {
            Denial::RunsAsRootByTemplate(path.to_owned())
        });
    }
    // The agent does not know the group of a user that another webhook set.
    let group = own.run_as_group.or(pod.run_as_group);
    let gid = (group.is_none() && uid == identity.uid && identity.gid != 0).then_some(identity.gid);
    // A group needs a user beside it, be it root.
    let uid = (asked.is_none() && (uid != 0 || gid.is_some())).then_some(uid);
    if uid.is_some() || gid.is_some() {
        let context = container.security_context.get_or_insert_default();
        context.run_as_user = uid.or(context.run_as_user);
        context.run_as_group = gid.or(context.run_as_group);
    }
    Ok(())
}

/// Adds the user's groups of the image to the pod's.
pub(super) fn add_groups(spec: &mut PodSpec, identity: &Identity) -> Result<(), Denial> {
    let strict = spec
        .security_context
        .as_ref()
        .and_then(|c| c.supplemental_groups_policy.as_deref())
        == Some(STRICT);
    if strict || identity.supplemental_groups.is_empty() {
        return Ok(());
    }
    let groups = spec
        .security_context
        .get_or_insert_default()
        .supplemental_groups
        .get_or_insert_default();
    let mut known: HashSet<i64> = groups.iter().copied().collect();
    let new = identity.supplemental_groups.iter();
    groups.extend(new.copied().filter(|group| known.insert(*group)));
    if known.len() > MAX_GROUPS {
        return Err(Denial::TooManyGroups(known.len()));
    }
    Ok(())
}
