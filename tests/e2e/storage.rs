/*!
Kept filesystems as a resource: size and limits, disks that are full, failing or not mounted, data
without an instance, restored objects, objects whose kind or namespace is gone, and volumes inside
them.
*/

mod filesystem;
mod full_disk;
mod orphans;
mod restored_etcd;
mod unmounted_disk;
mod volumes;
mod without_tombstone;
