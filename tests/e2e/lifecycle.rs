/*!
What users do with an object: create, edit, stop, start and delete it, run the samples, and see how its program ended.
*/

mod deletion;
mod edits;
mod ends;
mod let_go;
mod samples;
mod stopped;
