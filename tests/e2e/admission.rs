/*!
What the API server accepts, changes and refuses when an object or a pod is created or edited: dry runs, malformed and
oversized templates, generated pods, and namespaces that the webhook does not see.
*/

mod dry_run;
mod excluded;
mod generated;
mod side_effects;
mod templates;
