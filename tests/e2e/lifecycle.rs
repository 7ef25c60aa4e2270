/*!
User operations: create, edit, resize, stop, start, restart, reset and delete an object, run the
samples, and see how the program ended.
*/

mod announced;
mod deletion;
mod edits;
mod ends;
mod let_go;
mod preempted;
mod quota;
mod released;
mod reset;
mod resize;
mod restart;
mod samples;
mod steps;
mod stopped;
