/*!
Kept filesystems as a resource: their size and limits, the disk below them when it is full, failing or not mounted, data
without an instance, and volumes inside them.
*/

mod filesystem;
mod full_disk;
mod orphans;
mod unmounted_disk;
mod volumes;
