/*!
Attacks by a tenant, an image or a stolen token: they must not change or read data of others, forge
what the controller owns, or harm the node.
*/

mod agent_token;
mod hostile;
mod metrics;
mod ownership;
mod tenants;
