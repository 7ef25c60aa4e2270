/*!
How the plugin of kubectl asks about kept files, and how it is answered.

The plugin executes the wrapper in the provider pod with a [`Request`] as argument. The wrapper
passes the request on to the node agent and copies the answer to its standard output. The answer is
a stream of frames ([`frame`]), of which the last one says whether the answer is complete: a stream
that ends without it was cut off on its way. The data in the frames of a listing are lines
([`listing`]). Paths are bytes, and lines have them in an escaped form ([`path`]).

Plugin, wrapper and agent may be of different versions. The version in a request is that of request
and answer together.
*/

#![forbid(unsafe_code)]

pub mod copy;
pub mod frame;
pub mod listing;
pub mod path;
pub mod request;

pub use request::Request;
