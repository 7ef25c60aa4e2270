/*!
Kept filesystems as a resource: size and limits, disks that are full, failing or not mounted, data
without an instance, and volumes inside them.
*/

mod filesystem;
mod full_disk;
mod orphans;
mod unmounted_disk;
mod volumes;
