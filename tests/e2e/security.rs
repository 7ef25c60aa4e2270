/*!
What a tenant, an image or a stolen token must not be able to do: change or read what belongs to others, forge what the
controller owns, or harm the node.
*/

mod agent_token;
mod hostile;
mod metrics;
mod ownership;
mod tenants;
