/*!
The inline CSI volume that brings the node agent into the pod, and the names that are reserved for
it.
*/

use k8s_openapi::api::core::v1::{CSIVolumeSource, Container, PodSpec, Volume, VolumeMount};
use stoppablecontainer_api::names::{CSI_DRIVER, VOLUME_MOUNT_PATH, VOLUME_NAME};

use super::Denial;

/// Whether a path in a container is the reserved one or below it, however it is spelt.
pub fn is_reserved_path(path: &str) -> bool {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.first() == VOLUME_MOUNT_PATH.split('/').nth(1).as_ref()
}

/// Whether the container mounts the volume as [`add`] would.
pub(super) fn is_mounted(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(is_our_mount)
}

/// Whether the pod has the volume, from our driver.
pub(super) fn is_listed(spec: &PodSpec) -> bool {
    let ours = |volume: &Volume| {
        volume.name == VOLUME_NAME && volume.csi.as_ref().is_some_and(|csi| csi.driver == CSI_DRIVER)
    };
    spec.volumes.iter().flatten().any(ours)
}

/// Refuses pods in which another container than the main one reaches for the volume.
pub(super) fn check_other_containers(spec: &PodSpec, main: usize) -> Result<(), Denial> {
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(at, c)| (format!("spec.initContainers[{at}]"), c));
    let others = spec.containers.iter().enumerate().filter(|(at, _)| *at != main);
    let others = others.map(|(at, c)| (format!("spec.containers[{at}]"), c));
    for (path, container) in init.chain(others) {
        let mounts = container.volume_mounts.iter().flatten();
        if let Some(at) = mounts.map(|m| &m.name).position(|name| name == VOLUME_NAME) {
            return Err(Denial::ForeignMount(format!("{path}.volumeMounts[{at}].name")));
        }
    }
    Ok(())
}

/// Adds the volume and its mount in the main container, or puts right what is there.
pub(super) fn add(spec: &mut PodSpec, main: usize) -> Result<(), Denial> {
    let csi = CSIVolumeSource {
        driver: CSI_DRIVER.to_owned(),
        read_only: Some(true),
        ..CSIVolumeSource::default()
    };
    let ours = Volume {
        name: VOLUME_NAME.to_owned(),
        csi: Some(csi),
        ..Volume::default()
    };
    let volumes = spec.volumes.get_or_insert_default();
    match volumes
        .iter_mut()
        .enumerate()
        .find(|(_, v)| v.name == VOLUME_NAME)
    {
        Some((_, volume)) if volume.csi.as_ref().is_some_and(|csi| csi.driver == CSI_DRIVER) => {
            *volume = ours;
        }
        Some((at, _)) => return Err(Denial::ReservedVolume(at)),
        None => volumes.push(ours),
    }

    let path = format!("spec.containers[{main}]");
    let container = &mut spec.containers[main];
    let devices = container.volume_devices.iter().flatten();
    if let Some(at) = devices
        .map(|d| &d.device_path)
        .position(|path| is_reserved_path(path))
    {
        return Err(Denial::ReservedPath(format!(
            "{path}.volumeDevices[{at}].devicePath"
        )));
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    for (at, mount) in mounts.iter_mut().enumerate() {
        match (is_our_mount(mount), mount.name == VOLUME_NAME) {
            (true, _) => mount.read_only = Some(true),
            (false, true) => return Err(Denial::ForeignMount(format!("{path}.volumeMounts[{at}]"))),
            (false, false) if is_reserved_path(&mount.mount_path) => {
                return Err(Denial::ReservedPath(format!(
                    "{path}.volumeMounts[{at}].mountPath"
                )));
            }
            (false, false) => {}
        }
    }
    if !mounts.iter().any(is_our_mount) {
        mounts.push(VolumeMount {
            name: VOLUME_NAME.to_owned(),
            mount_path: VOLUME_MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    Ok(())
}

fn is_our_mount(mount: &VolumeMount) -> bool {
    mount.name == VOLUME_NAME
        && mount.mount_path == VOLUME_MOUNT_PATH
        && mount.sub_path.as_ref().is_none_or(String::is_empty)
        && mount.sub_path_expr.as_ref().is_none_or(String::is_empty)
}
