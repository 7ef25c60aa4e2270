/*!
The half of the exec-wrapper that the node agent shares: the protocol between them.
*/

#![forbid(unsafe_code)]

pub mod protocol;
