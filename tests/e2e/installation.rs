/*!
The release itself: Helm upgrades it, rolls it back and uninstalls it, in a namespace of any name.

The tests use the chart of this repository with the values of the installed release. They run alone,
because nothing else works while the operator is away.
*/

pub(crate) mod helm;
mod moves;
mod upgrades;
