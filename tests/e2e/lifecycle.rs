/*!
User operations: create, edit, stop, start and delete an object, run the samples, and see how the
program ended.
*/

mod deletion;
mod edits;
mod ends;
mod let_go;
mod preempted;
mod released;
mod samples;
mod stopped;
