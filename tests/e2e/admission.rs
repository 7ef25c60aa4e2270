/*!
Admission: which objects and pods the API server accepts, changes and rejects when they are created
or edited. The tests cover dry runs, malformed and oversized templates, generated pods, and
namespaces that the webhook does not see.
*/

mod dry_run;
mod excluded;
mod generated;
mod side_effects;
mod templates;
